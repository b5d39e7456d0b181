"""What the tasks that learn from raw text share: keys of their configuration, and what they say of a text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from wenmai.tasks.task import Prediction, RowOutputs

Pack = Annotated[
    bool,
    Field(
        description="train on rows of max_length, joined from consecutive texts; dev and test stay text by text"
    ),
]
VocabularySmoothing = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="share of the target that is spread evenly over the vocabulary, in training only",
    ),
]


def foretold(outputs: Sequence[RowOutputs], text: str | None) -> Prediction:
    """``loss``, the sum of -log p over the ``tokens`` that count, and how many of them the model had ``right``.

    Args:
        outputs: per row of a text ``loss``, ``counted`` and ``right``, summed over its tokens here.
    """
    return {
        "text": text,
        "loss": round(float(sum(out["loss"].sum() for out in outputs)), 6),
        "tokens": int(sum(out["counted"].sum() for out in outputs)),
        "right": int(sum(out["right"].sum() for out in outputs)),
    }
