"""Scores of a set of examples that can be summed up, cut into slices and resampled.

One mechanism serves the score of a test set, its slices by length or label, its bootstrap interval and the
paired test of two models: what is needed is kept per example, and a pure function turns it into metrics.
Shape letters: N examples, K counts, E tally marks, R resamples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = dict[str, float]
Interval = tuple[float, float]
Indices = Sequence[int] | NDArray[np.int64]
Summary = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]
"""Counts of shape (..., K) -> metrics of shape (...): vectorised over the leading dimensions."""


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """The quotient, and 0.0 where the denominator is 0; elementwise, broadcast."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    quotient = np.zeros(above.shape)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def draws(examples: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """R times N indices with replacement. All scores draw here: same seed and N, same resamples."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(0, max(examples, 1), examples)


class Scores(ABC):
    """The scores of N examples."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """N."""

    @abstractmethod
    def values(self) -> Values:
        """Every metric over all N examples; also for N = 0, the same keys."""

    @abstractmethod
    def subset(self, indices: Indices) -> Scores:
        """The scores of these examples only (repetitions count)."""

    def resampled(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, NDArray[np.float64]]:
        """Every metric on R bootstrap resamples of the examples (Efron 1979): metric -> (R,)."""
        rows = [self.subset(drawn).values() for drawn in draws(self.examples, resamples, seed)]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def intervals(self, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13); examples are resampled.

        Args:
            resamples: R; 1,000 settle the second digit of the width.
            level: share of the resamples inside the interval.

        Returns:
            metric -> (low, high); empty if there are no examples. A label so rare that resamples lack it has
            an interval that reaches down to 0: the examples don't say more.
        """
        if self.examples == 0:
            return {}
        tail = 50 * (1 - level)
        drawn = self.resampled(resamples=resamples, seed=seed)
        bounds = {key: np.percentile(values_R, [tail, 100 - tail]) for key, values_R in drawn.items()}
        return {key: (float(low), float(high)) for key, (low, high) in bounds.items()}


