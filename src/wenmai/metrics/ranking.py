"""Correlations, retrieval ranks, and pairs told apart by a similarity.

Shape letters: N examples, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wenmai.metrics.scores import CountScores, PairedScores, Values, ratio

Column = NDArray[np.float64]
CUTOFFS = (1, 5, 10)
RANKED_AT_ONCE = 512


def average_ranks(values_N: Column) -> Column:
    """The rank of each value from 1; equal values share the mean of their ranks (Kendall 1945)."""
    _, groups_N, sizes = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks: Column = (np.cumsum(sizes) - (sizes - 1) / 2)[groups_N]
    return ranks


def pearson(left_N: Column, right_N: Column) -> float:
    """cov(x, y) / (sd(x) sd(y)); 0.0 where undefined: fewer than two examples, or a constant column."""
    # Compared before centring: the mean of equal numbers may differ from them in the last bit.
    if len(left_N) < 2 or (left_N == left_N[0]).all() or (right_N == right_N[0]).all():
        return 0.0
    left, right = left_N - left_N.mean(), right_N - right_N.mean()
    norms = np.linalg.norm(left) * np.linalg.norm(right)
    return float(np.clip(ratio(left @ right, norms), -1.0, 1.0))


def spearman(left_N: Column, right_N: Column) -> float:
    """Pearson's correlation of the average ranks (Spearman 1904); 0.0 where that is undefined."""
    return pearson(average_ranks(left_N), average_ranks(right_N))


def correlation_scores(gold: ArrayLike, predicted: ArrayLike) -> PairedScores:
    """``spearman``, ``pearson`` and ``mse``, the mean of (gold - predicted)² (lower is better).

    Args:
        gold, predicted: one number an example, in the same order.
    """
    return PairedScores(_column(gold), _column(predicted), _correlations)


def _correlations(gold_N: Column, predicted_N: Column) -> Values:
    squares = float(((gold_N - predicted_N) ** 2).sum())
    return {
        "spearman": spearman(gold_N, predicted_N),
        "pearson": pearson(gold_N, predicted_N),
        "mse": float(ratio(squares, len(gold_N))),
    }


def retrieval_scores(ranks: Sequence[int]) -> CountScores:
    """``mrr``, the mean of 1 / rank (Voorhees 1999), and ``recall@k``, the share of ranks up to 1, 5 and 10.

    Args:
        ranks: the rank of each query's right answer, from 1; 0 if it was not found at all.

    Raises:
        ValueError: a rank is negative.
    """
    rank_N = np.asarray(ranks, dtype=np.int64)
    if (rank_N < 0).any():
        raise ValueError(f"ranks count from 1, and 0 means not found; got {rank_N.min()}")
    within = [(rank_N > 0) & (rank_N <= cutoff) for cutoff in CUTOFFS]
    return CountScores(np.stack([np.ones(len(rank_N)), ratio(1.0, rank_N), *within], axis=1), _retrieval)


def _retrieval(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    means = ratio(sums[..., 1:], sums[..., :1])
    return {"mrr": means[..., 0]} | {f"recall@{k}": means[..., 1 + i] for i, k in enumerate(CUTOFFS)}


def ranks_of_positives(
    anchors_ND: NDArray[np.float64], positives_ND: NDArray[np.float64], texts: Sequence[str]
) -> list[int]:
    """The rank, from 1, of each anchor's own positive among the positives of all; equal texts are not rivals.

    A rival as similar as the positive comes before it, and so does every rival where a similarity is NaN: vectors that
    are all alike, or no numbers, find nothing.
    """
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    text_N = np.array([ids[text] for text in texts])
    _, first_N = np.unique(text_N, return_index=True)
    ranks: list[int] = []
    for start in range(0, len(texts), RANKED_AT_ONCE):
        similarity = anchors_ND[start : start + RANKED_AT_ONCE] @ positives_ND.T
        for offset, row in enumerate(similarity):
            at = start + offset
            rivals = row[first_N][text_N[first_N] != text_N[at]]
            ranks.append(1 + int((~(rivals < row[at])).sum()))
    return ranks


def pair_scores(gold01: ArrayLike, similarity: ArrayLike, *, threshold: float | None = None) -> PairedScores:
    """How well a similarity tells pairs that belong together from pairs that don't.

    * ``average_precision``: the sum over thresholds of (R_n - R_{n-1}) P_n, without interpolation
    * ``roc_auc``: the chance that a positive pair is more similar than a negative one, ties count half (Mann
      and Whitney 1947; Fawcett 2006)
    * ``best_threshold_accuracy``: the accuracy of "positive if similarity >= ``best_threshold``" with the
      threshold chosen on these same pairs, so an upper bound and not what new pairs will get
    * ``spearman`` of similarity and gold, which some papers report for such pairs
    * with a threshold from elsewhere: ``accuracy`` of "positive if similarity > threshold", and ``precision``,
      ``recall`` and ``f1`` of the positive pairs

    Without positive pairs average precision is 0.0; without both kinds of pairs the area is 0.0.

    Args:
        gold01: 1 (or True) for pairs that belong together, 0 for others.
        similarity: higher is closer, in the same order.
        threshold: chosen on other pairs.
    """
    return PairedScores(_column(gold01), _column(similarity), partial(_pairs_told_apart, threshold=threshold))


def _pairs_told_apart(gold_N: Column, similarity_N: Column, *, threshold: float | None) -> Values:
    found = {**_separation(gold_N, similarity_N), "spearman": spearman(similarity_N, gold_N)}
    if threshold is None:
        return found
    positive_N = similarity_N > threshold
    right = float((positive_N & (gold_N > 0)).sum())
    wrong = float((positive_N != (gold_N > 0)).sum())
    predicted, wanted = float(positive_N.sum()), float((gold_N > 0).sum())
    return {
        "accuracy": float(ratio(len(gold_N) - wrong, len(gold_N))),
        "precision": float(ratio(right, predicted)),
        "recall": float(ratio(right, wanted)),
        "f1": float(ratio(2 * right, predicted + wanted)),
        **found,
    }


def _separation(gold_N: Column, similarity_N: Column) -> Values:
    number, positives = len(gold_N), float(gold_N.sum())
    if number == 0:
        return dict.fromkeys(
            ("average_precision", "roc_auc", "best_threshold_accuracy", "best_threshold"), 0.0
        )
    order = np.argsort(-similarity_N, kind="stable")
    ordered = similarity_N[order]
    # Pairs of equal similarity pass a threshold together: one step for each distinct value, at its last pair.
    last = np.append(np.flatnonzero(np.diff(ordered)), number - 1)
    taken = last + 1.0
    right = np.cumsum(gold_N[order])[last]

    average_precision = float((np.diff(right, prepend=0.0) * ratio(right, taken)).sum() / max(positives, 1.0))
    rank_sum = float(average_ranks(similarity_N)[gold_N > 0].sum())
    area = ratio(rank_sum - positives * (positives + 1) / 2, positives * (number - positives))

    # The first candidate calls every pair negative.
    correct = np.append(number - positives, right + (number - positives) - (taken - right))
    thresholds = np.append(np.nextafter(ordered[0], np.inf), ordered[last])
    best = int(correct.argmax())
    return {
        "average_precision": average_precision,
        "roc_auc": float(area),
        "best_threshold_accuracy": float(correct[best] / number),
        "best_threshold": float(thresholds[best]),
    }


def _column(values: ArrayLike) -> Column:
    return np.asarray(values, dtype=np.float64)
