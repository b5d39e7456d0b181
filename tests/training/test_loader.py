"""Steps in the plan's order, from anywhere, without planning what lies far ahead."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from wenmai.data.batching import BatchMaker, Plan, StepSize, measure
from wenmai.data.rows import Row
from wenmai.training.loader import steps_from


def featurize(length: int) -> list[Row]:
    return [Row(inputs={"input_ids": [1] * length})]


@pytest.fixture
def work() -> tuple[Plan, BatchMaker]:
    lengths = np.random.default_rng(0).integers(3, 30, 60).tolist()
    units = measure(lengths, featurize, rows_stay_together=False)
    plan = Plan(units, StepSize(tokens=150, micro_tokens=60), seed=1)
    maker = BatchMaker(lengths, units, featurize, lambda row, rng: row, pad_id=0, seed=1)
    return plan, maker


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_steps_of_the_plan_from_the_middle_of_an_epoch(
    work: tuple[Plan, BatchMaker], num_workers: int
) -> None:
    plan, maker = work
    epoch_steps = [len(plan.steps(0)), len(plan.steps(1)) - 2]
    expected = [(0, step) for step in plan.steps(0)[3:]] + [(1, step) for step in plan.steps(1)[:-2]]
    found = list(steps_from(plan, maker, epoch_steps, (0, 3), num_workers=num_workers))
    assert [(epoch, step.tolist()) for epoch, step, _ in found] == [(e, s.tolist()) for e, s in expected]
    for _, step, batches in found:
        assert [batch["group"].tolist() for batch in batches] == [
            p.tolist() for p in plan.micro_batches(step)
        ]
        assert all(batch["input_ids"].sum() == plan.units.tokens_N[batch["group"]].sum() for batch in batches)


def test_far_epochs_are_not_planned_ahead(work: tuple[Plan, BatchMaker]) -> None:
    plan, maker = work
    endless = [len(plan.steps(0))] * 10_000_000  # to plan them all would take an hour and all memory
    assert len(list(islice(steps_from(plan, maker, endless, (0, 0), num_workers=0), 30))) == 30
