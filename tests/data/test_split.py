"""Parts by lot, in proportion and without leaks; all splits of a configuration at once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from wenmai.data.sources import DataConfig
from wenmai.data.split import joined_groups, load_splits, split_indices
from wenmai.errors import ConfigError, DataError, UserError

SHARES: dict[str, Any] = {"dev": 0.1, "test": 0.2, "stratify": True}


class Sentence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    label: str | None = None
    page: str | None = None
    id: int | None = None

    @property
    def labelled(self) -> bool:
        return self.label is not None


def jsonl(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return str(path)


def test_stratified_parts_have_their_shares_and_never_change() -> None:
    labels = ["common"] * 700 + ["seldom"] * 290 + ["rare"] * 9 + ["once"]
    train, dev, test = split_indices(labels, None, 1_000, seed=3, **SHARES)
    assert (len(train), len(dev), len(test)) == (700, 100, 200)
    assert np.array_equal(np.sort(np.concatenate([train, dev, test])), np.arange(1_000))
    for part, share in ((train, 0.7), (dev, 0.1), (test, 0.2)):
        counts = Counter(labels[i] for i in part)
        assert abs(counts["common"] - 700 * share) <= 1
        assert abs(counts["seldom"] - 290 * share) <= 1
    assert labels.index("once") in train
    again = split_indices(labels, None, 1_000, seed=3, **SHARES)
    assert all(np.array_equal(a, b) for a, b in zip((train, dev, test), again, strict=True))
    other = split_indices(labels, None, 1_000, seed=4, **SHARES)
    assert not np.array_equal(test, other[2])
    assert not np.array_equal(np.diff(test), np.ones(199))  # drawn by lot, not cut off in a row


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=80),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.booleans(),
    st.integers(0, 9),
)
def test_groups_stay_together_and_nothing_is_lost(
    rows: list[tuple[str, int]], dev: float, test: float, stratify: bool, seed: int
) -> None:
    labels, groups = [row[0] for row in rows], [row[1] for row in rows]
    parts = split_indices(labels, groups, len(rows), dev=dev, test=test, stratify=stratify, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(rows)))
    owners = {
        groups[i]: {p for p in range(3) if groups[i] in {groups[j] for j in parts[p]}}
        for i in range(len(rows))
    }
    assert all(len(owner) == 1 for owner in owners.values())
    largest = max(Counter(groups).values())
    assert len(parts[1]) <= dev * len(rows) + largest / 2
    assert len(parts[2]) <= test * len(rows) + largest / 2


def test_shares_must_leave_something() -> None:
    with pytest.raises(UserError, match="leave nothing for training"):
        split_indices(None, None, 10, dev=0.5, test=0.5, stratify=False, seed=0)


def test_joined_groups_are_connected() -> None:
    joined = joined_groups(["a", "b", "a", "c", "d"], [1, 2, 3, 3, 4])
    assert joined[0] == joined[2] == joined[3]
    assert len({joined[0], joined[1], joined[4]}) == 3


def test_held_out_parts_share_no_text_and_no_group(tmp_path: Path) -> None:
    records = [
        {"text": f"句{i % 80}", "label": "ab"[i % 2], "page": f"p{i % 40}", "id": i} for i in range(200)
    ]
    config = DataConfig(train=jsonl(tmp_path / "a.jsonl", records), split={"dev": 0.2, "test": 0.2})
    splits = load_splits(config, Sentence, cache=None, output=None)
    assert sum(len(part) for part in splits.values()) == 200
    assert all(
        abs(len(splits[name]) - 40) <= 1 for name in ("dev", "test")
    )  # a text stands two or three times
    texts = [{example.text for example in part} for part in splits.values()]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    grouped = config.model_copy(update={"split": config.split.model_copy(update={"group": "page"})})
    pages = [
        {e.page for e in part} for part in load_splits(grouped, Sentence, cache=None, output=None).values()
    ]
    assert sum(map(len, pages)) == len(set.union(*pages)) == 40
    assert splits["dev"].place(0).startswith(str(tmp_path / "a.jsonl") + ":")


def test_problems_of_all_splits_come_in_one_error(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [{"text": "好", "label": "a"}, {"text": 1, "label": "a"}])
    test = jsonl(tmp_path / "test.jsonl", [{"text": "好"}])
    config = DataConfig(train=train, dev=str(tmp_path / "dve.jsonl"), test=test)
    with pytest.raises(DataError) as error:
        load_splits(config, Sentence, cache=None, output=None)
    assert [problem.place for problem in error.value.problems] == [
        f"{train}:2",
        str(tmp_path / "dve.jsonl"),
        f"{test}:1",
    ]
    assert "set data.on_error: skip" in error.value.summary or "no usable record" in error.value.summary


def test_skipping_writes_the_rejects_of_all_splits(tmp_path: Path) -> None:
    rows = [{"text": "好", "label": "a"}, {"text": 1, "label": "a"}]
    config = DataConfig(
        root=str(tmp_path),
        train=Path(jsonl(tmp_path / "train.jsonl", rows)).name,
        test=Path(jsonl(tmp_path / "test.jsonl", [*rows, {"text": "坏"}])).name,
        on_error="skip",
    )
    splits = load_splits(config, Sentence, cache=None, output=tmp_path / "run")
    assert {name: len(part) for name, part in splits.items()} == {"train": 1, "test": 1}
    written = [json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()]
    assert [(Path(row["path"]).name, row["line"]) for row in written] == [
        ("train.jsonl", 2),
        ("test.jsonl", 2),
        ("test.jsonl", 3),
    ]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"split": {"dev": 0.1}, "dev": "dev.jsonl"}, "data.split.dev"),
        ({"split": {"dev": 0.5, "test": 0.5}}, "data.split"),
        ({"split": {"dev": 0.1, "group": "author"}}, "data.split.group"),
        ({"split": {"dev": 0.01}}, "data.split.dev"),
    ],
)
def test_splits_that_contradict_the_rest(tmp_path: Path, options: dict[str, Any], key: str) -> None:
    rows = [{"text": f"{i}", "label": "a"} for i in range(10)]
    config = DataConfig(train=jsonl(tmp_path / "train.jsonl", rows), **options)
    with pytest.raises(ConfigError) as error:
        load_splits(config, Sentence, cache=None, output=None)
    assert [problem.place for problem in error.value.problems] == [key]