class SummedScores(Scores):
    """Metrics that are functions of counts summed over the examples: accuracy, F1, perplexity, means."""

    summary: Summary

    @abstractmethod
    def sums(self, weights_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """The counts of all examples, each taken ``weights_N`` times: (K,)."""

    def values(self) -> Values:
        sums_K = self.sums(np.ones(self.examples, dtype=np.int64))
        return {key: float(value) for key, value in self.summary(sums_K).items()}

    def resampled(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, NDArray[np.float64]]:
        sums_RK = [
            self.sums(np.bincount(drawn, minlength=self.examples))
            for drawn in draws(self.examples, resamples, seed)
        ]
        return self.summary(np.stack(sums_RK))


@dataclass(frozen=True, eq=False)
class CountScores(SummedScores):
    """Scores from a few numbers an example: losses, tokens, reciprocal ranks.

    Args:
        counts_NK: what each example contributes.
        summary: summed counts to metrics.
    """

    counts_NK: NDArray[np.float64]
    summary: Summary

    @property
    def examples(self) -> int:
        return len(self.counts_NK)

    def sums(self, weights_N: NDArray[np.int64]) -> NDArray[np.float64]:
        return weights_N.astype(np.float64) @ self.counts_NK

    def subset(self, indices: Indices) -> CountScores:
        return CountScores(self.counts_NK[np.asarray(indices, dtype=np.int64)], self.summary)


@dataclass(frozen=True, eq=False)
class TallyScores(SummedScores):
    """Scores from counts that are nearly all 0: an example marks a few of many columns (three a label).

    Dense counts of 100,000 examples and 120 labels would take 288 MB and be multiplied for every resample.

    Args:
        lengths_N: marks of each example.
        columns_E: the columns marked, example after example; a column marked twice counts 2.
        columns: K.
        summary: summed counts to metrics.
    """

    lengths_N: NDArray[np.int64]
    columns_E: NDArray[np.int32]
    columns: int
    summary: Summary

    @classmethod
    def of(cls, marks: Iterable[Sequence[int]], columns: int, summary: Summary) -> TallyScores:
        """From the marked columns of each example."""
        lengths: list[int] = []
        flat = array("i")
        for row in marks:
            lengths.append(len(row))
            flat.extend(row)
        return cls(
            np.array(lengths, dtype=np.int64),
            np.array(flat, dtype=np.int32),
            columns=columns,
            summary=summary,
        )

    @property
    def examples(self) -> int:
        return len(self.lengths_N)

    def sums(self, weights_N: NDArray[np.int64]) -> NDArray[np.float64]:
        weights_E = np.repeat(weights_N, self.lengths_N)
        return np.bincount(self.columns_E, weights=weights_E, minlength=self.columns).astype(np.float64)

    def subset(self, indices: Indices) -> TallyScores:
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths_N[chosen]
        first_N = np.cumsum(self.lengths_N) - self.lengths_N
        # An example's marks lie side by side: where they start here, minus where they start in the subset.
        shift = np.repeat(first_N[chosen] - (np.cumsum(lengths) - lengths), lengths)
        return TallyScores(
            lengths, self.columns_E[shift + np.arange(len(shift))], columns=self.columns, summary=self.summary
        )


@dataclass(frozen=True, eq=False)
class PairedScores(Scores):
    """Metrics of two columns of numbers that no sum can give: rank correlations.

    Args:
        gold_N, predicted_N: the numbers, example by example.
        measure: the two columns to metrics; the same keys for any number of examples, 0 included.
    """

    gold_N: NDArray[np.float64]
    predicted_N: NDArray[np.float64]
    measure: Callable[[NDArray[np.float64], NDArray[np.float64]], Values]

    @property
    def examples(self) -> int:
        return len(self.gold_N)

    def values(self) -> Values:
        return self.measure(self.gold_N, self.predicted_N)

    def subset(self, indices: Indices) -> PairedScores:
        chosen = np.asarray(indices, dtype=np.int64)
        return PairedScores(self.gold_N[chosen], self.predicted_N[chosen], self.measure)


class PairedDifference(NamedTuple):
    """How two models differ in one metric on the same examples."""

    difference: float
    """Left minus right, over all examples."""
    low: float
    """Bounds of the 95 % percentile interval of the difference."""
    high: float
    p_value: float
    """Two-sided: how easily resampling turns the sign of the difference around."""


def paired_difference(
    left: Scores, right: Scores, metric: str, *, resamples: int = 1000, seed: int = 0
) -> PairedDifference:
    """The paired bootstrap test: both models are scored on the same resamples of the same examples.

    p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (R + 1)) over the resampled differences d, so it is never
    0: Efron and Tibshirani 1993, chapter 15; Koehn 2004 (https://aclanthology.org/W04-3250) for metrics of
    natural language.

    Args:
        left, right: scores of the same examples in the same order.
        metric: a key of both scores' values.
        resamples: R; the smallest p is 2 / (R + 1).

    Raises:
        ValueError: the numbers of examples differ.
    """
    if left.examples != right.examples:
        raise ValueError(
            f"a paired test needs the same examples on both sides, got {left.examples} and {right.examples}"
        )
    difference = left.values()[metric] - right.values()[metric]
    if left.examples == 0:
        return PairedDifference(difference, 0.0, 0.0, 1.0)
    drawn_R = (
        left.resampled(resamples=resamples, seed=seed)[metric]
        - right.resampled(resamples=resamples, seed=seed)[metric]
    )
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    # as in the formula; but a difference that is NaN counts for neither side
    turned = resamples - max(int((drawn_R > 0).sum()), int((drawn_R < 0).sum()))
    return PairedDifference(difference, float(low), float(high), min(1.0, 2 * (1 + turned) / (resamples + 1)))
