"""The steps of several tasks: how often each is drawn, in an order that is a function of (seed, epoch).

Every task has an endless stream of its units: one pass over all of them after the other, each in an order of its own.
An epoch takes the next piece of every stream, as long as the task's share asks for. So nothing is drawn again before
everything was drawn, and any step can be found without those before it.

A unit is known by one number: ``pass * N + unit``, with N the number of all units. Draws for its rows are functions of
the pass, so a small task that is seen several times an epoch is not seen with the same masks.

Shape letters: P tasks, N units of all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wenmai.data.batching import BatchMaker, Ints, StepSize, Units, cut, pools
from wenmai.data.draws import row_keys
from wenmai.data.rows import Batch, tensors


def shares(count_P: Ints, temperature: float) -> NDArray[np.float64]:
    """The share of each task: ``n ** (1 / T)``, over their sum (Devlin 2018 for languages; Raffel et al. 2020, 3.5.2).

    Args:
        count_P: units of each task, at least 1.
        temperature: T; 1: in proportion to their number; without end: all alike.
    """
    # through logarithms, so that no number of units is too large
    log_P = np.log(count_P.astype(np.float64)) / temperature
    weight_P = np.exp(log_P - log_P.max())
    share_P: NDArray[np.float64] = weight_P / weight_P.sum()
    return share_P


def joined_units(parts: Sequence[Units]) -> Units:
    """The units of all tasks; ``example_N`` counts within each task."""
    return Units(*(np.concatenate([getattr(part, name) for part in parts]) for name in Units.__annotations__))


def part_seed(seed: int, number: int) -> int:
    """A seed of its own for what is drawn for the rows of a task, counted from 0."""
    return int(row_keys(seed, number, np.zeros(1, np.int64), np.zeros(1, np.int64))[0])


@dataclass(frozen=True)
class MixedPlan:
    """The steps of every epoch; what :class:`~wenmai.data.batching.Plan` is to one task.

    Args:
        units: of all tasks, one task's after the other's.
        first_P: (P + 1,) the number of the first unit of each task, and N.
        size: of a step.
        temperature: see :func:`shares`.
        batches_per_step: G. The units of each task are cut into batches of a G-th of a step, of about equal lengths;
            those of all tasks are put in an order in which every stretch holds each task in proportion, and G after
            each other are a step.
    """

    units: Units
    first_P: Ints
    size: StepSize
    seed: int
    temperature: float
    batches_per_step: int

    def steps(self, epoch: int) -> list[Ints]:
        """The units of every optimizer step of an epoch."""
        batches: list[Ints] = []
        when: list[NDArray[np.float64]] = []
        for part, count in enumerate(self.counts()):
            rng = np.random.default_rng([self.seed, part, epoch, 1])
            own = self._cut(self._drawn(part, epoch * count, count), self._batch_size())
            batches += [own[i] for i in rng.permutation(len(own))]
            # each somewhere in its own stretch of the epoch
            when.append((np.arange(len(own)) + rng.random(len(own))) / len(own))
        order = np.argsort(np.concatenate(when), kind="stable").tolist()
        groups = [
            order[at : at + self.batches_per_step] for at in range(0, len(order), self.batches_per_step)
        ]
        return [np.concatenate([batches[i] for i in group]) for group in groups]

    def counts(self) -> list[int]:
        """How many units of each task an epoch has; together N, but for rounding."""
        count_P = np.diff(self.first_P)
        wanted_P = np.rint(shares(count_P, self.temperature) * len(self.units))
        return [max(1, int(wanted)) for wanted in wanted_P]

    def micro_batches(self, step: Ints) -> list[Ints]:
        """A step's units in the parts that go through the model one by one, each of one task.

        Several batches of one task go together as far as they fit into the budget of a step: one with short rows and
        one with long rows may not, as padding counts.
        """
        tokens = self.size.micro_tokens
        if tokens is None and self.size.micro_examples is None:
            tokens = self.size.tokens
        found: list[Ints] = []
        part_S = self.part_of(step)
        for part in np.unique(part_S).tolist():
            own = step[part_S == part]
            own = own[np.argsort(self.units.longest_N[self.unit_of(own)], kind="stable")]
            found += [own[piece] for piece in self._pieces(own, tokens, self.size.micro_examples or len(own))]
        return found

    def tokens(self, step: Ints) -> int:
        """Real tokens of a step."""
        return int(self.units.tokens_N[self.unit_of(step)].sum())

    def padded_tokens(self, step: Ints) -> int:
        """Tokens of a step's micro-batches, padding counted."""
        parts = map(self.unit_of, self.micro_batches(step))
        return sum(int(self.units.longest_N[part].max() * self.units.rows_N[part].sum()) for part in parts)

    def unit_of(self, step: Ints) -> Ints:
        """Numbers with their pass to numbers without."""
        return step % len(self.units)

    def part_of(self, step: Ints) -> Ints:
        """The task of each unit, counted from 0."""
        return np.searchsorted(self.first_P, self.unit_of(step), side="right") - 1

    def where(self, unit: int) -> tuple[int, int]:
        """The task that a unit belongs to, and its example there."""
        number = np.array([unit])
        return int(self.part_of(number)[0]), int(self.units.example_N[self.unit_of(number)][0])

    def _drawn(self, part: int, start: int, count: int) -> Ints:
        """Units ``[start, start + count)`` of a task's stream."""
        first, stop = self.first_P[part : part + 2].tolist()
        own = stop - first
        passes = range(start // own, (start + count - 1) // own + 1)
        stream = [
            np.random.default_rng([self.seed, part, number]).permutation(own)
            + first
            + number * len(self.units)
            for number in passes
        ]
        at = start - passes[0] * own
        return np.concatenate(stream)[at : at + count]

    def _batch_size(self) -> StepSize:
        tokens, examples = (
            None if budget is None else max(1, budget // self.batches_per_step)
            for budget in (self.size.tokens, self.size.examples)
        )
        return replace(self.size, tokens=tokens, examples=examples)

    def _cut(self, drawn: Ints, size: StepSize) -> list[Ints]:
        """Batches of about equal lengths, as a plan of one task has them."""
        longest_D = self.units.longest_N[self.unit_of(drawn)]
        found: list[Ints] = []
        for pool in pools(np.arange(len(drawn)), self._measured(drawn), size):
            by_length = drawn[pool[np.argsort(longest_D[pool], kind="stable")]]
            found += [by_length[piece] for piece in self._pieces(by_length, size.tokens, size.examples)]
        return found

    def _pieces(self, units: Ints, tokens: int | None, examples: int | None) -> list[Ints]:
        """Places in ``units``, in runs within the budget: so many tokens, or without it so many units."""
        return cut(np.arange(len(units)), self._measured(units), tokens, None if tokens else examples)

    def _measured(self, units: Ints) -> Units:
        number = self.unit_of(units)
        return Units(*(getattr(self.units, name)[number] for name in Units.__annotations__))


@dataclass(frozen=True)
class MixedMaker:
    """Makes batches of one task each.

    Args:
        makers: of each task; seeded apart, see :func:`part_seed`.
        tags: of each task, the key that its batches have and no others.
        first_P: as in :class:`MixedPlan`.
    """

    makers: Sequence[BatchMaker]
    tags: Sequence[str]
    first_P: Ints

    def __call__(self, part: Ints, epoch: int) -> Batch:
        """The batch of at least one unit, all of one task. What is drawn depends on their pass, not on the epoch."""
        pass_B, unit_B = np.divmod(part, self.first_P[-1])
        number = int(np.searchsorted(self.first_P, unit_B[0], side="right")) - 1
        batch = self.makers[number](unit_B - self.first_P[number], pass_B)
        return batch | tensors({self.tags[number]: np.ones(len(batch["key"]), dtype=np.int64)})
