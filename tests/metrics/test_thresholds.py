"""The chosen threshold against all that could be chosen."""

from __future__ import annotations

import numpy as np
import pytest

from wenmai.metrics.thresholds import best_threshold


def worth(threshold: float, score: np.ndarray, above: np.ndarray, below: np.ndarray) -> float:
    return float(np.where(score > threshold, above, below).sum())


def test_no_other_threshold_is_worth_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = rng.integers(1, 9)
        score = rng.integers(-4, 5, size) / 2  # many ties
        above, below = rng.random(size).round(1), rng.random(size).round(1)
        chosen = best_threshold(score, above, below)
        others = [*score, *(score - 1e-9), *(score + 1e-9), -99.0, 99.0]
        best = max(worth(other, score, above, below) for other in others)
        assert worth(chosen, score, above, below) == pytest.approx(best)
        if worth(0.0, score, above, below) == pytest.approx(best, abs=1e-12):
            assert worth(chosen, score, above, below) == pytest.approx(worth(0.0, score, above, below))


def test_zero_is_kept_if_nothing_is_better_and_the_middle_taken_if_something_is() -> None:
    assert best_threshold([-3.0, 3.0], [0, 1], [1, 0]) == 0.0
    assert best_threshold([1.0, 3.0], [0, 1], [1, 0]) == 2.0
    assert best_threshold([1.0, 3.0], [0, 0], [1, 1]) == 4.0
    assert best_threshold([-1.0, -3.0], [1, 1], [0, 0]) == -4.0
    assert best_threshold([], [], []) == 0.0
