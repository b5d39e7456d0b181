"""How the learning rate goes over a run: pure functions of the step, each a share of the highest rate.

Steps count from 0. In step s of a warm-up of w the share is (s + 1) / (w + 1), so that no step is lost at rate 0; what
comes after the warm-up starts at 1 in step w. Where a schedule falls to a floor, it is there in step ``total``, the one
after the last: the last step still learns.

Below, ``progress`` is the share of the steps after the warm-up that are done, 0 to 1, and ``floor`` the share of the
highest rate that is left at the end.
"""

from __future__ import annotations

import math
from typing import assert_never

from wenmai.config.train import TrainConfig


def step_count(given: int | float, total: int) -> int:
    """A number of optimizer steps; ``given`` below 1 is a share of all ``total`` steps, rounded up."""
    return math.ceil(given * total) if given < 1 else int(given)


def learning_rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """What all learning rates are multiplied by in optimizer step ``step`` (from 0) of ``total``.

    ``constant`` has no warm-up, whatever ``warmup_steps`` is; ``constant_with_warmup`` has.
    """
    if config.schedule == "constant":
        return 1.0
    warmup = step_count(config.warmup_steps, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    floor = config.min_learning_rate
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    match config.schedule:
        case "constant_with_warmup":
            return 1.0
        case "linear":
            return linear(progress, floor)
        case "cosine":
            return cosine(progress, floor)
        case "cosine_with_restarts":
            return cosine_with_restarts(progress, floor, cycles=config.num_cycles)
        case "polynomial":
            return polynomial(progress, floor, power=config.power)
        case "inverse_sqrt":
            return inverse_sqrt(step, warmup=warmup)
        case "warmup_stable_decay":
            return warmup_stable_decay(
                step, floor, total=total, warmup=warmup, decay=step_count(config.decay_steps, total)
            )
    assert_never(config.schedule)


def linear(progress: float, floor: float) -> float:
    """A straight line from 1 to the floor."""
    return polynomial(progress, floor, power=1.0)


def polynomial(progress: float, floor: float, *, power: float) -> float:
    """From 1 to the floor as ``(1 - progress) ** power``: above 1 it falls early and ends softly, below 1 late."""
    return floor + (1 - floor) * math.pow(1 - progress, power)


def cosine(progress: float, floor: float) -> float:
    """Half a period of the cosine, from 1 to the floor (Loshchilov and Hutter 2017)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_with_restarts(progress: float, floor: float, *, cycles: int) -> float:
    """``cycles`` equal falls of :func:`cosine` one after the other (SGDR, Loshchilov and Hutter 2017)."""
    return floor if progress >= 1 else cosine(cycles * progress % 1.0, floor)


def inverse_sqrt(step: int, *, warmup: int) -> float:
    """Falls as one over the root of the step and never ends (Vaswani et al. 2017)::

        min((s + 1) ** -0.5, (s + 1) * (w + 1) ** -1.5)     divided by its peak (w + 1) ** -0.5, for s >= w

    For runs whose end is not known beforehand.
    """
    return math.sqrt((warmup + 1) / (step + 1))


def warmup_stable_decay(step: int, floor: float, *, total: int, warmup: int, decay: int) -> float:
    """1 until the last ``decay`` steps, which fall to the floor as ``1 - sqrt(done)`` (Hu et al. 2024; the shape of
    the fall: Hägele et al. 2024).

    A checkpoint of the stable part can be trained on for longer, or be finished at any time by a short fall. A fall
    longer than what the warm-up leaves is cut to that.
    """
    decay = min(decay, total - warmup)
    done = step - (total - decay)
    if done < 0:
        return 1.0
    return floor + (1 - floor) * (1 - math.sqrt(min(1.0, done / max(1, decay))))
