"""Means over seeds, against numbers worked out by hand and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wenmai.metrics.repetitions import holm, repetitions, t_quantile, t_tails, welch_p_value

scores = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8)


def test_three_repetitions_by_hand() -> None:
    found = repetitions([0.8, 0.9, 1.0])
    assert found.mean == pytest.approx(0.9)
    assert found.deviation == pytest.approx(0.1)
    # 4.30265 is the 97.5 % quantile with two degrees of freedom in every table
    assert found.low == pytest.approx(0.9 - 4.30265 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.high == pytest.approx(0.9 + 4.30265 * 0.1 / math.sqrt(3), abs=1e-6)


def test_one_repetition_says_nothing_about_the_next() -> None:
    assert repetitions([0.7]) == (0.7, None, None, None)
    with pytest.raises(ValueError, match="no repetitions"):
        repetitions([])


def test_equal_repetitions() -> None:
    assert repetitions([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.0, 0.1, 0.1))


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4, 9.3, 30, 200, 5000])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 8.0])
def test_tails_are_those_of_scipy(t: float, freedom: float) -> None:
    assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-8)
    assert t_tails(-t, freedom) == t_tails(t, freedom)


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 10, 100])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_quantiles_are_those_of_scipy(level: float, freedom: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


@given(scores)
def test_the_interval_is_that_of_scipy(values: list[float]) -> None:
    found = repetitions(values)
    assert found.deviation is not None and found.low is not None and found.high is not None
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if found.deviation > 1e-6:
        error = stats.sem(values)
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=error)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


@given(scores, scores)
def test_welch_is_that_of_scipy(left: list[float], right: list[float]) -> None:
    if min(np.ptp(left), np.ptp(right)) < 1e-4:
        return  # scipy warns of its own rounding
    expected = stats.ttest_ind(left, right, equal_var=False).pvalue
    assert welch_p_value(left, right) == pytest.approx(expected, rel=1e-6)


def test_welch_needs_scatter() -> None:
    assert welch_p_value([0.5], [0.6, 0.7]) is None
    assert welch_p_value([0.5, 0.5], [0.6, 0.6]) is None


def test_holm_by_hand() -> None:
    # sorted 0.01 x4, 0.02 x3, 0.03 x2 = 0.06 as before it, 0.5 x1
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_the_raw_values_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, raised in zip(p_values, adjusted, strict=True):
        assert raw <= raised <= 1.0
    smallest = min(p_values)
    assert adjusted[p_values.index(smallest)] == min(1.0, len(p_values) * smallest)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
