"""Examples to batches: length pools under a token budget, in an order that is a function of (seed, epoch, step).

A *unit* is what training draws: a row, or all rows of an example that belong together. Units of about the same length
are put into one step, so that almost nothing is padding. The plan of an epoch is computed from the lengths alone, in
a moment and without touching the data: resuming at any step is a list index, not a replay. How a step is cut into
micro-batches changes neither its units nor its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wenmai.data.draws import row_keys
from wenmai.data.features import Features
from wenmai.data.rows import Arrays, Batch, tensors

Ints = NDArray[np.int64]
Augment = Callable[[Arrays], Arrays]

POOL_STEPS = 64
"""Steps' worth of units that are sorted by length together: more pads less, fewer mixes better."""


@dataclass(frozen=True)
class Units:
    """What training draws, as parallel arrays over N units.

    Args:
        example_N: index of the example.
        row_N: index of the row among the example's; or -1 for all of them, then in every unit.
        longest_N: tokens of the longest row.
        rows_N: number of rows.
        tokens_N: real tokens of all rows.
    """

    example_N: Ints
    row_N: Ints
    longest_N: Ints
    rows_N: Ints
    tokens_N: Ints

    def __len__(self) -> int:
        return len(self.example_N)


def measure(features: Features, *, rows_stay_together: bool) -> Units:
    """The units of a set: its examples, or each of their rows by itself."""
    examples, rows = len(features), len(features.tokens_R)
    count_E = np.diff(features.first_row)
    if not rows_stay_together:
        example_R = np.repeat(np.arange(examples), count_E)
        row_R = np.arange(rows) - features.first_row[example_R]
        return Units(example_R, row_R, features.tokens_R, np.ones(rows, np.int64), features.tokens_R)
    # every example has a row, so the slices between the first rows are never empty
    longest_E, tokens_E = (
        operation.reduceat(features.tokens_R, features.first_row[:-1]) for operation in (np.maximum, np.add)
    )
    return Units(np.arange(examples), np.full(examples, -1), longest_E, count_E, tokens_E)


@dataclass(frozen=True)
class StepSize:
    """How much one optimizer step holds, and how much of it goes through the model at once.

    Args:
        tokens: budget of a step, padding counted; or
        examples: fixed number of units of a step.
        micro_tokens, micro_examples: budget of a micro-batch; neither: the step is one batch.
    """

    tokens: int | None = None
    examples: int | None = None
    micro_tokens: int | None = None
    micro_examples: int | None = None

    def __post_init__(self) -> None:
        assert (self.tokens is None) != (self.examples is None), "one of tokens and examples"
        assert self.micro_tokens is None or self.micro_examples is None


@dataclass(frozen=True)
class Plan:
    """The batches of every epoch."""

    units: Units
    size: StepSize
    seed: int

    def steps(self, epoch: int) -> list[Ints]:
        """The units of every optimizer step of an epoch; each unit occurs once."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.units))
        steps: list[Ints] = []
        for pool in pools(order, self.units, self.size):
            # ties keep the drawn order, so that equal lengths do not always meet the same neighbours
            by_length = pool[np.argsort(self.units.longest_N[pool], kind="stable")]
            steps += cut(by_length, self.units, self.size.tokens, self.size.examples)
        return [steps[i] for i in rng.permutation(len(steps))]

    def micro_batches(self, step: Ints) -> list[Ints]:
        """A step's units in the parts that go through the model one by one."""
        if self.size.micro_tokens is None and self.size.micro_examples is None:
            return [step] if len(step) else []
        return cut(step, self.units, self.size.micro_tokens, self.size.micro_examples)

    def tokens(self, step: Ints) -> int:
        """Real tokens of a step."""
        return int(self.units.tokens_N[step].sum())

    def where(self, unit: int) -> tuple[int, int]:
        """0, as there is one task, and the unit's example."""
        return 0, int(self.units.example_N[unit])

    def padded_tokens(self, step: Ints) -> int:
        """Tokens of a step's micro-batches, padding counted."""
        return sum(
            int(self.units.longest_N[part].max() * self.units.rows_N[part].sum())
            for part in self.micro_batches(step)
        )


def pools(order: Ints, units: Units, size: StepSize) -> Iterator[Ints]:
    """The units in runs of :data:`POOL_STEPS` steps' worth each."""
    if size.examples is not None:
        per_pool = size.examples * POOL_STEPS
        yield from (order[at : at + per_pool] for at in range(0, len(order), per_pool))
        return
    assert size.tokens is not None
    pool_of = (np.cumsum(units.tokens_N[order]) - 1) // (size.tokens * POOL_STEPS)
    borders = np.flatnonzero(np.diff(pool_of)) + 1
    yield from np.split(order, borders)


def cut(ordered: Ints, units: Units, tokens: int | None, examples: int | None) -> list[Ints]:
    """Runs of units, each within the budget unless a single unit exceeds it."""
    if examples is not None:
        return [ordered[at : at + examples] for at in range(0, len(ordered), examples)]
    assert tokens is not None
    parts: list[Ints] = []
    start = longest = rows = 0
    lengths, counts = units.longest_N[ordered].tolist(), units.rows_N[ordered].tolist()
    for at, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        longest = max(longest, length)
        rows += count
        if longest * rows > tokens and at > start:
            parts.append(ordered[start:at])
            start, longest, rows = at, length, count
    if len(ordered):
        parts.append(ordered[start:])
    return parts


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of given units. Every draw is keyed, so any process makes the same batch at any time.

    Args:
        augment: a batch to the batch as this epoch sees it, by draws from its keys; None: rows stay as they are.
    """

    features: Features
    units: Units
    augment: Augment | None
    pad_id: int
    seed: int

    def __call__(self, part: Ints, epoch: int | Ints) -> Batch:
        """The batch of at least one unit.

        Beside inputs and targets it has ``group`` (B,), a number that the rows of an example share and no other row of
        the step has, and ``key`` (B,), a number below 2**63 that no other row and no other epoch has, for whatever is
        drawn for this row.

        Args:
            epoch: of all units, or of each of them where a step has units of several.
        """
        example_B, number_B = self.units.example_N[part], self.units.row_N[part]
        epoch_B = np.broadcast_to(np.asarray(epoch, dtype=np.int64), part.shape)
        first_row = self.features.first_row
        if len(number_B) and number_B[0] == -1:
            count_P = first_row[example_B + 1] - first_row[example_B]
            number_B = np.arange(int(count_P.sum())) - np.repeat(np.cumsum(count_P) - count_P, count_P)
            example_B, epoch_B = np.repeat(example_B, count_P), np.repeat(epoch_B, count_P)
        batch = self.features.batch(first_row[example_B] + number_B, self.pad_id)
        batch["group"] = example_B if isinstance(epoch, int) else example_B + epoch_B * len(self.features)
        batch["key"] = row_keys(self.seed, epoch_B, example_B, number_B)
        return tensors(batch if self.augment is None else self.augment(batch))
