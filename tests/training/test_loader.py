"""Steps in the plan's order, from anywhere, without planning what lies far ahead; the same with any number of workers
and shared out among any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from itertools import islice, zip_longest

import numpy as np
import pytest
import torch

from wenmai.data.batching import BatchMaker, Plan, StepSize, measure
from wenmai.data.draws import uniform
from wenmai.data.features import features_in_memory
from wenmai.data.rows import Arrays, Row
from wenmai.errors import UserError
from wenmai.training.loader import Loaded, dead_workers_told, steps_from

Work = tuple[Plan, BatchMaker]


def featurize(length: int) -> list[Row]:
    return [Row(inputs={"input_ids": list(range(1, length + 1))}, targets={"label": length})]


def drawn(batch: Arrays) -> Arrays:
    """An augmentation: what a batch holds depends on the draws."""
    ids = batch["input_ids"]
    more = (uniform(batch["key"], 1, ids.shape[1]) * 100).astype(np.int64)
    return {**batch, "input_ids": ids + more * batch["attention_mask"]}


@pytest.fixture
def work() -> Work:
    lengths = np.random.default_rng(0).integers(3, 30, 60).tolist()
    features = features_in_memory(lengths, featurize)
    units = measure(features, rows_stay_together=False)
    plan = Plan(units, StepSize(tokens=150, micro_tokens=60), seed=1)
    return plan, BatchMaker(features, units, drawn, pad_id=0, seed=1)


def assert_equal(found: list[Loaded], expected: list[Loaded]) -> None:
    for (epoch, step, batches), (epoch_2, step_2, batches_2) in zip_longest(found, expected):
        assert (epoch, step.tolist()) == (epoch_2, step_2.tolist())
        for batch, batch_2 in zip_longest(batches, batches_2):
            assert batch.keys() == batch_2.keys()
            for name, tensor in batch.items():
                assert isinstance(tensor, torch.Tensor)
                assert tensor.dtype == batch_2[name].dtype
                assert torch.equal(tensor, batch_2[name])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_steps_of_the_plan_from_the_middle_of_an_epoch(work: Work, num_workers: int) -> None:
    plan, maker = work
    epoch_steps = [len(plan.steps(0)), len(plan.steps(1)) - 2]
    expected = [(0, step) for step in plan.steps(0)[3:]] + [(1, step) for step in plan.steps(1)[:-2]]
    found = list(steps_from(plan, maker, epoch_steps, (0, 3), num_workers=num_workers))
    assert_equal(
        found,
        [
            (epoch, step, [maker(part, epoch) for part in plan.micro_batches(step)])
            for epoch, step in expected
        ],
    )
    for _, step, batches in found:
        assert [batch["group"].tolist() for batch in batches] == [
            part.tolist() for part in plan.micro_batches(step)
        ]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_every_step(work: Work, world: int) -> None:
    plan, maker = work
    epoch_steps = [len(plan.steps(0)), 4]
    alone = list(steps_from(plan, maker, epoch_steps, (0, 2), num_workers=0))
    shares = [
        list(steps_from(plan, maker, epoch_steps, (0, 2), num_workers=0, rank=rank, world=world))
        for rank in range(world)
    ]
    none = 0
    for (epoch, step, batches), *others in zip(alone, *shares, strict=True):
        rows = {
            int(key): row[row > 0].tolist()
            for batch in batches
            for key, row in zip(batch["key"], batch["input_ids"], strict=True)
        }
        found: dict[int, list[int]] = {}
        tokens = []
        for other_epoch, other_step, own in others:
            assert (other_epoch, other_step.tolist()) == (epoch, step.tolist())
            assert all(batch["input_ids"].numel() <= 60 for batch in own)
            for batch in own:
                for key, row in zip(batch["key"], batch["input_ids"], strict=True):
                    assert int(key) not in found
                    found[int(key)] = row[row > 0].tolist()
            tokens.append(sum(int(batch["attention_mask"].sum()) for batch in own))
            none += not own
        assert found == rows
        assert max(tokens) - min(tokens) <= 30, "a process has more than one row more to do"
    assert none > 0 or world < 7, "the case of a process without rows did not occur"


def test_far_epochs_are_not_planned_ahead(work: Work) -> None:
    plan, maker = work
    endless = [len(plan.steps(0))] * 10_000_000  # to plan them all would take an hour and all memory
    assert len(list(islice(steps_from(plan, maker, endless, (0, 0), num_workers=0), 30))) == 30


def test_a_worker_that_dies_is_told(work: Work) -> None:
    plan, maker = work

    def dies(batch: Arrays) -> Arrays:
        os.kill(os.getpid(), signal.SIGKILL)
        return batch

    mortal = BatchMaker(maker.features, maker.units, dies, pad_id=0, seed=1)
    with pytest.raises(UserError, match=r"worker process .* died .*lower train.num_workers"):
        list(steps_from(plan, mortal, [5], (0, 0), num_workers=1))


def test_a_worker_killed_during_a_step_is_told_at_once(work: Work) -> None:
    """The loop need not ask for batches to hear of it, and nothing hangs."""
    plan, maker = work
    before = set(multiprocessing.active_children())
    steps = steps_from(plan, maker, [len(plan.steps(0))] * 1000, (0, 0), num_workers=2)
    told = pytest.raises(UserError, match=r"worker process .* died .*killed by signal: Killed.*--resume")
    with told, dead_workers_told():
        next(steps)
        (worker, _) = set(multiprocessing.active_children()) - before
        os.kill(worker.pid or 0, signal.SIGKILL)
        until = time.monotonic() + 10
        while time.monotonic() < until:  # a step
            time.sleep(0.01)
    steps.close()
    assert not set(multiprocessing.active_children()) - before


def test_a_worker_killed_while_batches_are_asked_for_is_told(work: Work) -> None:
    plan, maker = work
    before = set(multiprocessing.active_children())
    steps = steps_from(plan, maker, [len(plan.steps(0))] * 1000, (0, 0), num_workers=1)
    with pytest.raises(UserError, match=r"worker process .* died"), dead_workers_told():
        for number, _ in enumerate(steps):
            if number == 5:
                (worker,) = set(multiprocessing.active_children()) - before
                os.kill(worker.pid or 0, signal.SIGKILL)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), dead_workers_told():
        raise RuntimeError("out of memory")
