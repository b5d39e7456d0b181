"""Mixtures have the shares that were asked for, repeat evenly, and are shuffled the same way however they are made."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.texts import made_up, write_records
from wenmai.corpus import mixing
from wenmai.corpus.mixing import epochs_of, mix, shares_of
from wenmai.corpus.running import Job
from wenmai.corpus.settings import MixConfig
from wenmai.errors import ConfigError, UserError


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    return {
        name: {"path": str(write_records(tmp_path / f"{name}.jsonl", made_up(count, seed=count)))}
        for name, count in (("news", 300), ("poems", 100))
    }


def mixed(folder: Path, sources: dict[str, Any], seed: int = 1, name: str = "mix", **settings: Any) -> Any:
    config = MixConfig.model_validate({"sources": sources, **settings})
    paths = [source["path"] for source in sources.values()]
    report = mix(Job(paths, folder / f"{name}.jsonl", chunk_bytes=30000, overwrite=True), config, seed)
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return report, [json.loads(line) for line in lines]


def test_weights_and_epochs(tmp_path: Path, sources: dict[str, Any]) -> None:
    sources["news"]["weight"], sources["poems"]["weight"] = 1, 3
    report, records = mixed(tmp_path, sources, documents=300)
    news, poems = report["sources"]["news"], report["sources"]["poems"]
    assert (news["epochs"], poems["epochs"]) == (0.25, 2.25) and poems["weight"] == 0.75
    counts = Counter(record["source"] for record in records)
    assert counts == {"news": news["documents_out"], "poems": poems["documents_out"]}
    assert abs(counts["news"] - 75) < 25 and abs(counts["poems"] - 225) < 15
    times = Counter(record["text"] for record in records if record["source"] == "poems")
    assert len(times) == 100 and set(times.values()) == {2, 3}
    assert report["total"]["characters_out"] == sum(len(record["text"]) for record in records)


def test_the_default_is_everything_once(tmp_path: Path, sources: dict[str, Any]) -> None:
    report, records = mixed(tmp_path, sources)
    assert len(records) == len({record["text"] for record in records}) == 400
    assert {one["epochs"] for one in report["sources"].values()} == {1.0}


def test_it_is_shuffled(tmp_path: Path, sources: dict[str, Any]) -> None:
    _, records = mixed(tmp_path, sources)
    order = [made_up(300, seed=300).index(one["text"]) for one in records if one["source"] == "news"]
    assert sum(a < b for a, b in pairwise(order)) == pytest.approx(150, abs=35)
    switches = sum(a["source"] != b["source"] for a, b in pairwise(records))
    assert switches == pytest.approx(150, abs=35)
    assert mixed(tmp_path, sources, seed=2)[1] != records
    assert mixed(tmp_path, sources)[1] == records


def test_slices_change_nothing(
    tmp_path: Path, sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = mixed(tmp_path, sources, documents=900)
    monkeypatch.setattr(mixing, "SLICE_BYTES", 5000)
    assert mixed(tmp_path, sources, name="sliced", documents=900)[1] == whole


def test_temperature_evens_out() -> None:
    config = MixConfig.model_validate({"sources": {"a": "a", "b": "b"}, "temperature": 2.0})
    assert shares_of({"a": 900, "b": 100}, config) == {"a": 0.75, "b": 0.25}
    # nothing comes twice: b, of 100, is a quarter
    epochs = epochs_of({"a": {"characters": 900}, "b": {"characters": 100}}, config)
    assert epochs == pytest.approx({"a": 300 / 900, "b": 1.0})


def test_too_many_epochs_are_refused_with_all_sources() -> None:
    config = MixConfig.model_validate({"sources": {"a": "a", "b": "b"}, "characters": 10**6})
    with pytest.raises(ConfigError) as error:
        epochs_of({"a": {"characters": 90}, "b": {"characters": 10}}, config)
    assert len(error.value.problems) == 2 and "would be read 10000.0 times" in str(error.value)
    with pytest.raises(UserError, match="b: no document can be read"):
        epochs_of({"a": {"characters": 90}, "b": {}}, config)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sources": {"a": {"path": "a", "weight": 1}, "b": "b"}}, "no weight for b"),
        ({"sources": {"a": "a", "b": "a"}}, "a is there twice"),
        ({"characters": 5, "documents": 5}, "exclude each other"),
    ],
)
def test_settings_that_contradict_each_other(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MixConfig.model_validate(tree)
