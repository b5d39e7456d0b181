"""Classification of few examples by contrast (SetFit, Tunstall et al. 2022): pairs teach more than their labels.

First the encoder learns that texts of one label are near each other and others are not, from all pairs of a step. Then,
whenever the model is evaluated or saved, a logistic regression is fitted to the vectors of the training set. For texts
and for pairs of texts; a long text is read in overlapping windows, a long pair is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.heads.head import Head
from wenmai.heads.similar_rows import SimilarRowsHead
from wenmai.tasks.labelled_text import LabelledText, LabelledTextTask, labels_among
from wenmai.tasks.task import TaskConfig
from wenmai.tasks.text_matching import pair_overflow, pair_row
from wenmai.tasks.windows import window_rows


class ContrastiveClassificationConfig(TaskConfig):
    name: Literal["contrastive_classification"] = "contrastive_classification"
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to one vector; last is for decoders"
    )
    inverse_regularization: float = Field(
        default=1.0, gt=0, description="C of the logistic regression: the smaller, the smaller its weights"
    )
    window_overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")


class ContrastiveClassification(LabelledTextTask[ContrastiveClassificationConfig]):
    name = "contrastive_classification"
    Config = ContrastiveClassificationConfig

    @classmethod
    def collect_labels(
        cls, config: ContrastiveClassificationConfig, examples: Iterable[LabelledText]
    ) -> list[str]:
        return labels_among(examples, cls.name)

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

    def lost_labels(self, example: LabelledText, tokenizer: Tokenizer) -> list[str]:
        if example.text_pair is None:
            return []
        return pair_overflow(example.text, example.text_pair, tokenizer, max_length=self.config.max_length)
