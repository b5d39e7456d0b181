"""Text matching: two texts in one row (a cross-encoder) to a class or to a number.

Similarity, paraphrase and natural language inference. Long pairs are cut from the end of the longer text, because a
window over one half of a pair has no label of its own; what is cut off is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.classification import ClassificationHead, RegressionHead
from wenmai.heads.cross_entropy import refuse_both
from wenmai.heads.head import Head
from wenmai.metrics.classification import classification_scores
from wenmai.metrics.ranking import correlation_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.auxiliary_lm import DESCRIPTION, with_language_model
from wenmai.tasks.labels import (
    FocalGamma,
    LabelSmoothing,
    as_label,
    label_confidences,
    label_confusion,
    label_prediction,
)
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig


class TextMatchingExample(Example):
    """``{"text", "text_pair", "label"}``; a number as label means regression."""

    text: str
    text_pair: str
    label: str | float | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _label(cls, value: object) -> object:
        return as_label(value)

    @property
    def labelled(self) -> bool:
        return self.label is not None

    @property
    def length(self) -> int:
        return len(self.text) + len(self.text_pair)

    @property
    def number(self) -> float | None:
        """The label as a number, None if it is not one."""
        try:
            return None if self.label is None else float(self.label)
        except ValueError:
            return None


class TextMatchingConfig(TaskConfig):
    name: Literal["text_matching"] = "text_matching"
    objective: Literal["classification", "regression"] = Field(
        default="classification", description="regression: labels are numbers, scored by rank correlation"
    )
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to one vector; last is for decoders"
    )
    auxiliary_lm: float = Field(default=0.0, ge=0, description=DESCRIPTION)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: LabelSmoothing = 0.0
    focal_gamma: FocalGamma = 0.0

    @model_validator(mode="after")
    def _losses_of_the_objective(self) -> Self:
        refuse_both(self.label_smoothing, self.focal_gamma)
        for key in ("label_smoothing", "focal_gamma"):
            if getattr(self, key) and self.objective == "regression":
                raise ValueError(f"{key} needs objective: classification; regression has no labels")
        return self


class TextMatching(Task[TextMatchingExample, TextMatchingConfig]):
    name = "text_matching"
    Example = TextMatchingExample
    Config = TextMatchingConfig

    def __init__(self, config: TextMatchingConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.primary_metric = "spearman" if self.regression else "accuracy"

    @property
    def regression(self) -> bool:
        return self.config.objective == "regression"

    @classmethod
    def collect_labels(cls, config: TextMatchingConfig, examples: Iterable[TextMatchingExample]) -> list[str]:
        if config.objective == "regression":
            return []
        labels = sorted({str(example.label) for example in examples if example.labelled})
        if len(labels) < 2:
            raise UserError(
                f"text_matching needs at least two labels, the training set has {labels}: add examples of the "
                "other classes, or set task.objective: regression"
            )
        return labels

    def label_problems(self, example: TextMatchingExample) -> list[str]:
        if not example.labelled:
            return []
        if self.regression:
            if example.number is None or not np.isfinite(example.number):
                return [f"label {example.label!r} is not a number: task.objective is regression"]
            return []
        if str(example.label) not in self.label_ids:
            return [f"label {example.label!r} does not occur in the training set, which has {self.labels}"]
        return []

    def as_example(self, item: Any) -> TextMatchingExample:
        if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            return TextMatchingExample(text=item[0], text_pair=item[1])
        if isinstance(item, Mapping) and {"text", "text_pair"} <= item.keys():
            return TextMatchingExample(text=item["text"], text_pair=item["text_pair"], id=item.get("id"))
        raise UserError(
            f"text_matching predicts for a pair of texts or {{'text': ..., 'text_pair': ...}}, not for {item!r}"
        )

    def featurize(self, example: TextMatchingExample, tokenizer: Tokenizer) -> list[Row]:
        first, second = tokenizer.encode_batch([example.text, example.text_pair])
        row = pair_row(first, second, tokenizer, max_length=self.config.max_length)
        if example.labelled:
            if self.regression:
                row.targets["score"] = float(example.number or 0.0)
            elif str(example.label) in self.label_ids:
                row.targets["label"] = self.label_ids[str(example.label)]
        return [row]

    def build_head(self, backbone: Backbone) -> Head:
        if self.regression:
            number = RegressionHead(
                backbone.hidden_size, pooling=self.config.pooling, dropout=self.config.dropout
            )
            return with_language_model(number, backbone, self.config.auxiliary_lm)
        head = ClassificationHead(
            backbone.hidden_size,
            len(self.labels),
            pooling=self.config.pooling,
            dropout=self.config.dropout,
            label_smoothing=self.config.label_smoothing,
            focal_gamma=self.config.focal_gamma,
        )
        return with_language_model(head, backbone, self.config.auxiliary_lm)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: TextMatchingExample
    ) -> Prediction:
        prediction: Prediction = {"text": example.text, "text_pair": example.text_pair}
        if self.regression:
            return {**prediction, "value": round(float(outputs[0]["score"]), 6)}
        return {**prediction, **label_prediction(outputs[0]["logits"].astype(np.float64), self.labels)}

    def score(self, examples: Sequence[TextMatchingExample], predictions: Sequence[Prediction]) -> Scores:
        if self.regression:
            gold = np.array([float(example.number or 0.0) for example in examples])
            return correlation_scores(gold, np.array([float(p["value"]) for p in predictions]))
        return classification_scores(
            [str(example.label) for example in examples], [p["label"] for p in predictions], self.labels
        )

    def confusion(
        self, examples: Sequence[TextMatchingExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        if self.regression:
            return None
        return label_confusion([str(example.label) for example in examples], predictions, self.labels)

    def confidences(
        self, examples: Sequence[TextMatchingExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        if self.regression:
            return None
        return label_confidences([str(example.label) for example in examples], predictions)

    def lost_labels(self, example: TextMatchingExample, tokenizer: Tokenizer) -> list[str]:
        return pair_overflow(example.text, example.text_pair, tokenizer, max_length=self.config.max_length)


def pair_row(first: Encoding, second: Encoding, tokenizer: Tokenizer, *, max_length: int) -> Row:
    """A pair in one row, cut to ``max_length`` tokens by shortening the longer text first."""
    template = tokenizer.pair
    room = max_length - specials_of_pair(tokenizer)
    keep_first, keep_second = kept_of_pair(len(first), len(second), room)
    first, second = first.slice(0, keep_first), second.slice(0, keep_second)
    before, between, after = template.before, template.between, template.after
    type_before, type_first, type_between, type_second, type_after = template.types
    return Row(
        inputs={
            "input_ids": [*before, *first.ids, *between, *second.ids, *after],
            "token_type_ids": [
                *type_before,
                *[type_first] * len(first),
                *type_between,
                *[type_second] * len(second),
                *type_after,
            ],
        },
        content=(len(before), len(before) + len(first)),
    )


def kept_of_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts a row keeps, the longer one being shortened first.

    Args:
        first, second: tokens of the texts.
        room: for both.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def pair_overflow(text: str, text_pair: str, tokenizer: Tokenizer, *, max_length: int) -> list[str]:
    """What :func:`pair_row` cuts off, as a sentence."""
    first, second = tokenizer.encode_batch([text, text_pair])
    over = len(first) + len(second) + specials_of_pair(tokenizer) - max_length
    return [f"{over} of {len(first) + len(second)} tokens of the pair are cut off"] if over > 0 else []


def specials_of_pair(tokenizer: Tokenizer) -> int:
    """How many tokens of a row of two texts are special."""
    template = tokenizer.pair
    return len(template.before) + len(template.between) + len(template.after)
