"""``num_workers: auto`` finds the number that is fastest, says so, and changes no batch."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_loader import assert_equal, drawn

from wenmai.data.batching import BatchMaker, Plan, StepSize, measure
from wenmai.data.features import features_in_memory
from wenmai.data.rows import Row
from wenmai.training import workers
from wenmai.training.journal import Journal
from wenmai.training.loader import Loaded, steps_from
from wenmai.training.machine import open_machine
from wenmai.training.workers import COUNTED, SKIPPED, Step, Tuner, tuned_steps, upcoming_steps

TOKENS = 1000


def run(tuner: Tuner, waiting: dict[int, float], took: float, steps: int) -> list[int]:
    """The numbers of workers it goes through if each makes the loop wait so long a step."""
    chosen = [tuner.chosen]
    for _ in range(steps):
        if tuner.saw(Step(waiting[tuner.chosen], took, TOKENS)):
            chosen.append(tuner.chosen)
    return chosen


def test_without_waiting_there_are_no_workers() -> None:
    tuner = Tuner(most=8, steps_left=10_000)
    assert run(tuner, {0: 0.004}, 0.1, 100) == [0]
    # 1,000 tokens in 0.104 s, of which 0.004 are 3.8 %
    assert tuner.reason == "num_workers: 0 (9,615 tokens/s; waiting for data takes 3.8% of the time)"


def test_workers_are_added_until_one_gives_no_more() -> None:
    tuner = Tuner(most=8, steps_left=10_000)
    assert run(tuner, {0: 0.3, 1: 0.1, 2: 0.05, 3: 0.049}, 0.1, 1000) == [0, 1, 2, 3, 2]
    assert tuner.reason == "num_workers: 2 (2,500 → 5,000 → 6,667 tokens/s; 3 gave no more)"


def test_workers_are_added_until_the_loop_no_longer_waits() -> None:
    tuner = Tuner(most=8, steps_left=10_000)
    assert run(tuner, {0: 0.3, 1: 0.001}, 0.1, 1000) == [0, 1]
    assert tuner.reason == "num_workers: 1 (2,500 → 9,901 tokens/s; waiting for data takes 1.0% of the time)"


def test_one_worker_may_do_no_more_than_the_loop_did() -> None:
    tuner = Tuner(most=8, steps_left=10_000)
    # batches take 1 s to make and a step 0.01 s: only from the second worker on the work is shared
    assert run(tuner, {0: 1.0, 1: 0.99, 2: 0.49, 3: 0.48}, 0.01, 1000) == [0, 1, 2, 3, 2]
    assert tuner.reason == "num_workers: 2 (990 → 1,000 → 2,000 tokens/s; 3 gave no more)"


def test_workers_that_only_take_processors_away_go_again() -> None:
    tuner = Tuner(most=8, steps_left=10_000)
    assert run(tuner, {0: 0.1, 1: 0.1, 2: 0.1}, 0.1, 1000) == [0, 1, 2, 0]
    assert tuner.reason == "num_workers: 0 (5,000 tokens/s; 1 and 2 gave no more)"


@pytest.mark.parametrize("most", [0, 2])
def test_never_more_workers_than_processors(most: int) -> None:
    tuner = Tuner(most=most, steps_left=10_000)
    assert run(tuner, {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}, 0.1, 1000) == list(range(most + 1))
    assert tuner.chosen == most
    assert tuner.reason is not None
    assert "the processors here allow no more" in tuner.reason


def test_a_short_run_is_left_alone() -> None:
    tuner = Tuner(most=8, steps_left=SKIPPED + 2 * COUNTED)
    assert run(tuner, {0: 5.0}, 0.1, SKIPPED + 2 * COUNTED) == [0]
    assert tuner.reason is not None
    assert "too few steps are left" in tuner.reason


def test_a_measurement_takes_its_time() -> None:
    tuner = Tuner(most=8, steps_left=100_000)
    assert run(tuner, {0: 0.0009}, 0.0001, SKIPPED + 1990) == [0]
    assert tuner.reason is None
    assert run(tuner, {0: 0.0009, 1: 0.0}, 0.0001, 20) == [0, 1]


def test_an_evaluation_between_two_steps_does_not_count() -> None:
    def found(pause: float) -> tuple[list[int], str | None]:
        tuner = Tuner(most=8, steps_left=10_000)
        chosen = [0]
        for at in range(300):
            took = 0.1 + (pause if at % 25 == 0 else 0.0)
            if tuner.saw(Step({0: 0.1, 1: 0.02, 2: 0.02}[tuner.chosen], took, TOKENS)):
                chosen.append(tuner.chosen)
        return chosen, tuner.reason

    assert (
        found(0.0) == found(60.0) == ([0, 1, 2, 1], "num_workers: 1 (5,000 → 8,333 tokens/s; 2 gave no more)")
    )


def featurize(length: int) -> list[Row]:
    return [Row(inputs={"input_ids": list(range(1, length + 1))})]


@pytest.fixture
def work() -> Any:
    """What of a prepared run the loader reads."""
    lengths = np.random.default_rng(0).integers(3, 30, 300).tolist()
    features = features_in_memory(lengths, featurize)
    units = measure(features, rows_stay_together=False)
    plan = Plan(units, StepSize(examples=4, micro_examples=3), seed=1)
    return SimpleNamespace(
        plan=plan,
        maker=BatchMaker(features, units, drawn, pad_id=0, seed=1),
        epoch_steps=[75, 75, 30],
        total_steps=180,
        position=lambda step: (step // 75, step % 75),
    )


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SKIPPED", 3), ("COUNTED", 12), ("SECONDS", 0.0)):
        monkeypatch.setattr(workers, name, value)


@pytest.mark.usefixtures("hasty")
def test_the_batches_are_the_same_with_any_number_of_workers(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    journal = Journal(tmp_path, step=0, evaluated=0)
    with open_machine("cpu", "fp32") as machine:
        found = {
            number: list(upcoming_steps(work, number, 8, machine, journal)) for number in (0, 1, 2, "auto")
        }
    assert len(found[0]) == 172
    for number in (1, 2, "auto"):
        assert_equal(found[number], found[0])
    (event,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # making batches is all there is to do here, so at least two numbers were tried
    assert event["event"] == "workers"
    assert 8 < event["step"] < 180
    assert "gave no more" in event["reason"] or "→" in event["reason"]
    assert event["reason"].startswith(f"num_workers: {event['num_workers']} (")


@pytest.mark.usefixtures("hasty")
def test_changes_of_the_number_fall_between_two_steps(work: Any) -> None:
    opened: list[tuple[int, int]] = []

    def open_from(at: int, number: int) -> Generator[Loaded, None, None]:
        opened.append((at, number))
        return steps_from(work.plan, work.maker, work.epoch_steps, work.position(at), num_workers=number)

    class Restless(Tuner):
        def saw(self, step: Step) -> bool:
            self.chosen = 1 - self.chosen
            return True

    steps = tuned_steps(
        open_from, 70, Restless(most=1, steps_left=100), lambda loaded: 1, lambda at, tuner: None
    )
    expected = list(steps_from(work.plan, work.maker, work.epoch_steps, (0, 70), num_workers=0))[:12]
    assert_equal([next(steps) for _ in range(12)], expected)
    assert opened == [(70 + at, at % 2) for at in range(12)]


def test_pinned_only_for_a_gpu(work: Any) -> None:
    (_, _, batches) = next(steps_from(work.plan, work.maker, work.epoch_steps, (0, 0), num_workers=1))
    assert not any(tensor.is_pinned() for batch in batches for tensor in batch.values())
    if torch.cuda.is_available():
        for number in (0, 1):
            loaded = next(
                steps_from(
                    work.plan, work.maker, work.epoch_steps, (0, 0), num_workers=number, pin_memory=True
                )
            )
            assert all(tensor.is_pinned() for batch in loaded[2] for tensor in batch.values())
