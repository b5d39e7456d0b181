"""Calibration by hand and against a brute-force reading of the definition."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from wenmai.metrics.calibration import calibration


def test_by_hand() -> None:
    found = calibration([0.95, 0.85, 0.85, 0.3], [True, True, False, True], bins=10)

    assert found["ece"] == pytest.approx((1 * 0.05 + 2 * 0.35 + 1 * 0.7) / 4)
    assert found["mce"] == pytest.approx(0.7)
    assert found["brier"] == pytest.approx((0.05**2 + 0.15**2 + 0.85**2 + 0.7**2) / 4)
    assert found["bins"][8] == {
        "low": 0.8, "high": 0.9, "count": 2, "confidence": pytest.approx(0.85), "accuracy": 0.5,
    }  # fmt: skip
    assert found["bins"][2]["count"] == 1, "bins are open below and closed above: 0.3 lies in (0.2, 0.3]"
    assert [part["count"] for part in found["bins"]] == [0, 0, 1, 0, 0, 0, 0, 0, 2, 1]


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_brute_force(bins: int) -> None:
    rng = np.random.default_rng(bins)
    confidence = rng.random(400)
    right = rng.random(400) < confidence**2
    found = calibration(confidence, right, bins)

    gaps = []
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        gaps.append((inside.sum(), abs(right[inside].mean() - confidence[inside].mean())))
    assert found["ece"] == pytest.approx(sum(count * gap for count, gap in gaps) / 400)
    assert found["mce"] == pytest.approx(max(gap for _, gap in gaps))
    assert found["brier"] == pytest.approx(brier_score_loss(right, confidence))
    assert sum(part["count"] for part in found["bins"]) == 400


def test_edges_and_nothing() -> None:
    assert [
        part["count"] for part in calibration([0.0, 1.0, np.float32(1) + 1e-7], [0, 1, 1], 2)["bins"]
    ] == [1, 2]
    assert calibration([0.0, 1.0], [False, True])["ece"] == 0.0

    empty = calibration([], [])
    assert (empty["ece"], empty["mce"], empty["brier"]) == (0.0, 0.0, 0.0)
    assert len(empty["bins"]) == 10
    json.dumps(empty, allow_nan=False)


@pytest.mark.parametrize("impossible", [1.5, -0.2, float("nan")])
def test_what_is_no_probability_is_refused(impossible: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        calibration([0.5, impossible], [True, True])
