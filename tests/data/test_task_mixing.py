"""Several tasks' steps: shares, order, budgets, and that any step is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from wenmai.data.batching import BatchMaker, StepSize, measure
from wenmai.data.features import features_in_memory
from wenmai.data.mixing import MixedMaker, MixedPlan, joined_units, part_seed, shares
from wenmai.data.rows import Row

COUNTS = (700, 90, 11)


def makers(counts=COUNTS, *, together=False) -> list[BatchMaker]:
    rng = np.random.default_rng(0)
    found = []
    for number, count in enumerate(counts):
        lengths = rng.integers(3, 60, count).tolist()

        def rows(length: int, task: int = number) -> list[Row]:
            return [
                Row(inputs={"input_ids": [task] * length}, targets={"label": length})
                for _ in range(1 + together)
            ]

        features = features_in_memory(lengths, rows)
        units = measure(features, rows_stay_together=together)
        found.append(BatchMaker(features, units, None, 0, part_seed(7, number)))
    return found


def plan(size: StepSize, temperature: float = 1.0, batches: int = 1, seed: int = 7, **more) -> MixedPlan:
    units = [maker.units for maker in makers(**more)]
    first = np.cumsum([0, *map(len, units)])
    return MixedPlan(joined_units(units), first, size, seed, temperature, batches)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_shares_are_those_of_the_formula(temperature: float) -> None:
    powers = [count ** (1 / temperature) for count in COUNTS]
    expected = [power / sum(powers) for power in powers]
    np.testing.assert_allclose(shares(np.array(COUNTS), temperature), expected, rtol=1e-12)
    np.testing.assert_allclose(shares(np.array(COUNTS), 1e9), [1 / 3] * 3, rtol=1e-6)


@pytest.mark.parametrize("batches", [1, 3])
def test_at_temperature_one_an_epoch_has_every_unit_once(batches: int) -> None:
    mixed = plan(StepSize(tokens=512), batches=batches)
    for epoch in (0, 3):
        drawn = np.concatenate(mixed.steps(epoch))
        assert sorted(mixed.unit_of(drawn).tolist()) == list(range(sum(COUNTS)))
        assert set((drawn // sum(COUNTS)).tolist()) == {epoch}, "the pass is the epoch"


def test_temperature_decides_how_many_of_each_and_leaves_none_out() -> None:
    mixed = plan(StepSize(tokens=512), temperature=3.0)
    wanted = np.rint(shares(np.array(COUNTS), 3.0) * sum(COUNTS))
    seen: Counter[int] = Counter()
    drawn = []
    for epoch in range(3):
        units = np.concatenate(mixed.steps(epoch))
        assert np.bincount(mixed.part_of(units)).tolist() == wanted.tolist()
        seen.update(mixed.unit_of(units).tolist())
        drawn += units.tolist()
    assert len(set(drawn)) == len(drawn), (
        "a unit and its pass come once: nothing is masked the same way twice"
    )
    for part in range(len(COUNTS)):
        times = [seen[unit] for unit in range(*mixed.first_P[part : part + 2].tolist())]
        assert max(times) - min(times) <= 1, "none is drawn again before all were drawn"


def test_any_step_is_found_without_those_before_it() -> None:
    size = StepSize(tokens=512)
    first, other = plan(size, 2.0, 2), plan(size, 2.0, 2)
    for _ in range(3):
        other.steps(1)
    for here, there in zip(first.steps(4), other.steps(4), strict=True):
        assert here.tolist() == there.tolist()
    flat = [unit for step in first.steps(4) for unit in step.tolist()]
    assert flat != [unit for step in plan(size, 2.0, 2, seed=8).steps(4) for unit in step.tolist()]


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_steps_keep_the_budget_and_hold_as_many_batches(batches: int) -> None:
    mixed = plan(StepSize(tokens=512), batches=batches)
    steps = mixed.steps(0)
    assert all(mixed.tokens(step) <= 512 for step in steps)
    assert all(mixed.padded_tokens(part) <= 512 for step in steps for part in mixed.micro_batches(step))
    tasks = [len(set(mixed.part_of(step).tolist())) for step in steps]
    assert max(tasks) <= batches
    if batches == 1:
        assert all(mixed.padded_tokens(step) <= 512 for step in steps)
    else:
        assert max(tasks) > 1
    shared = plan(StepSize(examples=8), batches=batches)
    assert {len(step) for step in shared.steps(0)} <= set(range(1, 9))


def test_tasks_are_spread_evenly_over_an_epoch() -> None:
    mixed = plan(StepSize(examples=4), counts=(400, 100))
    kinds = np.array([mixed.part_of(step)[0] for step in mixed.steps(0)])
    quarters = [int((part == 1).sum()) for part in np.array_split(kinds, 5)]
    assert max(quarters) - min(quarters) <= 2, (
        f"25 steps of the small task in five parts of the epoch: {quarters}"
    )


@pytest.mark.parametrize("micro", [{"micro_tokens": 100}, {"micro_examples": 3}, {}])
def test_micro_batches_are_of_one_task_and_hold_the_whole_step(micro: dict[str, int]) -> None:
    mixed = plan(StepSize(tokens=700, **micro), batches=3)
    for step in mixed.steps(0)[:6]:
        parts = mixed.micro_batches(step)
        assert sorted(np.concatenate(parts).tolist()) == sorted(step.tolist())
        assert all(len(set(mixed.part_of(part).tolist())) == 1 for part in parts)
        if micro:
            assert all(len(part) <= 3 or "micro_tokens" in micro for part in parts)
        else:
            assert len(parts) >= len(set(mixed.part_of(step).tolist()))


@pytest.mark.parametrize("together", [False, True])
def test_batches_hold_rows_and_keys_of_their_task(together: bool) -> None:
    made = makers(together=together)
    mixed = plan(StepSize(examples=6), temperature=4.0, batches=2, together=together)
    maker = MixedMaker(made, ["a", "b", "c"], mixed.first_P)
    keys: list[int] = []
    for epoch in (0, 1):
        for step in mixed.steps(epoch):
            groups: set[int] = set()
            for part in mixed.micro_batches(step):
                batch = maker(part, epoch)
                task = int(mixed.part_of(part)[0])
                assert set(batch) & {"a", "b", "c"} == {"abc"[task]}
                assert len(batch["key"]) == len(part) * (1 + together)
                assert set(batch["input_ids"][batch["attention_mask"].bool()].tolist()) <= {task}
                assert batch["attention_mask"].sum() == mixed.tokens(part)
                counted = Counter(batch["group"].tolist())
                assert set(counted.values()) == {1 + together}
                assert not groups & {(task, group) for group in counted}, "a group is of one example and pass"
                groups |= {(task, group) for group in counted}
                keys += batch["key"].tolist()
    assert len(set(keys)) == len(keys)
    assert [mixed.where(int(unit))[0] for unit in mixed.first_P[:-1]] == [0, 1, 2]
