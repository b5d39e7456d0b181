"""The best answers of a question from the start and end scores of all windows of its context.

Shape letters: T tokens of a window, N tokens of the context, S spans that start at a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wenmai.data.rows import Row
from wenmai.tasks.task import RowOutputs

Numbers = NDArray[np.float64]


class Found(NamedTuple):
    """A span of characters of the context with its score."""

    start: int
    end: int
    score: float


class Answers(NamedTuple):
    """The best spans, best first, and the logarithm of the sum of ``exp(score)`` over all spans."""

    best: list[Found]
    log_total: float


def best_answers(
    outputs: Sequence[RowOutputs], rows: Sequence[Row], *, count: int, longest: int, against_null: bool
) -> Answers:
    """The ``count`` best spans of at most ``longest`` characters.

    A span scores start + end; against null, less what the window's first token scores as both. That is the logarithm
    of how much likelier the window finds the span than that the answer is elsewhere, ``log p(span) - log p(none)``:
    the softmax of the window cancels, so windows compare. If each window judges for itself and one answer at most is
    right, the answers' probabilities are ``exp(score) / (1 + Σ exp(score))``. A span that several windows hold counts
    once, with the best of its scores.

    Windows are taken up one by one, so that only the spans of overlapping ones are held: linear in the context.

    Args:
        outputs: per row ``start`` and ``end`` (T,), special tokens and question included.
        rows: the windows in order.
        against_null: False for a model that never learned to say none.
    """
    first_N, stop_N = _characters(rows)
    collected = _Collected(count, first_N, stop_N)
    held = np.empty((0, 0))
    low = 0
    for out, row in zip(outputs, rows, strict=True):
        collected.take(held[: row.window - low], low)
        held, low = held[row.window - low :], row.window
        scores_TS = _spans(out, row, stop_N, first_N, longest, against_null)
        held = _best_of_both(held, scores_TS)
    collected.take(held, low)
    return collected.answers()


def _characters(rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and stop character of each token of the context."""
    total = max(row.window + row.content[1] - row.content[0] for row in rows)
    offsets_N2 = np.zeros((total, 2), dtype=np.int64)
    for row in rows:
        first, stop = row.content
        if stop > first:
            offsets_N2[row.window : row.window + stop - first] = row.offsets[first:stop]
    return offsets_N2[:, 0], offsets_N2[:, 1]


def _spans(
    out: RowOutputs,
    row: Row,
    stop_N: NDArray[np.int64],
    first_N: NDArray[np.int64],
    longest: int,
    against_null: bool,
) -> Numbers:
    """Scores (T, S) of the spans of 1, 2, ... S tokens from each token; -inf where there is none."""
    first, stop = row.content
    tokens = stop - first
    width = min(longest, tokens)  # every token has a character at least
    if not width:
        return np.empty((0, 0))
    start_T, end_T = (out[name].astype(np.float64) for name in ("start", "end"))
    null = start_T[0] + end_T[0] if against_null else 0.0
    chars = slice(row.window, row.window + tokens)
    end_TS = _following(end_T[first:stop], width, -np.inf)
    length_TS = _following(stop_N[chars].astype(np.float64), width, np.inf) - first_N[chars, None]
    scores_TS: Numbers = start_T[first:stop, None] + end_TS - null
    scores_TS[length_TS > longest] = -np.inf
    return scores_TS


def _following(values_T: Numbers, width: int, beyond: float) -> Numbers:
    """(T, S): the value of each token and of those behind it, ``beyond`` where the window ends."""
    padded = np.concatenate([values_T, np.full(width - 1, beyond)])
    return np.lib.stride_tricks.sliding_window_view(padded, width)


def _best_of_both(held: Numbers, scores_TS: Numbers) -> Numbers:
    """The higher score of each span, where both start at the same token."""
    if not held.size:
        return scores_TS
    height, width = (max(a, b) for a, b in zip(held.shape, scores_TS.shape, strict=True))
    merged = np.full((height, width), -np.inf)
    merged[: held.shape[0], : held.shape[1]] = held
    part = merged[: scores_TS.shape[0], : scores_TS.shape[1]]
    np.maximum(part, scores_TS, out=part)
    return merged


class _Collected:
    """The best spans and the sum over all, as more and more of them come."""

    def __init__(self, count: int, first_N: NDArray[np.int64], stop_N: NDArray[np.int64]):
        self._count = count
        self._first_N, self._stop_N = first_N, stop_N
        self._best: list[Found] = []
        self._log_total = -np.inf

    def take(self, scores_TS: Numbers, low: int) -> None:
        """Spans whose scores are final; the first of them starts at token ``low``."""
        scores = scores_TS.ravel()
        real = np.flatnonzero(scores > -np.inf)
        if not len(real):
            return
        values = scores[real]
        highest = values.max()
        log_sum = highest + np.log(np.exp(values - highest).sum())
        self._log_total = np.logaddexp(self._log_total, log_sum)
        if len(real) > self._count:
            border = np.partition(values, -self._count)[-self._count]
            real = real[values >= border]
        token, more = np.divmod(real, scores_TS.shape[1])
        first, stop = self._first_N[low + token], self._stop_N[low + token + more]
        found = map(Found, first.tolist(), stop.tolist(), scores[real].tolist())
        self._best = sorted([*self._best, *found], key=lambda f: (-f.score, f.start, f.end))[: self._count]

    def answers(self) -> Answers:
        return Answers(self._best, float(self._log_total))
