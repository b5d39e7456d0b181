"""What tasks with one label an example share: from logits to a prediction, and from predictions to the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wenmai.metrics.classification import confusion_matrix
from wenmai.tasks.task import Prediction

SHOWN_LABELS = 20

LabelSmoothing = Annotated[
    float, Field(ge=0, lt=1, description="share of the target that is spread evenly over all labels")
]
FocalGamma = Annotated[
    float,
    Field(
        ge=0,
        description="above 0 (2 is usual): what is nearly right counts less, for labels of unequal frequency",
    ),
]
"""Keys of the configuration."""


def as_label(value: object) -> object:
    """Class numbers are names too: 1 -> "1"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def softmax(logits_L: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents = np.exp(logits_L - logits_L.max())
    probabilities: NDArray[np.float64] = exponents / exponents.sum()
    return probabilities


def label_prediction(logits_L: NDArray[np.float64], labels: Sequence[str]) -> Prediction:
    """The best label, its probability as ``score``, and those of all labels as ``scores``."""
    probabilities = softmax(logits_L)
    best = int(probabilities.argmax())
    return {
        "label": labels[best],
        "score": round(float(probabilities[best]), 6),
        "scores": label_scores(probabilities, labels),
    }


def label_scores(probabilities_L: NDArray[np.float64], labels: Sequence[str]) -> dict[str, float]:
    return {label: round(float(value), 6) for label, value in zip(labels, probabilities_L, strict=True)}


def label_confusion(
    gold: Sequence[str], predictions: Sequence[Prediction], labels: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Names and counts (gold, predicted)."""
    return list(labels), confusion_matrix(gold, [p["label"] for p in predictions], labels)


def label_confidences(
    gold: Sequence[str], predictions: Sequence[Prediction]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of the predicted labels, and whether they are right."""
    right = [p["label"] == label for label, p in zip(gold, predictions, strict=True)]
    return np.array([p["score"] for p in predictions]), np.array(right, dtype=bool)


def shown(labels: Sequence[str]) -> str:
    """Labels for an error message."""
    more = len(labels) - SHOWN_LABELS
    return ", ".join(labels[:SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
