"""Whether a model is as often right as it says.

Shape letters: N predictions.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from wenmai.metrics.scores import ratio

ROUNDING = 1e-3
"""How far single-precision probabilities, summed over long sequences, may lie outside [0, 1]."""


class Bin(TypedDict):
    """Predictions with a confidence in ``(low, high]``; the first bin holds 0 too."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean; 0.0 in an empty bin."""
    accuracy: float
    """Share that is right; 0.0 in an empty bin."""


class Calibration(TypedDict):
    """What :func:`calibration` finds; JSON."""

    ece: float
    mce: float
    brier: float
    bins: list[Bin]


def calibration(confidence_N: ArrayLike, right_N: ArrayLike, bins: int = 10) -> Calibration:
    """Expected and maximum calibration error, Brier score and the bins of a reliability diagram.

    With bins B_m of equal width (Guo et al. 2017, https://arxiv.org/abs/1706.04599):

    * ``ece`` = sum over m of |B_m| / N · |accuracy(B_m) - confidence(B_m)|
    * ``mce`` = the largest |accuracy(B_m) - confidence(B_m)| of a bin that is not empty
    * ``brier`` = mean of (confidence - right)² (Brier 1950), of the predicted class only

    All are 0.0 without predictions; lower is better.

    Args:
        confidence_N: probability of each prediction, within [0, 1].
        right_N: whether it is right.
        bins: their number.

    Raises:
        ValueError: a confidence is no probability.
    """
    confidence = np.asarray(confidence_N, dtype=np.float64)
    right = np.asarray(right_N, dtype=np.float64)
    outside = ~((confidence >= -ROUNDING) & (confidence <= 1 + ROUNDING))
    if outside.any():
        raise ValueError(f"confidences are probabilities from 0 to 1, got {confidence[outside][0]}")

    bounds = np.arange(bins + 1) / bins
    member_N = np.searchsorted(bounds[1:-1], confidence, side="left")
    count = np.bincount(member_N, minlength=bins)
    mean = ratio(np.bincount(member_N, weights=confidence, minlength=bins), count)
    accuracy = ratio(np.bincount(member_N, weights=right, minlength=bins), count)
    gap = np.abs(accuracy - mean)
    return {
        "ece": float(ratio((count * gap).sum(), len(confidence))),
        "mce": float(gap.max()),
        "brier": float(ratio(((confidence - right) ** 2).sum(), len(confidence))),
        "bins": [
            {
                "low": float(bounds[i]),
                "high": float(bounds[i + 1]),
                "count": int(count[i]),
                "confidence": float(mean[i]),
                "accuracy": float(accuracy[i]),
            }
            for i in range(bins)
        ],
    }
