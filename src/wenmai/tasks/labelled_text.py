"""The record of tasks that learn one label of a text or of a pair, and what they share in reading and scoring."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.metrics.classification import classification_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.labels import as_label, label_confidences, label_confusion, label_prediction, shown
from wenmai.tasks.task import C, Example, Prediction, RowOutputs, Task
from wenmai.tasks.windows import pooled_windows


class LabelledText(Example):
    """``{"text", "label"}``, for pairs ``{"text", "text_pair", "label"}``."""

    text: str
    text_pair: str | None = None
    label: str | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _label(cls, value: object) -> object:
        return as_label(value)

    @property
    def labelled(self) -> bool:
        return self.label is not None

    @property
    def length(self) -> int:
        return len(self.text) + len(self.text_pair or "")

    @property
    def texts(self) -> Prediction:
        """What a prediction begins with."""
        return {"text": self.text, **({} if self.text_pair is None else {"text_pair": self.text_pair})}


def labelled_text(item: Any, task: str) -> LabelledText:
    """A text, a pair or a record without its label, to predict for.

    Raises:
        UserError: ``item`` is none of these.
    """
    if isinstance(item, str):
        return LabelledText(text=item)
    if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item):
        return LabelledText(text=item[0], text_pair=item[1])
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):
        return LabelledText(text=item["text"], text_pair=item.get("text_pair"), id=item.get("id"))
    raise UserError(f"{task} predicts for a text, a pair of texts or {{'text': ...}}, not for {item!r}")


def labels_among(examples: Iterable[LabelledText], task: str, more: Iterable[str] = ()) -> list[str]:
    """The labels, sorted.

    Args:
        more: labels that no example has.

    Raises:
        UserError: there are fewer than two.
    """
    labels = sorted({example.label for example in examples if example.label is not None} | {*more})
    if len(labels) < 2:
        raise UserError(
            f"{task} needs at least two labels, the training set has {labels}: add examples of the other classes"
        )
    return labels


def unknown_label(example: LabelledText, labels: Sequence[str]) -> list[str]:
    """What is wrong with the example's label, as a sentence."""
    if example.label is None or example.label in labels:
        return []
    return [f"label {example.label!r} does not occur in the training set, which has {shown(labels)}"]


class LabelledTextTask(Task[LabelledText, C], ABC):
    """What comes back and how it is scored, where a head's ``logits`` (L,) are of the labels."""

    primary_metric = "accuracy"
    Example = LabelledText

    def label_problems(self, example: LabelledText) -> list[str]:
        return unknown_label(example, self.labels)

    def as_example(self, item: Any) -> LabelledText:
        return labelled_text(item, self.name)

    def decode(self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: LabelledText) -> Prediction:
        logits_L = pooled_windows([out["logits"] for out in outputs], rows, "mean", one_label=True)
        return {**example.texts, **label_prediction(logits_L, self.labels)}

    def score(self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]) -> Scores:
        return classification_scores(_gold(examples), [p["label"] for p in predictions], self.labels)

    def confusion(
        self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        return label_confusion(_gold(examples), predictions, self.labels)

    def confidences(
        self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        return label_confidences(_gold(examples), predictions)


def _gold(examples: Sequence[LabelledText]) -> list[str]:
    return [str(example.label) for example in examples]
