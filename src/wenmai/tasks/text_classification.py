"""Text classification: one label a text, or any number of labels.

A text longer than ``max_length`` is read in overlapping windows, or cut. In training each window carries the text's
labels; at prediction the windows' answers become one (:mod:`wenmai.tasks.windows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.classification import ClassificationHead
from wenmai.heads.cross_entropy import refuse_both
from wenmai.heads.head import Head
from wenmai.metrics.classification import classification_scores, multilabel_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.auxiliary_lm import DESCRIPTION, with_language_model
from wenmai.tasks.labels import (
    FocalGamma,
    LabelSmoothing,
    as_label,
    label_confidences,
    label_confusion,
    label_prediction,
    label_scores,
    shown,
)
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.windows import (
    Truncation,
    WindowPooling,
    pooled_windows,
    room_of,
    truncated,
    window_rows,
)


class TextClassificationExample(Example):
    """``{"text", "label"}`` or ``{"text", "labels": [...]}``."""

    text: str
    label: str | None = None
    labels: tuple[str, ...] | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _label(cls, value: object) -> object:
        return as_label(value)

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        return tuple(as_label(item) for item in value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise ValueError("has both 'label' and 'labels': give one label, or a list of labels")
        return self

    @property
    def labelled(self) -> bool:
        return self.label is not None or self.labels is not None

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def all_labels(self) -> tuple[str, ...]:
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)


class TextClassificationConfig(TaskConfig):
    name: Literal["text_classification"] = "text_classification"
    multi_label: bool = Field(
        default=False, description="any number of labels a text, each with its own threshold test"
    )
    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="multi_label: probability from which a label is given"
    )
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to one vector; last is for decoders"
    )
    auxiliary_lm: float = Field(default=0.0, ge=0, description=DESCRIPTION)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: LabelSmoothing = 0.0
    focal_gamma: FocalGamma = 0.0
    long_text: Literal["windows", "truncate"] = Field(
        default="windows", description="read all of a long text in windows, or only max_length tokens of it"
    )
    window_overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")
    window_pooling: WindowPooling = Field(
        default="mean",
        description="windows to one answer: mean of their logits, weighted by their tokens; the largest logit of each "
        "label; or the mean of their probabilities",
    )
    truncation: Truncation = Field(
        default="head",
        description="what long_text: truncate keeps; head_tail: a quarter from the beginning, the rest from the end",
    )

    @model_validator(mode="after")
    def _smoothed_or_focal(self) -> Self:
        refuse_both(self.label_smoothing, self.focal_gamma)
        return self


class TextClassification(Task[TextClassificationExample, TextClassificationConfig]):
    name = "text_classification"
    Example = TextClassificationExample
    Config = TextClassificationConfig

    def __init__(self, config: TextClassificationConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.primary_metric = "f1" if config.multi_label else "accuracy"

    @classmethod
    def collect_labels(
        cls, config: TextClassificationConfig, examples: Iterable[TextClassificationExample]
    ) -> list[str]:
        labels = sorted({label for example in examples for label in example.all_labels})
        if len(labels) < 2 and not config.multi_label:
            raise UserError(
                f"text_classification needs at least two labels, the training set has {labels}: "
                "add examples of the other classes"
            )
        if not labels:
            raise UserError(
                "text_classification needs labels, the training set has none: check the data's format and columns"
            )
        return labels

    def label_problems(self, example: TextClassificationExample) -> list[str]:
        problems = [
            f"label {label!r} does not occur in the training set, which has {shown(self.labels)}"
            for label in example.all_labels
            if label not in self.label_ids
        ]
        if not self.config.multi_label and example.labels is not None and len(example.labels) != 1:
            problems.append(
                f"has {len(example.labels)} labels: set task.multi_label: true, or give one 'label'"
            )
        return problems

    def as_example(self, item: Any) -> TextClassificationExample:
        return TextClassificationExample(**text_record(item, self.name))

    def featurize(self, example: TextClassificationExample, tokenizer: Tokenizer) -> list[Row]:
        encoding = tokenizer.encode(example.text)
        if self.config.long_text == "truncate":
            encoding = truncated(encoding, self._room(tokenizer), self.config.truncation)
        rows = window_rows(
            encoding,
            tokenizer,
            max_length=self.config.max_length,
            overlap=self.config.window_overlap,
        )
        if example.labelled:
            ids = [self.label_ids[label] for label in example.all_labels if label in self.label_ids]
            for row in rows:
                if self.config.multi_label:
                    row.targets["labels"] = np.array(ids, dtype=np.int64).reshape(-1, 1)
                elif ids:
                    row.targets["label"] = ids[0]
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        head = ClassificationHead(
            backbone.hidden_size,
            len(self.labels),
            pooling=self.config.pooling,
            dropout=self.config.dropout,
            multi_label=self.config.multi_label,
            label_smoothing=self.config.label_smoothing,
            focal_gamma=self.config.focal_gamma,
        )
        return with_language_model(head, backbone, self.config.auxiliary_lm)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: TextClassificationExample
    ) -> Prediction:
        logits_L = pooled_windows(
            [out["logits"] for out in outputs],
            rows,
            self.config.window_pooling,
            one_label=not self.config.multi_label,
        )
        if not self.config.multi_label:
            return {"text": example.text, **label_prediction(logits_L, self.labels)}
        probabilities_L = 1 / (1 + np.exp(-logits_L))
        chosen = [i for i in np.argsort(-probabilities_L) if probabilities_L[i] >= self.config.threshold]
        return {
            "text": example.text,
            "labels": [self.labels[i] for i in chosen],
            "scores": label_scores(probabilities_L, self.labels),
        }

    def score(
        self, examples: Sequence[TextClassificationExample], predictions: Sequence[Prediction]
    ) -> Scores:
        if self.config.multi_label:
            gold = [example.all_labels for example in examples]
            return multilabel_scores(gold, [p["labels"] for p in predictions], self.labels)
        return classification_scores(
            [example.all_labels[0] for example in examples], [p["label"] for p in predictions], self.labels
        )

    def confusion(
        self, examples: Sequence[TextClassificationExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        if self.config.multi_label:
            return None
        return label_confusion([example.all_labels[0] for example in examples], predictions, self.labels)

    def confidences(
        self, examples: Sequence[TextClassificationExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        if self.config.multi_label:
            return None
        return label_confidences([example.all_labels[0] for example in examples], predictions)

    def lost_labels(self, example: TextClassificationExample, tokenizer: Tokenizer) -> list[str]:
        if self.config.long_text == "windows":
            return []
        tokens, room = len(tokenizer.encode(example.text)), self._room(tokenizer)
        place = {"head": "at the end", "tail": "at the beginning", "head_tail": "in the middle"}
        lost = f"{tokens - room} of {tokens} tokens are cut off {place[self.config.truncation]}"
        return [lost] if tokens > room else []

    def _room(self, tokenizer: Tokenizer) -> int:
        """Tokens of the text that a row holds."""
        return room_of(tokenizer, self.config.max_length)
