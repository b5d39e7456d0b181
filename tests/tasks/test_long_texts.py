"""Long texts in text classification: what is kept, and how the answers of windows become one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.tasks.labels import softmax
from wenmai.tasks.text_classification import TextClassification, TextClassificationConfig
from wenmai.tasks.windows import WindowPooling, pooled_windows, truncated

TEXT = "".join(chr(0x4E00 + i) for i in range(100))
LOGITS = [np.array([2.0, 0.0, -1.0]), np.array([-1.0, 3.0, 0.5])]
ROWS = [Row(inputs={}, content=(1, 11)), Row(inputs={}, content=(1, 31))]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[TEXT]))[1]


def task(**keys: Any) -> TextClassification:
    return TextClassification(TextClassificationConfig(max_length=22, **keys), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("truncation", "kept", "place"),
    [
        ("head", [*range(20)], "at the end"),
        ("tail", [*range(80, 100)], "at the beginning"),
        ("head_tail", [*range(5), *range(85, 100)], "in the middle"),
    ],
)
def test_what_truncation_keeps(tokenizer: Tokenizer, truncation: str, kept: list[int], place: str) -> None:
    cut = task(long_text="truncate", truncation=truncation)
    example = cut.Example(text=TEXT, label="b")
    (row,) = cut.featurize(example, tokenizer)
    assert len(row) == 22 and row.targets["label"] == 1
    assert row.inputs["input_ids"][1:-1] == tokenizer.encode("".join(TEXT[i] for i in kept)).ids
    assert [start for start, _ in row.offsets[1:-1]] == kept
    assert cut.lost_labels(example, tokenizer) == [f"80 of 100 tokens are cut off {place}"]
    assert cut.lost_labels(cut.Example(text=TEXT[:20], label="b"), tokenizer) == []


@pytest.mark.parametrize("how", ["head", "tail", "head_tail"])
def test_what_fits_stays_whole(how: Any) -> None:
    encoding = Encoding([1, 2, 3], [(0, 1), (1, 2), (2, 3)])
    assert truncated(encoding, 3, how) is encoding
    for room in (1, 2):
        assert len(truncated(encoding, room, how)) == room


def test_windows_read_everything(tokenizer: Tokenizer) -> None:
    rows = task(window_overlap=4).featurize(task().Example(text=TEXT), tokenizer)
    assert len(rows) > 5
    assert {start for row in rows for start, end in row.offsets if end > start} == set(range(100))


def test_an_overlap_as_large_as_a_row_does_not_make_a_window_for_every_token(tokenizer: Tokenizer) -> None:
    for overlap in (24, 30, 1000):
        rows = task(window_overlap=overlap).featurize(task().Example(text=TEXT), tokenizer)
        assert len(rows) <= 4 * -(-len(TEXT) // (len(rows[0]) - 2))
        assert {start for row in rows for start, end in row.offsets if end > start} == set(range(100))


def test_pooling_by_hand() -> None:
    mean = (10 * LOGITS[0] + 30 * LOGITS[1]) / 40
    np.testing.assert_allclose(pooled_windows(LOGITS, ROWS, "mean", one_label=True), mean)
    np.testing.assert_allclose(pooled_windows(LOGITS, ROWS, "max", one_label=True), [2.0, 3.0, 0.5])
    shares = (10 * softmax(LOGITS[0]) + 30 * softmax(LOGITS[1])) / 40
    found = pooled_windows(LOGITS, ROWS, "mean_probability", one_label=True)
    np.testing.assert_allclose(softmax(found), shares)
    chances = (10 / (1 + np.exp(-LOGITS[0])) + 30 / (1 + np.exp(-LOGITS[1]))) / 40
    found = pooled_windows(LOGITS, ROWS, "mean_probability", one_label=False)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), chances)


@pytest.mark.parametrize("how", ["mean", "max", "mean_probability"])
@pytest.mark.parametrize("one_label", [True, False])
def test_one_window_is_its_own_answer(how: WindowPooling, one_label: bool) -> None:
    np.testing.assert_allclose(pooled_windows(LOGITS[:1], ROWS[:1], how, one_label=one_label), LOGITS[0])


def test_certain_windows_stay_finite() -> None:
    certain = [np.array([900.0, -900.0]), np.array([800.0, -800.0])]
    for one_label in (True, False):
        found = pooled_windows(certain, ROWS, "mean_probability", one_label=one_label)
        assert np.isfinite(found).all() and found.argmax() == 0


@pytest.mark.parametrize(("pooling", "label"), [("mean", "b"), ("max", "a")])
def test_the_task_pools_as_asked(pooling: str, label: str) -> None:
    logits = [np.array([5.0, 0.0, 0.0]), np.array([0.0, 4.0, 0.0]), np.array([0.0, 4.0, 0.0])]
    rows = [Row(inputs={}, content=(1, 21))] * 3
    chosen = task(window_pooling=pooling)
    found = chosen.decode(
        [{"logits": each.astype(np.float32)} for each in logits], rows, chosen.Example(text=TEXT)
    )
    assert found["label"] == label
