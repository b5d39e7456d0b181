"""Text embeddings: a text to a vector, trained by contrast.

``infonce`` pulls an anchor to its positive and away from all other texts of the step; ``cosent`` orders pairs by their
gold similarity. Texts are cut at ``max_length``: a vector stands for one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.contrastive import ContrastiveHead
from wenmai.heads.head import Head
from wenmai.metrics.ranking import correlation_scores, retrieval_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig
from wenmai.tasks.windows import window_rows

ANCHOR, POSITIVE, NEGATIVE = 0, 1, 2
RANKED_AT_ONCE = 512


class TextEmbeddingExample(Example):
    """``{"anchor", "positive", "negatives"}``, ``{"text", "text_pair", "score"}``, or to embed: ``{"text"}``."""

    anchor: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None
    score: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        triple = self.anchor is not None and self.positive is not None and self.text is None
        pair = self.text is not None and self.anchor is None and self.positive is None and not self.negatives
        if not triple and not pair:
            raise ValueError(
                "needs either 'anchor' and 'positive' (and 'negatives'), or 'text' (and 'text_pair', 'score')"
            )
        return self

    @property
    def texts(self) -> list[str]:
        given = [self.anchor, self.positive, *self.negatives, self.text, self.text_pair]
        return [text for text in given if text is not None]

    @property
    def labelled(self) -> bool:
        return self.anchor is not None or (self.text_pair is not None and self.score is not None)

    @property
    def length(self) -> int:
        return max(len(text) for text in self.texts)


class TextEmbeddingConfig(TaskConfig):
    name: Literal["text_embedding"] = "text_embedding"
    max_length: int = Field(default=128, ge=8)
    objective: Literal["infonce", "cosent"] = Field(
        default="infonce", description="infonce: anchor and positive; cosent: pairs with a score"
    )
    temperature: float = Field(default=0.05, gt=0)
    pooling: Literal["mean", "cls", "max", "last"] = "mean"
    prefix: str = Field(
        default="", description="put before every text, as the backbone was trained ('query: ')"
    )
    evaluate_on: Literal["auto", "retrieval", "similarity"] = Field(
        default="auto", description="dev and test hold anchors with positives, or pairs with a score"
    )


class TextEmbedding(Task[TextEmbeddingExample, TextEmbeddingConfig]):
    name = "text_embedding"
    Example = TextEmbeddingExample
    Config = TextEmbeddingConfig
    rows_stay_together = True

    def __init__(self, config: TextEmbeddingConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        similarity = config.evaluate_on == "similarity" or (
            config.evaluate_on == "auto" and config.objective == "cosent"
        )
        self.primary_metric = "spearman" if similarity else "mrr"

    def label_problems(self, example: TextEmbeddingExample) -> list[str]:
        if example.labelled and self.primary_metric == "spearman" and example.score is None:
            return ["has no 'score': similarity needs 'text', 'text_pair' and 'score'"]
        return []

    def as_example(self, item: Any) -> TextEmbeddingExample:
        if isinstance(item, str):
            return TextEmbeddingExample(text=item)
        if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            return TextEmbeddingExample(text=item[0], text_pair=item[1])
        if isinstance(item, Mapping) and isinstance(item.get("text"), str):
            return TextEmbeddingExample(text=item["text"], text_pair=item.get("text_pair"), id=item.get("id"))
        raise UserError(f"text_embedding embeds a text, a pair of texts or {{'text': ...}}, not {item!r}")

    def featurize(self, example: TextEmbeddingExample, tokenizer: Tokenizer) -> list[Row]:
        rows = []
        for position, text in enumerate(example.texts):
            (row, *_) = window_rows(
                tokenizer.encode(self.config.prefix + text),
                tokenizer,
                max_length=self.config.max_length,
                overlap=0,
            )
            row.targets["role"] = min(position, NEGATIVE)
            if example.score is not None:
                row.targets["score"] = float(example.score)
            rows.append(row)
        return rows

    def lost_labels(self, example: TextEmbeddingExample, tokenizer: Tokenizer) -> list[str]:
        room = self.config.max_length - len(tokenizer.single.before) - len(tokenizer.single.after)
        lengths = [len(tokenizer.encode(self.config.prefix + text)) for text in example.texts]
        return [
            f"{tokens - room} of {tokens} tokens of a text are cut off" for tokens in lengths if tokens > room
        ]

    def build_head(self, backbone: Backbone) -> Head:
        return ContrastiveHead(pooling=self.config.pooling, temperature=self.config.temperature)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: TextEmbeddingExample
    ) -> Prediction:
        vectors = [out["embedding"].astype(np.float64) for out in outputs]
        names = ("text", "text_pair") if example.text is not None else ("anchor", "positive")
        prediction: Prediction = dict(zip(names, example.texts, strict=False))
        if len(vectors) == 1:
            return {**prediction, "embedding": _rounded(vectors[0])}
        prediction["similarity"] = round(_cosine(vectors[0], vectors[1]), 6)
        for name, vector in zip(names, vectors, strict=False):
            prediction[f"{name}_embedding"] = _rounded(vector)
        return prediction

    def score(self, examples: Sequence[TextEmbeddingExample], predictions: Sequence[Prediction]) -> Scores:
        if self.primary_metric == "spearman":
            gold = np.array([float(example.score or 0.0) for example in examples])
            return correlation_scores(gold, np.array([float(p["similarity"]) for p in predictions]))
        anchors = _normal(np.array([p["anchor_embedding"] for p in predictions]))
        positives = _normal(np.array([p["positive_embedding"] for p in predictions]))
        return retrieval_scores(ranks_of_positives(anchors, positives, [p["positive"] for p in predictions]))


def ranks_of_positives(
    anchors_ND: NDArray[np.float64], positives_ND: NDArray[np.float64], texts: Sequence[str]
) -> list[int]:
    """The rank, from 1, of each anchor's own positive among the positives of all; equal texts are not rivals."""
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    text_N = np.array([ids[text] for text in texts])
    _, first_N = np.unique(text_N, return_index=True)
    ranks: list[int] = []
    for start in range(0, len(texts), RANKED_AT_ONCE):
        similarity = anchors_ND[start : start + RANKED_AT_ONCE] @ positives_ND.T
        for offset, row in enumerate(similarity):
            at = start + offset
            rivals = row[first_N][text_N[first_N] != text_N[at]]
            ranks.append(1 + int((rivals > row[at]).sum()))
    return ranks


def _cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    return float(left @ right / max(1e-12, float(np.linalg.norm(left) * np.linalg.norm(right))))


def _normal(vectors_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = vectors_ND / np.maximum(
        1e-12, np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    )
    return normal


def _rounded(vector: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in vector]
