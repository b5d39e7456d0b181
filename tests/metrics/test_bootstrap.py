"""Slices, resamples, intervals and the paired test, for every kind of scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from wenmai.metrics.classification import classification_scores, multilabel_scores
from wenmai.metrics.language_model import language_model_scores
from wenmai.metrics.ranking import correlation_scores, pair_scores, retrieval_scores
from wenmai.metrics.scores import CountScores, Scores, TallyScores, paired_difference, ratio
from wenmai.metrics.spans import span_scores, span_scores_by
from wenmai.text.spans import Span

LABELS = ["a", "b", "c"]


class World:
    """Random examples, and the scores of any choice of them made from scratch."""

    def __init__(self, examples: int, seed: int = 0, quality: float = 0.7):
        rng = np.random.default_rng(seed)
        self.gold = [LABELS[i] for i in rng.integers(0, 3, examples)]
        kept = np.random.default_rng(seed + 1).random(examples) < quality
        self.predicted = [g if k else "a" for g, k in zip(self.gold, kept, strict=True)]
        self.number = rng.normal(size=examples)
        self.guess = self.number + rng.normal(size=examples)
        self.ranks = rng.integers(1, 15, examples)
        self.tokens = rng.integers(1, 9, examples)

    def spans(self, chosen: NDArray[np.int64]) -> tuple[list[list[Span]], list[list[Span]]]:
        gold = [[Span(0, 1, self.gold[i]), Span(3, 5, "a")] for i in chosen]
        predicted = [[Span(0, 1, self.predicted[i]), Span(3, 6 - self.tokens[i] % 2, "a")] for i in chosen]
        return gold, predicted

    def labels(self, chosen: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        return [self.gold[i] for i in chosen], [self.predicted[i] for i in chosen]


MAKERS: dict[str, Callable[[World, NDArray[np.int64]], Scores]] = {
    "classification": lambda w, i: classification_scores(*w.labels(i), LABELS),
    "multilabel": lambda w, i: multilabel_scores(
        [{w.gold[k], w.predicted[k]} for k in i],
        [{w.predicted[k]} if w.tokens[k] > 3 else set() for k in i],
        LABELS,
    ),
    "spans": lambda w, i: span_scores(*w.spans(i), LABELS),
    "span group": lambda w, i: span_scores_by(*w.spans(i), lambda _, span: str(span.end - span.start))["1"],
    "correlation": lambda w, i: correlation_scores(w.number[i], w.guess[i]),
    "pairs": lambda w, i: pair_scores(w.number[i] > 0, w.guess[i]),
    "retrieval": lambda w, i: retrieval_scores(w.ranks[i]),
    "language model": lambda w, i: language_model_scores(
        w.ranks[i] * w.tokens[i], w.tokens[i], w.tokens[i] // 2
    ),
}
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@every_kind
def test_subset_equals_scores_made_from_these_examples(make: Callable[..., Scores]) -> None:
    world = World(80)
    whole = make(world, np.arange(80))
    chosen = np.random.default_rng(3).integers(0, 80, 50)

    part = whole.subset(chosen)
    assert part.examples == 50
    assert part.values() == pytest.approx(make(world, chosen).values())
    assert part.subset([3, 3, 7]).values() == pytest.approx(make(world, chosen[[3, 3, 7]]).values())
    assert whole.subset([]).examples == 0
    assert set(whole.subset([]).values()) == set(whole.values())


@every_kind
def test_resampling_at_once_equals_resampling_one_by_one(make: Callable[..., Scores]) -> None:
    scores = make(World(40), np.arange(40))
    at_once = scores.resampled(resamples=25, seed=5)
    one_by_one = Scores.resampled(scores, resamples=25, seed=5)

    assert at_once.keys() == scores.values().keys()
    for key, values_R in at_once.items():
        assert values_R.shape == (25,)
        np.testing.assert_allclose(values_R, one_by_one[key], atol=1e-12)


@every_kind
def test_intervals_hold_the_value_and_come_again_with_the_seed(make: Callable[..., Scores]) -> None:
    scores = make(World(120), np.arange(120))
    intervals = scores.intervals(resamples=200, seed=1)

    assert intervals == scores.intervals(resamples=200, seed=1)
    assert intervals != scores.intervals(resamples=200, seed=2)
    for key, value in scores.values().items():
        if key not in ("best_threshold", "best_threshold_accuracy"):  # a maximum is biased under resampling
            assert intervals[key][0] - 1e-9 <= value <= intervals[key][1] + 1e-9, key


@every_kind
def test_nothing_has_no_interval_and_one_example_has_a_point(make: Callable[..., Scores]) -> None:
    scores = make(World(30), np.arange(30))
    assert scores.subset([]).intervals() == {}
    single = scores.subset([4])
    for key, (low, high) in single.intervals(resamples=20).items():
        assert low == high == single.values()[key]


def test_intervals_shrink_with_the_root_of_the_examples() -> None:
    widths = []
    for examples in (100, 1600):
        low, high = MAKERS["classification"](World(examples), np.arange(examples)).intervals()["accuracy"]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    scores = classification_scores(["a"] * 400, ["a"] * 320 + ["b"] * 80, ["a", "b"])
    low, high = scores.intervals(resamples=4000)["accuracy"]
    expected = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert (0.8 - low, high - 0.8) == pytest.approx((expected, expected), rel=0.12)


def test_level_widens_the_interval() -> None:
    scores = MAKERS["spans"](World(100), np.arange(100))
    narrow, wide = (scores.intervals(level=level)["f1"] for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_tally_counts_what_a_table_of_counts_does() -> None:
    rows = [[0, 2, 2], [], [1], [2, 0]]
    dense = np.array([[1, 0, 2], [0, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=np.float64)

    def summary(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {str(i): sums[..., i] for i in range(3)}

    tally, table = TallyScores.of(rows, 3, summary), CountScores(dense, summary)
    for chosen in ([0, 1, 2, 3], [3, 0, 0], [1], []):
        assert tally.subset(chosen).values() == table.subset(chosen).values()
    for key, values_R in tally.resampled(resamples=50).items():
        np.testing.assert_array_equal(values_R, table.resampled(resamples=50)[key])


def test_ratio_divides_elementwise_and_by_zero() -> None:
    assert ratio([1.0, 2.0, 0.0], [2.0, 0.0, 0.0]).tolist() == [0.5, 0.0, 0.0]
    assert ratio(3, 4) == 0.75


def test_paired_difference_of_a_model_with_itself() -> None:
    scores = MAKERS["classification"](World(60), np.arange(60))
    assert paired_difference(scores, scores, "macro_f1", resamples=100) == (0.0, 0.0, 0.0, 1.0)


def test_paired_difference_sees_what_unpaired_intervals_hide() -> None:
    gold = ["a", "b"] * 200
    worse = [label if i % 5 else "c" for i, label in enumerate(gold)]
    better = [label if i % 5 or i % 25 == 0 else "c" for i, label in enumerate(gold)]
    left, right = (classification_scores(gold, column, LABELS) for column in (better, worse))

    assert left.intervals()["accuracy"][0] < right.intervals()["accuracy"][1]
    found = paired_difference(left, right, "accuracy", resamples=999)
    assert found.difference == pytest.approx(16 / 400)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value == pytest.approx(2 / 1000)
    assert found == paired_difference(left, right, "accuracy", resamples=999)

    other_way = paired_difference(right, left, "accuracy", resamples=999)
    assert other_way.difference == pytest.approx(-found.difference)
    assert (other_way.low, other_way.high) == pytest.approx((-found.high, -found.low))
    assert other_way.p_value == found.p_value


def test_p_values_of_equally_good_models_are_spread_out() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(100):
        left, right = (language_model_scores(rng.random(80), np.ones(80), np.zeros(80)) for _ in range(2))
        p_values.append(paired_difference(left, right, "loss", resamples=100).p_value)
    assert 0 <= np.mean(np.array(p_values) < 0.1) <= 0.2
    assert 0.4 < np.mean(p_values) < 0.62


def test_a_difference_that_is_no_number_is_no_evidence() -> None:
    diverged = language_model_scores([np.nan, 1.0, 1.0], [1, 1, 1], [1, 1, 1])
    other = language_model_scores([1.0, 1.0, 1.0], [1, 1, 1], [1, 1, 1])
    found = paired_difference(diverged, other, "loss", resamples=100)
    assert np.isnan(found.difference) and found.p_value > 0.5


def test_paired_difference_needs_the_same_examples() -> None:
    left, right = (MAKERS["retrieval"](World(n), np.arange(n)) for n in (10, 11))
    with pytest.raises(ValueError, match="got 10 and 11"):
        paired_difference(left, right, "mrr")
    empty = left.subset([])
    assert paired_difference(empty, empty, "mrr") == (0.0, 0.0, 0.0, 1.0)
