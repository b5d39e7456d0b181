"""A few repetitions of one experiment: mean, deviation, interval, and Welch's test of two experiments.

Student's t distribution is integrated here, so that no result needs scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


class Repetitions(NamedTuple):
    """What repetitions of one experiment say about the next one."""

    mean: float
    deviation: float | None
    """Of the sample (n - 1); None for a single repetition."""
    low: float | None
    """Bounds of the 95 % t-interval of the mean; None for a single repetition."""
    high: float | None


def repetitions(values: Sequence[float], *, level: float = 0.95) -> Repetitions:
    """Mean, deviation and mean ± t s / sqrt(n) (Student 1908), t with n - 1 degrees of freedom.

    Args:
        values: one of each repetition; at least one.
        level: of the interval.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no repetitions to sum up")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Repetitions(mean, None, None, None)
    deviation = math.sqrt(_variance(values))
    reach = t_quantile(level, len(values) - 1) * deviation / math.sqrt(len(values))
    return Repetitions(mean, deviation, mean - reach, mean + reach)


def welch_p_value(left: Sequence[float], right: Sequence[float]) -> float | None:
    """How easily repetitions that differ this much come from experiments with the same mean; two-sided.

    t = (x - y) / sqrt(s_x²/n + s_y²/m), with the degrees of freedom of Welch (1947), because two experiments need
    not scatter equally.

    Returns:
        None with fewer than two repetitions on a side, or where neither side scatters.
    """
    if len(left) < 2 or len(right) < 2:
        return None
    one, other = _variance(left) / len(left), _variance(right) / len(right)
    if one + other == 0:
        return None
    freedom = (one + other) ** 2 / (one**2 / (len(left) - 1) + other**2 / (len(right) - 1))
    difference = math.fsum(left) / len(left) - math.fsum(right) / len(right)
    return t_tails(difference / math.sqrt(one + other), freedom)


def t_tails(t: float, freedom: float) -> float:
    """The probability that Student's t lies as far from 0 as ``t``, on either side.

    With t = sqrt(v) / tan(u²) the density becomes 2u sin(u²)^(v - 1), which is smooth, and the tail begins at u = 0.

    Args:
        freedom: v, at least 1; need not be whole.
    """
    half = math.sqrt(math.atan2(math.sqrt(freedom), abs(t))) / 2
    u = half * (1 + _NODES)
    area = half * float(_WEIGHTS @ (2 * u * np.sin(u**2) ** (freedom - 1)))
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return min(1.0, 2 * math.exp(scale) * area)


def t_quantile(level: float, freedom: float) -> float:
    """The t for which Student's distribution holds ``level`` of its mass between -t and t."""
    low, high = 0.0, 1.0
    while t_tails(high, freedom) > 1 - level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that one below 0.05 in any of them is an error in 5 % of all cases.

    The smallest of m is multiplied by m, the next by m - 1 and so on, and none may fall below the one before it
    (Holm 1979, https://www.jstor.org/stable/4615733).

    Returns:
        in the order given.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
