"""Text embeddings: a text to a vector, trained by comparing texts with each other.

Records with an anchor and a positive, pairs with a score, and plain texts: ``task.objective`` decides what is learned
from them, :class:`wenmai.heads.contrastive.ContrastiveHead` how. Texts are cut at ``max_length``: a vector stands for
one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import ConfigError, Problem, UserError
from wenmai.heads.contrastive import ANCHOR, HARD_NEGATIVE, POSITIVE, ContrastiveHead
from wenmai.heads.head import Head
from wenmai.metrics.ranking import correlation_scores, pair_scores, ranks_of_positives, retrieval_scores
from wenmai.metrics.scores import Scores
from wenmai.metrics.thresholds import best_threshold
from wenmai.tasks.embedding_example import TextEmbeddingConfig, TextEmbeddingExample
from wenmai.tasks.task import Prediction, RowOutputs, Task
from wenmai.tasks.windows import room_of, rows_at

PRIMARY = {"retrieval": "mrr", "similarity": "spearman", "pairs": "average_precision"}


class TextEmbedding(Task[TextEmbeddingExample, TextEmbeddingConfig]):
    name = "text_embedding"
    Example = TextEmbeddingExample
    Config = TextEmbeddingConfig
    rows_stay_together = True

    def __init__(self, config: TextEmbeddingConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.primary_metric = PRIMARY[config.scored_by]
        self.threshold = config.threshold

    def label_problems(self, example: TextEmbeddingExample) -> list[str]:
        scored_by = self.config.scored_by
        if not example.labelled or (
            example.scored if scored_by != "retrieval" else example.anchor is not None
        ):
            return []
        if scored_by == "retrieval":
            return [
                "has no 'anchor' and 'positive', which task.evaluate_on: retrieval needs; for pairs with a score set "
                "it to similarity or pairs"
            ]
        return [
            f"has no 'score': task.evaluate_on: {scored_by} needs 'text', 'text_pair' and 'score'; for anchors with "
            "positives set it to retrieval"
        ]

    def training_problems(self, example: TextEmbeddingExample) -> list[str]:
        objective = self.config.objective
        if objective == "triplet" and (example.anchor is None or not example.negatives):
            return [
                "has no 'negatives': task.objective: triplet needs 'anchor', 'positive' and 'negatives'; "
                "wenmai mine-negatives finds some, infonce needs none"
            ]
        if objective == "infonce" and not example.labelled:
            return [
                "has no positive: task.objective: infonce needs 'anchor' and 'positive', or 'text', 'text_pair' and "
                "'score'; simcse needs texts alone"
            ]
        if objective in ("cosent", "cosine") and not example.scored:
            return [
                f"has no 'score': task.objective: {objective} needs 'text', 'text_pair' and 'score'; infonce and "
                "triplet take anchors with positives"
            ]
        low, high = self.config.score_range
        if objective == "cosine" and example.score is not None and not low <= example.score <= high:
            return [f"score {example.score:g} is outside task.score_range [{low:g}, {high:g}]"]
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
        return [self._row(text, tokenizer) for text in example.texts]

    def training_rows(self, example: TextEmbeddingExample, tokenizer: Tokenizer) -> list[Row]:
        objective = self.config.objective
        if objective == "simcse":
            # dropout is a function of the row's key, and no two rows have the same one
            rows = [row for row in self.featurize(example, tokenizer) for _ in (ANCHOR, POSITIVE)]
            return [
                Row(row.inputs, {"role": (ANCHOR, POSITIVE)[i % 2], "part": i // 2}, row.offsets, row.content)
                for i, row in enumerate(rows)
            ]
        rows = self.featurize(example, tokenizer)
        apart = objective == "infonce" and example.scored and not self._together(example)
        for position, row in enumerate(rows):
            row.targets["role"] = HARD_NEGATIVE if apart and position else min(position, HARD_NEGATIVE)
            if objective in ("cosent", "cosine"):
                row.targets["score"] = self._target(example)
        return rows

    def lost_labels(self, example: TextEmbeddingExample, tokenizer: Tokenizer) -> list[str]:
        room = room_of(tokenizer, self.config.max_length)
        lengths = [len(tokenizer.encode(self.config.prefix + text)) for text in example.texts]
        return [
            f"{tokens - room} of {tokens} tokens of a text are cut off" for tokens in lengths if tokens > room
        ]

    def build_head(self, backbone: Backbone) -> Head:
        config, hidden = self.config, backbone.hidden_size
        wanted = {"task.widths": config.widths, "task.width": [config.width or 1]}
        problems = [
            Problem(key, f"{max(widths)} given, but vectors of this backbone have {hidden} numbers")
            for key, widths in wanted.items()
            if max(widths, default=0) > hidden
        ]
        if config.objective == "simcse" and not backbone.drops_out:
            problems.append(
                Problem(
                    "task.objective",
                    "simcse compares a text with itself under other dropout, and this backbone has none: "
                    "set backbone.dropout: 0.1",
                )
            )
        if problems:
            raise ConfigError("the configuration can't be used:", problems)
        return ContrastiveHead(
            pooling=config.pooling,
            objective=config.objective,
            temperature=config.temperature,
            margin=config.margin,
            widths=config.widths,
            weights=config.width_weights,
            width=config.kept_width,
        )

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
        return self._decided(prediction)

    def settle(
        self, examples: Sequence[TextEmbeddingExample], predictions: Sequence[Prediction]
    ) -> list[Prediction]:
        """Chooses the threshold that gives the highest accuracy on the dev set."""
        if self.config.scored_by != "pairs" or self.config.threshold is not None:
            return list(predictions)
        gold = self._gold(examples)
        self.threshold = best_threshold([p["similarity"] for p in predictions], gold, 1 - gold)
        return [self._decided(prediction) for prediction in predictions]

    def score(self, examples: Sequence[TextEmbeddingExample], predictions: Sequence[Prediction]) -> Scores:
        if self.config.scored_by == "retrieval":
            anchors = _normal(np.array([p["anchor_embedding"] for p in predictions]))
            positives = _normal(np.array([p["positive_embedding"] for p in predictions]))
            return retrieval_scores(
                ranks_of_positives(anchors, positives, [p["positive"] for p in predictions])
            )
        found = np.array([float(p["similarity"]) for p in predictions])
        if self.config.scored_by == "pairs":
            return pair_scores(self._gold(examples), found, threshold=self.threshold)
        return correlation_scores(np.array([float(example.score or 0.0) for example in examples]), found)

    def breakdowns(
        self,
        examples: Sequence[TextEmbeddingExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        """The scores of narrower vectors, where some were learned."""
        if not self.config.widths or not predictions:
            return {}
        first, second = (
            ("anchor_embedding", "positive_embedding")
            if self.config.scored_by == "retrieval"
            else ("text_embedding", "text_pair_embedding")
        )
        whole = len(predictions[0][first])
        # a threshold belongs to the width that it was chosen for
        other = TextEmbedding(self.config.model_copy(update={"threshold": None}), self.labels)
        found = {str(whole): self.score(examples, predictions)}
        for width in self.config.widths:
            if width < whole:
                cut = [{**p, first: p[first][:width], second: p[second][:width]} for p in predictions]
                for prediction in cut:
                    prediction["similarity"] = _cosine(
                        np.array(prediction[first]), np.array(prediction[second])
                    )
                found[str(width)] = other.score(examples, cut)
        return {"width": found}

    def meta(self) -> Mapping[str, Any]:
        """With the threshold that was chosen."""
        settled = self.config.model_copy(update={"threshold": self.threshold})
        return {**super().meta(), "config": settled.model_dump(mode="json")}

    def _row(self, text: str, tokenizer: Tokenizer) -> Row:
        encoding = tokenizer.encode(self.config.prefix + text)
        room = room_of(tokenizer, self.config.max_length)
        # not the first of several windows: those are made equally long
        (row,) = rows_at(encoding, tokenizer, [(0, min(len(encoding), room))])
        return row

    def _target(self, example: TextEmbeddingExample) -> float:
        """What the loss learns of the score: itself, or the cosine that it means."""
        score = float(example.score or 0.0)
        if self.config.objective != "cosine":
            return score
        low, high = self.config.score_range
        return (score - low) / (high - low)

    def _together(self, example: TextEmbeddingExample) -> bool:
        return example.score is not None and example.score >= self.config.positive_score

    def _gold(self, examples: Sequence[TextEmbeddingExample]) -> NDArray[np.float64]:
        return np.array([float(self._together(example)) for example in examples])

    def _decided(self, prediction: Prediction) -> Prediction:
        if self.threshold is None:
            return prediction
        return {**prediction, "together": prediction["similarity"] > self.threshold}


def _cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    return float(left @ right / max(1e-12, float(np.linalg.norm(left) * np.linalg.norm(right))))


def _normal(vectors_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = vectors_ND / np.maximum(
        1e-12, np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    )
    return normal


def _rounded(vector: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in vector]
