"""Packed rows hold every token of the documents once and in order, are full, and tell where words begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from wenmai.data import featurizing
from wenmai.data.batching import measure
from wenmai.data.examples import Examples, read_examples
from wenmai.data.featurizing import build_features
from wenmai.data.packing import Groups, packed, packing
from wenmai.data.rows import IGNORE, Row

BEGIN, SEPARATOR = 101, 102


def document(tokens: list[int], window: int = 1000) -> list[Row]:
    """Rows of a text as a task makes them, in windows that don't overlap."""
    cuts = range(0, max(1, len(tokens)), window)
    rows = []
    for at in cuts:
        part = tokens[at : at + window]
        rows.append(
            Row(
                inputs={"input_ids": [BEGIN, *part, SEPARATOR], "token_type_ids": [0] * (len(part) + 2)},
                targets={"words": np.array([IGNORE, *(token % 2 for token in part), IGNORE])},
                content=(1, 1 + len(part)),
                window=at,
            )
        )
    return rows


TEXTS = st.lists(st.lists(st.integers(1, 90), max_size=30), min_size=1, max_size=12)


@given(TEXTS, st.integers(3, 20), st.integers(1, 12))
def test_every_token_once_and_in_order(texts: list[list[int]], max_length: int, window: int) -> None:
    rows = packed((document(tokens, window) for tokens in texts), max_length)
    full = [text for text in texts if text]
    found: list[int] = []
    for number, row in enumerate(rows):
        ids = np.asarray(row.inputs["input_ids"])
        first, stop = row.content
        assert ids[0] == BEGIN and ids[-1] == SEPARATOR and (first, stop) == (1, len(ids) - 1)
        assert len(ids) == max_length or (number == len(rows) - 1 and len(ids) < max_length)
        words = np.asarray(row.targets["words"])
        special = ids > 100
        assert (words[special] == IGNORE).all()
        assert (words[~special] == ids[~special] % 2).all()
        assert stop == first or not special[first]
        found += ids[first:stop].tolist()
    assert [token for token in found if token < 100] == [token for text in full for token in text]
    # a separator between any two documents, but where a row ends there anyway
    assert found.count(SEPARATOR) <= max(0, len(full) - 1)
    assert found.count(SEPARATOR) >= len(full) - len(rows)


def test_nothing_but_empty_texts_is_one_empty_row() -> None:
    (row,) = packed([document([]), document([])], 8)
    assert np.asarray(row.inputs["input_ids"]).tolist() == [BEGIN, SEPARATOR]


def test_what_is_no_number_a_token_is_refused() -> None:
    row = Row(inputs={"input_ids": [1, 2]}, targets={"label": 3}, content=(0, 2))
    with pytest.raises(AssertionError, match="label can't be packed"):
        packed([[row]], 8)


class Text(BaseModel):
    text: str


def featurize(example: Text) -> list[Row]:
    return document([ord(character) % 90 + 1 for character in example.text])


def some_texts() -> Examples[Text]:
    rng = np.random.default_rng(0)
    return read_examples([{"text": "第一百零一条" * int(n)} for n in rng.integers(1, 9, 500)], Text)


def test_groups_hold_all_examples_in_order() -> None:
    examples = some_texts()
    groups = Groups(examples, size=1000)
    assert 10 < len(groups) < len(examples)
    assert [example for number in range(len(groups)) for example in groups[number]] == list(examples)
    sizes = [len(groups.record(number).replace("\n", "").encode()) for number in range(len(groups))]
    assert min(sizes[:-1]) >= 1000 and max(sizes) < 1000 + 200
    assert len(Groups(examples)) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_packed_rows_are_kept_and_are_nearly_all_full(
    processes: int, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featurizing, "SMALL_BYTES", 0)
    groups = Groups(some_texts(), size=8000)
    calls = 0

    def counting(example: Text) -> list[Row]:
        nonlocal calls
        calls += 1
        return featurize(example)

    def build(used: int):
        return build_features(
            groups, packing(counting, 32), key_parts=["task"], folder=tmp_path, processes=used, at_once=1
        )

    found = build(processes)
    lengths = measure(found, rows_stay_together=False).longest_N
    assert (lengths == 32).mean() > 0.97
    expected = [row for i in range(len(groups)) for row in packed(map(featurize, groups[i]), 32)]
    rows = [row for i in range(len(found)) for row in found.rows(i)]
    assert [row.inputs["input_ids"].tolist() for row in rows] == [
        np.asarray(row.inputs["input_ids"]).tolist() for row in expected
    ]
    calls = 0
    again = build(processes)
    assert calls <= sum(len(groups[i]) for i in range(3))
    assert len(again.tokens_R) == len(rows)
