from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import optimization

from wenmai.config.train import Schedule, TrainConfig
from wenmai.training.schedules import learning_rate_factor, step_count

FALLING = ["linear", "cosine", "cosine_with_restarts", "polynomial", "warmup_stable_decay"]
MONOTONE = [name for name in get_args(Schedule) if name != "cosine_with_restarts"]


def factors(total: int, beyond: int = 0, **train: Any) -> list[float]:
    config = TrainConfig(**train)
    return [learning_rate_factor(config, step, total) for step in range(total + beyond)]


def theirs(make: Any, total: int, **options: Any) -> list[float]:
    """The rates that a scheduler of transformers gives, without its first step, whose rate is 0."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    found = []
    for _ in range(total):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


# A warm-up of w steps here is one of w + 1 there, whose first step has rate 0; all else moves by that one step.
REFERENCES = {
    "linear": (
        lambda w, t: theirs(
            optimization.get_linear_schedule_with_warmup, t, num_warmup_steps=w + 1, num_training_steps=t + 1
        ),
        {},
    ),
    "constant": (lambda w, t: theirs(optimization.get_constant_schedule, t), {}),
    "constant_with_warmup": (
        lambda w, t: theirs(optimization.get_constant_schedule_with_warmup, t, num_warmup_steps=w + 1),
        {},
    ),
    "cosine": (
        lambda w, t: theirs(
            optimization.get_cosine_with_min_lr_schedule_with_warmup,
            t,
            num_warmup_steps=w + 1,
            num_training_steps=t + 1,
            min_lr_rate=0.1,
        ),
        {"min_learning_rate": 0.1},
    ),
    "cosine_with_restarts": (
        lambda w, t: theirs(
            optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
            t,
            num_warmup_steps=w + 1,
            num_training_steps=t + 1,
            num_cycles=3,
        ),
        {"num_cycles": 3},
    ),
    "polynomial": (
        lambda w, t: theirs(
            optimization.get_polynomial_decay_schedule_with_warmup,
            t,
            num_warmup_steps=w + 1,
            num_training_steps=t + 1,
            lr_end=0.05,
            power=1.7,
        ),
        {"min_learning_rate": 0.05, "power": 1.7},
    ),
    "inverse_sqrt": (
        lambda w, t: theirs(optimization.get_inverse_sqrt_schedule, t, num_warmup_steps=w + 1),
        {},
    ),
    "warmup_stable_decay": (
        lambda w, t: theirs(
            optimization.get_wsd_schedule,
            t,
            num_warmup_steps=w + 1,
            num_decay_steps=20,
            num_training_steps=t + 1,
            decay_type="1-sqrt",
        ),
        {"decay_steps": 20},
    ),
}


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_equals_the_scheduler_of_transformers(schedule: str, warmup: int) -> None:
    make, options = REFERENCES[schedule]
    ours = factors(60, schedule=schedule, warmup_steps=warmup, **options)
    assert ours == pytest.approx(make(warmup, 60), abs=1e-12)


def test_by_hand() -> None:
    assert factors(4, warmup_steps=2, beyond=2) == pytest.approx([1 / 3, 2 / 3, 1, 1 / 2, 0, 0])
    quarter = factors(4, warmup_steps=0, schedule="linear", min_learning_rate=0.2)
    assert quarter == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert factors(4, warmup_steps=0, schedule="cosine")[2] == pytest.approx(0.5)
    assert factors(4, warmup_steps=0, schedule="polynomial", power=3.0)[2] == pytest.approx(1 / 8)
    restarts = factors(8, warmup_steps=0, schedule="cosine_with_restarts", num_cycles=4)
    assert restarts == pytest.approx([1.0, 0.5] * 4)
    assert factors(4, warmup_steps=0, schedule="inverse_sqrt")[3] == pytest.approx(1 / 2)
    fall = factors(10, warmup_steps=0, schedule="warmup_stable_decay", decay_steps=0.4, min_learning_rate=0.5)
    assert fall == pytest.approx(
        [1.0] * 7 + [0.5 + 0.5 * (1 - math.sqrt(part)) for part in (0.25, 0.5, 0.75)]
    )


def test_constant_has_no_warmup_unless_it_says_so() -> None:
    assert factors(10, schedule="constant", warmup_steps=5) == [1.0] * 10
    assert factors(4, schedule="constant_with_warmup", warmup_steps=1) == [0.5, 1.0, 1.0, 1.0]


def test_shares_of_all_steps_are_rounded_up() -> None:
    assert step_count(0.1, 95) == 10
    assert step_count(7, 95) == 7
    assert step_count(1, 95) == step_count(1.0, 95) == 1
    assert step_count(0, 95) == 0
    assert step_count(1e-9, 95) == 1


@given(
    schedule=st.sampled_from(get_args(Schedule)),
    total=st.integers(1, 300),
    warmup=st.one_of(st.integers(0, 400), st.floats(0, 0.99)),
    floor=st.floats(0, 0.9),
    cycles=st.integers(1, 6),
    power=st.floats(0.2, 4),
    decay=st.one_of(st.integers(1, 400), st.floats(0.01, 0.99)),
)
def test_any_schedule(
    schedule: str, total: int, warmup: float, floor: float, cycles: int, power: float, decay: float
) -> None:
    found = factors(
        total,
        beyond=3,
        schedule=schedule,
        warmup_steps=warmup,
        min_learning_rate=0.0 if schedule.startswith("constant") or schedule == "inverse_sqrt" else floor,
        num_cycles=cycles,
        power=power,
        decay_steps=decay,
    )
    assert all(0 <= factor <= 1 for factor in found)
    assert found[0] > 0
    rising = 0 if schedule == "constant" else min(step_count(warmup, total), total)
    assert all(one < other for one, other in pairwise(found[:rising]))
    if rising == total:  # a warm-up as long as the run is all there is of it
        return
    assert found[rising] == 1.0
    assert all(factor >= min(floor, 1.0) - 1e-12 for factor in found[rising:]) or schedule == "inverse_sqrt"
    if schedule in MONOTONE:
        assert all(one >= other for one, other in pairwise(found[rising:]))
    if schedule in FALLING:
        assert found[total] == pytest.approx(floor, abs=1e-12)
        assert found[total:] == [found[total]] * 3
