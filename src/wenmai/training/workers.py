"""How many processes prepare batches: a given number, or as many as make the run faster, found while it runs.

Whether workers help depends on the machine, the model and the data, so it is measured: one is added as long as the
loop waits for data and the last one gave clearly more tokens a second; those that gave no more are taken away again.
Batches are functions of the step, so no result depends on any of this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from wenmai.processes import usable_cores
from wenmai.training.journal import Journal
from wenmai.training.loader import Loaded, steps_from
from wenmai.training.machine import Machine
from wenmai.training.setup import Prepared

SKIPPED = 10
"""Steps after a change that are not counted: workers start, or what they made ahead is used up."""
COUNTED = 40
SECONDS = 2.0
"""A measurement takes at least so many steps, and so long."""
WAITING = 0.05
"""A loop that waits for no more than this share of its time has no need of workers."""
GAIN = 1.03
"""So much faster is faster."""
PAUSE = 5.0
"""A step is left out if the loop did so many times as long something else (an evaluation, a checkpoint)."""


class Step(NamedTuple):
    """Seconds the loop waited for a step's batches, seconds it then took, and the step's real tokens."""

    waited: float
    took: float
    tokens: int


@dataclass
class Tuner:
    """Looks for the best number of workers while steps go by.

    Args:
        most: never more than this.
        steps_left: how many steps there will be.
    """

    most: int
    steps_left: int
    chosen: int = 0
    reason: str | None = None
    """What was found, in a line; None while the search goes on."""
    _rates: list[float] = field(default_factory=list)
    """Tokens a second with 0, 1 ... workers."""
    _steps: list[Step] = field(default_factory=list)
    _to_skip: int = SKIPPED

    def saw(self, step: Step) -> bool:
        """Takes note of a step; True if from now on there should be ``chosen`` workers instead of as many as before."""
        self.steps_left -= 1
        if self.reason is not None:
            return False
        if self._to_skip:
            self._to_skip -= 1
            return False
        self._steps.append(step)
        if len(self._steps) < COUNTED or sum(sum(s[:2]) for s in self._steps) < SECONDS:
            return False
        steps, self._steps, self._to_skip = self._steps, [], SKIPPED
        return self._decide(*_rate_and_waiting(steps))

    def _decide(self, rate: float, waiting: float) -> bool:
        before = self._rates[-1] if self._rates else 0.0
        self._rates.append(rate)
        # one worker alone may only do what the loop did: whether workers help shows with the second
        useless = self.chosen > 1 and rate < before * GAIN
        if waiting <= WAITING:
            why = f"waiting for data takes {waiting:.1%} of the time"
        elif useless:
            why = "no more"
        elif self.chosen == self.most:
            why = "the processors here allow no more"
        elif self.steps_left < 2 * (SKIPPED + COUNTED):
            why = "too few steps are left to try more"
        else:
            self.chosen += 1
            return True
        tried = self.chosen
        self.chosen = next(n for n, rate in enumerate(self._rates) if rate * GAIN >= max(self._rates))
        if self.chosen < tried:
            why = " and ".join(map(str, range(self.chosen + 1, tried + 1))) + " gave no more"
        rates = " → ".join(f"{rate:,.0f}" for rate in self._rates[: self.chosen + 1])
        self.reason = f"num_workers: {self.chosen} ({rates} tokens/s; {why})"
        return self.chosen < tried


def _rate_and_waiting(steps: list[Step]) -> tuple[float, float]:
    """Tokens a second, and the share of the time that the loop waited."""
    waited, took, tokens = (np.array(column) for column in zip(*steps, strict=True))
    usual = took <= PAUSE * np.median(took)
    seconds = float((waited + took)[usual].sum())
    return float(tokens[usual].sum()) / seconds, float(waited[usual].sum()) / seconds


def tuned_steps(
    open_from: Callable[[int, int], Generator[Loaded, None, None]],
    start: int,
    tuner: Tuner,
    tokens: Callable[[Loaded], int],
    note: Callable[[int, Tuner], None],
) -> Iterator[Loaded]:
    """The steps from ``start`` on, prepared by as many workers as the tuner asks for.

    Args:
        open_from: the steps from a given one on, made by a given number of workers.
        tokens: real tokens of a step.
        note: called once, with the number of steps done and the tuner, when the search is over.
    """
    batches = open_from(start, tuner.chosen)
    at, searching = start, True
    while True:
        asked = time.perf_counter()
        loaded = next(batches, None)
        if loaded is None:
            return
        given = time.perf_counter()
        yield loaded
        at += 1
        if searching:
            if tuner.saw(Step(given - asked, time.perf_counter() - given, tokens(loaded))):
                batches.close()
                batches = open_from(at, tuner.chosen)
            if tuner.reason is not None:
                searching = False
                note(at, tuner)


def upcoming_steps(
    work: Prepared, num_workers: int | Literal["auto"], step: int, machine: Machine, journal: Journal
) -> Iterator[Loaded]:
    """The steps of a run from ``step`` (counted from 0 over all epochs) on, with the micro-batches of this process.

    Args:
        num_workers: how many processes prepare batches; ``auto``: as many as help, which the journal tells.

    Raises:
        UserError: a worker process died.
    """
    parallel = machine.parallel

    def open_from(at: int, workers: int) -> Generator[Loaded, None, None]:
        return steps_from(
            work.plan,
            work.maker,
            work.epoch_steps,
            work.position(at),
            num_workers=workers,
            rank=parallel.rank,
            world=parallel.world,
            pin_memory=machine.device.type == "cuda",
        )

    if num_workers != "auto":
        return open_from(step, num_workers)
    # the other processes of a run have the same processors to work with
    most = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", parallel.world))
    return tuned_steps(
        open_from,
        step,
        Tuner(most=most, steps_left=work.total_steps - step),
        tokens=lambda loaded: work.plan.tokens(loaded[1]),
        note=partial(_note, journal),
    )


def _note(journal: Journal, step: int, tuner: Tuner) -> None:
    journal.write("workers", step, {"num_workers": tuner.chosen, "reason": tuner.reason})
