"""The file of rows gives back what went in, for every task; damaged or foreign files are told."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS
from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.batching import measure
from wenmai.data.examples import Examples, read_examples
from wenmai.data.features import Features, encode, features_in_memory, write_features
from wenmai.data.rows import Arrays, Row, stack
from wenmai.tasks import TASKS
from wenmai.tasks.model import with_own_tokens
from wenmai.tasks.task import Task


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)
    backbone, found = load_backbone(BackboneConfig(model=str(folder)))
    for name in TOYS:
        found = with_own_tokens(toy_task(name)[0], backbone, found)
    return found


def toy_task(name: str, **options: Any) -> tuple[Task[Any, Any], Examples[Any]]:
    section, records = TOYS[name]
    task_type = TASKS[section["name"]]
    config = task_type.Config.model_validate({"max_length": 32, **section, **options})
    examples = read_examples(records, task_type.Example)
    return task_type(config, task_type.collect_labels(config, examples)), examples


def assert_same(found: list[Row], expected: list[Row]) -> None:
    """Equal in every field but the offsets; lists come back as arrays, all else as what it was."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        for found_fields, fields in ((row.inputs, other.inputs), (row.targets, other.targets)):
            assert list(found_fields) == list(fields)
            for name, value in fields.items():
                assert type(found_fields[name]) is (np.ndarray if isinstance(value, list) else type(value))
                assert np.array_equal(found_fields[name], value)
                assert np.shape(found_fields[name]) == np.shape(value)
        assert (row.content, row.window) == (other.content, other.window)
        assert row.offsets == []


def in_a_file(path: Path, rows: list[list[Row]], at_once: int) -> Features:
    with path.open("wb") as file:
        write_features(file, (encode(rows[at : at + at_once]) for at in range(0, len(rows), at_once)))
    return Features.open(path)


CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in TOYS]
CASES += [
    ("masked-lm", {"masking": "whole_word", "segmenter": "script"}),
    ("ner-crf", {"tokens": "characters"}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_tasks_rows_come_back(
    name: str, options: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task, examples = toy_task(name, **options)
    made = [task.featurize(example, tokenizer) for example in examples]
    for found in (in_a_file(tmp_path / "rows.bin", made, 7), features_in_memory(made, lambda rows: rows)):
        assert len(found) == len(examples)
        for i, rows in enumerate(made):
            assert found.count(i) == len(rows)
            assert_same(found.rows(i), rows)
            assert_same([found.row(i, len(rows) - 1)], rows[-1:])
        every = [row for rows in made for row in rows]
        some = np.array([len(every) - 1, 0, len(every) // 2])
        assert_stacked(found.batch(some, 5), [every[i] for i in some])


def assert_stacked(found: Arrays, rows: list[Row]) -> None:
    expected = stack(rows, 5)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array), name


def test_a_batch_of_rows_that_are_kept_in_different_ways() -> None:
    rows = [
        Row(inputs={"input_ids": ids, "token_type_ids": types}, targets={"tags": tags})
        for ids, types, tags in [
            ([1, 2, 3], [0, 0, 0], [1, 1, 1]),
            ([70_000, 300], [1, 1], [0, -100]),
            ([4, 400, 40_000, 7], [0, 0, 1, 1], [2, 2, 2, 2]),
        ]
    ]
    found = features_in_memory(rows, lambda row: [row])
    for chosen in ([0, 1, 2], [2, 0, 0], [1], [0, 1]):
        assert_stacked(found.batch(np.array(chosen), 5), [rows[i] for i in chosen])


integers = st.integers(-(2**63), 2**63 - 1)


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    length = draw(st.integers(1, 6))
    numbers = st.one_of(st.integers(-128, 127), st.integers(-40000, 40000), integers)

    def listed(element: st.SearchStrategy[int]) -> st.SearchStrategy[list[int]]:
        return st.lists(element, min_size=length, max_size=length)

    items = draw(st.lists(st.tuples(numbers, numbers, numbers), max_size=3))
    targets: dict[str, Any] = {
        "label": draw(numbers),
        "score": draw(st.floats(allow_nan=False)),
        "tags": draw(listed(numbers)),
        "words": np.array(draw(listed(numbers)), dtype=np.int64),
        "spans": np.array(items, dtype=np.int64).reshape(-1, 3),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(targets)), unique=True))
    small = st.integers(0, 2**31 - 1)
    return Row(
        inputs={"input_ids": draw(listed(st.integers(0, 250_001))), "token_type_ids": [0] * length},
        targets={name: targets[name] for name in chosen},
        content=(draw(small), draw(small)),
        window=draw(small),
    )


@given(st.lists(st.lists(any_row(), min_size=1, max_size=3), min_size=1, max_size=4), st.integers(1, 3))
def test_any_rows_come_back(rows: list[list[Row]], at_once: int) -> None:
    buffer = BytesIO()
    write_features(buffer, (encode(rows[at : at + at_once]) for at in range(0, len(rows), at_once)))
    found = Features.of_bytes(buffer.getvalue())
    for i, own in enumerate(rows):
        assert_same(found.rows(i), own)
    again = pickle.loads(pickle.dumps(found))
    assert_same(again.rows(0), rows[0])


def test_a_row_without_tokens() -> None:
    row = Row(inputs={"input_ids": [], "token_type_ids": []}, targets={"tags": []})
    assert_same(features_in_memory([0], lambda _: [row]).rows(0), [row])


def test_what_is_no_whole_number_is_refused() -> None:
    with pytest.raises(AssertionError, match="expected whole numbers, got float64"):
        encode([[Row(inputs={"input_ids": [1, 2]}, targets={"tags": np.array([0.5, 1.0])})]])
    with pytest.raises(AssertionError, match="'tags' has 1 values for 2 tokens"):
        encode([[Row(inputs={"input_ids": [1, 2]}, targets={"tags": [1]})]])


def test_lengths_without_a_look_at_the_rows() -> None:
    found = features_in_memory([3, 1], lambda n: [Row(inputs={"input_ids": [1] * (n + i)}) for i in range(n)])
    together = measure(found, rows_stay_together=True)
    assert together.longest_N.tolist() == [5, 1]
    assert together.tokens_N.tolist() == [3 + 4 + 5, 1]
    assert together.rows_N.tolist() == [3, 1]
    assert (together.example_N.tolist(), together.row_N.tolist()) == ([0, 1], [-1, -1])
    apart = measure(found, rows_stay_together=False)
    assert (apart.example_N.tolist(), apart.row_N.tolist()) == ([0, 0, 0, 1], [0, 1, 2, 0])
    assert apart.longest_N.tolist() == apart.tokens_N.tolist() == [3, 4, 5, 1]
    assert apart.rows_N.tolist() == [1, 1, 1, 1]


def whole_file(path: Path) -> bytes:
    rows = [[Row(inputs={"input_ids": [i, 2, 3]}, targets={"label": i})] for i in range(40)]
    in_a_file(path, rows, 10)
    return path.read_bytes()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "another file": lambda data: b"x" * 1000,
    "another version": lambda data: data[:7] + b"\xff" + data[8:],
    "cut off": lambda data: data[:-1],
    "cut off in the middle": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "a bit of a record": lambda data: flipped(data, 30),
    "a bit of the index": lambda data: flipped(data, len(data) - 150),
    "a bit of the layouts": lambda data: flipped(data, len(data) - 60),
    "a hole": lambda data: data[:100] + b"\0" * 100 + data[200:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(DAMAGE[damage](whole_file(path)))
    with pytest.raises(ValueError, match=r"no file of features|cut off|damaged"):
        Features.open(path)


def resident() -> int:
    """Bytes of this process's memory, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is told by Linux only")
def test_reading_a_large_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chunk = encode([[Row(inputs={"input_ids": rng.integers(0, 250_000, 2500).tolist()})] for _ in range(8)])
    with (tmp_path / "rows.bin").open("wb") as file:
        write_features(file, [chunk] * 1000)
    assert (tmp_path / "rows.bin").stat().st_size > 70 << 20
    found = Features.open(tmp_path / "rows.bin")
    before = resident()
    for i in rng.permutation(len(found)).tolist():
        found.row(i, 0)
    assert resident() - before < 8 << 20
