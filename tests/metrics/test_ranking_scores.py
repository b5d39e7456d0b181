"""Correlations and ranking metrics agree with scipy, scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as reference

from wenmai.metrics.ranking import (
    average_ranks,
    correlation_scores,
    pair_scores,
    pearson,
    ranks_of_positives,
    retrieval_scores,
    spearman,
)


def two_columns(seed: int, decimals: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlated columns; few decimals give many ties."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=150)
    return left.round(decimals), (left + rng.normal(size=150)).round(decimals)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_correlations_equal_scipy(seed: int, decimals: int) -> None:
    left, right = two_columns(seed, decimals)

    np.testing.assert_array_equal(average_ranks(left), stats.rankdata(left))
    values = correlation_scores(left, right).values()
    assert values["spearman"] == pytest.approx(stats.spearmanr(left, right).statistic)
    assert values["pearson"] == pytest.approx(stats.pearsonr(left, right).statistic)
    assert values["mse"] == pytest.approx(reference.mean_squared_error(left, right))


def test_correlations_by_hand() -> None:
    values = correlation_scores([1, 2, 3, 4], [1, 3, 2, 4]).values()
    assert values["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert values["mse"] == 0.5
    assert average_ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [2.5, 1.0, 2.5, 4.0]


@pytest.mark.parametrize(
    ("left", "right"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [3.0, 3.0]), ([0.1] * 3, [1, 2, 3])]
)
def test_undefined_correlations_are_zero(left: list[float], right: list[float]) -> None:
    assert pearson(np.array(left), np.array(right)) == 0.0
    assert spearman(np.array(left), np.array(right)) == 0.0
    json.dumps(correlation_scores(left, right).values(), allow_nan=False)


def test_correlation_stays_within_one() -> None:
    column = np.array([0.1, 0.2, 0.7])
    assert pearson(column, 3 * column) == pytest.approx(1.0)
    assert pearson(column, -7 * column) >= -1.0


def test_retrieval_by_hand() -> None:
    values = retrieval_scores([1, 2, 7, 20, 0]).values()
    assert values["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 7 + 1 / 20 + 0) / 5)
    assert (values["recall@1"], values["recall@5"], values["recall@10"]) == pytest.approx((0.2, 0.4, 0.6))


def test_retrieval_of_nothing_and_impossible_ranks() -> None:
    assert retrieval_scores([]).values() == dict.fromkeys(("mrr", "recall@1", "recall@5", "recall@10"), 0.0)
    with pytest.raises(ValueError, match="got -3"):
        retrieval_scores([1, -3])


def test_ranks_by_hand() -> None:
    anchors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    positives = np.array([[0.8, 0.6], [1.0, 0.0], [0.8, 0.6]])
    # texts that are equal are no rivals; of the second anchor the other text is nearer than its own
    assert ranks_of_positives(anchors, positives, ["a", "b", "a"]) == [2, 2, 1]


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_vectors_that_are_all_alike_or_no_numbers_find_nothing(value: float) -> None:
    same = np.full((4, 3), value)
    assert ranks_of_positives(same, same, ["a", "b", "c", "d"]) == [4, 4, 4, 4]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_pairs_equal_scikit_learn(seed: int, decimals: int) -> None:
    left, similarity = two_columns(seed, decimals)
    gold = left > 0.3
    values = pair_scores(gold, similarity).values()

    assert values["average_precision"] == pytest.approx(reference.average_precision_score(gold, similarity))
    assert values["roc_auc"] == pytest.approx(reference.roc_auc_score(gold, similarity))
    every = [np.mean((similarity >= t) == gold) for t in [*similarity, similarity.max() + 1]]
    assert values["best_threshold_accuracy"] == pytest.approx(max(every))
    at_threshold = np.mean((similarity >= values["best_threshold"]) == gold)
    assert at_threshold == pytest.approx(values["best_threshold_accuracy"])


def test_pairs_by_hand() -> None:
    values = pair_scores([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]).values()
    assert values["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert values["roc_auc"] == 0.75
    assert (values["best_threshold_accuracy"], values["best_threshold"]) == (0.75, 0.9)


@pytest.mark.parametrize(
    ("gold", "accuracy"), [([], 0.0), ([1], 1.0), ([0], 1.0), ([0, 0], 1.0), ([1, 1], 1.0)]
)
def test_pairs_of_one_kind_are_defined(gold: list[int], accuracy: float) -> None:
    values = pair_scores(gold, [0.5] * len(gold)).values()
    assert values["roc_auc"] == 0.0
    assert values["average_precision"] == float(any(gold))
    assert values["best_threshold_accuracy"] == accuracy
    json.dumps(values, allow_nan=False)
