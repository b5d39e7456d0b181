"""Classification of few examples by contrast (SetFit, Tunstall et al. 2022): pairs teach more than their labels.

First the encoder learns that texts of one label are near each other and others are not, from all pairs of a step. Then,
whenever the model is evaluated or saved, a logistic regression is fitted to the vectors of the training set. For texts
and for pairs of texts; a long text is read in overlapping windows, a long pair is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.heads.head import Head
from wenmai.heads.similar_rows import SimilarRowsHead
from wenmai.metrics.classification import classification_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.labelled_text import LabelledText, gold, labelled_text, labels_among, unknown_label
from wenmai.tasks.labels import label_confidences, label_confusion, label_prediction
from wenmai.tasks.task import Prediction, RowOutputs, Task, TaskConfig
from wenmai.tasks.text_matching import pair_overflow, pair_row
from wenmai.tasks.windows import pooled_windows, window_rows


class ContrastiveClassificationConfig(TaskConfig):
    name: Literal["contrastive_classification"] = "contrastive_classification"
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to one vector; last is for decoders"
    )
    inverse_regularization: float = Field(
        default=1.0, gt=0, description="C of the logistic regression: the smaller, the smaller its weights"
    )
    window_overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")


class ContrastiveClassification(Task[LabelledText, ContrastiveClassificationConfig]):
    name = "contrastive_classification"
    primary_metric = "accuracy"
    Example = LabelledText
    Config = ContrastiveClassificationConfig

    @classmethod
    def collect_labels(
        cls, config: ContrastiveClassificationConfig, examples: Iterable[LabelledText]
    ) -> list[str]:
        return labels_among(examples, cls.name)

    def label_problems(self, example: LabelledText) -> list[str]:
        return unknown_label(example, self.labels)

    def as_example(self, item: Any) -> LabelledText:
        return labelled_text(item, self.name)

    def featurize(self, example: LabelledText, tokenizer: Tokenizer) -> list[Row]:
        text = tokenizer.encode(example.text)
        if example.text_pair is None:
            rows = window_rows(
                text, tokenizer, max_length=self.config.max_length, overlap=self.config.window_overlap
            )
        else:
            second = tokenizer.encode(example.text_pair)
            rows = [pair_row(text, second, tokenizer, max_length=self.config.max_length)]
        if example.label in self.label_ids:
            for row in rows:
                row.targets["label"] = self.label_ids[example.label]
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        return SimilarRowsHead(
            backbone.hidden_size,
            len(self.labels),
            pooling=self.config.pooling,
            inverse_regularization=self.config.inverse_regularization,
        )

    def decode(self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: LabelledText) -> Prediction:
        logits_L = pooled_windows([out["logits"] for out in outputs], rows, "mean", one_label=True)
        return {**example.texts, **label_prediction(logits_L, self.labels)}

    def score(self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]) -> Scores:
        return classification_scores(gold(examples), [p["label"] for p in predictions], self.labels)

    def confusion(
        self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        return label_confusion(gold(examples), predictions, self.labels)

    def confidences(
        self, examples: Sequence[LabelledText], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        return label_confidences(gold(examples), predictions)

    def lost_labels(self, example: LabelledText, tokenizer: Tokenizer) -> list[str]:
        if example.text_pair is None:
            return []
        return pair_overflow(example.text, example.text_pair, tokenizer, max_length=self.config.max_length)
