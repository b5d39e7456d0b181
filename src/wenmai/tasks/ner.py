"""Named entity recognition: flat (softmax or CRF over tags) or nested (GlobalPointer over token pairs).

Entities come in and go out as characters of the original text. In between stand tokens: the tokenizer's pieces, or one
token a character where pieces span several characters and would straddle entity borders. An entity that the tokens
can't express is reported by :meth:`Ner.lost_labels`, never moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.crf import CRFHead
from wenmai.heads.cross_entropy import refuse_both
from wenmai.heads.global_pointer import GlobalPointerHead
from wenmai.heads.head import Head
from wenmai.heads.tagging import TaggingHead
from wenmai.metrics.scores import Scores
from wenmai.metrics.spans import span_confusion, span_scores, span_scores_by
from wenmai.tasks.placed import check_place
from wenmai.tasks.span_decoding import decode_nested, decode_tags
from wenmai.tasks.span_targets import tag_targets, token_spans, too_long
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.windows import room_of, window_rows
from wenmai.text.spans import Span
from wenmai.text.tags import allowed_transitions, label_tags

ENTITY_LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 10), (11, None))


class Entity(BaseModel):
    """``text``, where the file gives it, must be what stands at these characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    label: str = Field(min_length=1)
    text: str | None = None


class NerExample(Example):
    """``{"text", "entities": [{"start", "end", "label"}]}``; no entities is ``[]``, unlabelled is no field at all."""

    text: str
    entities: tuple[Entity, ...] | None = None

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for index, entity in enumerate(self.entities or ()):
            check_place(entity, self.text, f"entities[{index}]")
        return self

    @property
    def labelled(self) -> bool:
        return self.entities is not None

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def spans(self) -> list[Span]:
        return [Span(entity.start, entity.end, entity.label) for entity in self.entities or ()]


class NerConfig(TaskConfig):
    name: Literal["ner"] = "ner"
    head: Literal["crf", "softmax", "global_pointer"] = Field(
        default="crf", description="global_pointer scores every pair of tokens and can find nested entities"
    )
    nested: bool = Field(default=False, description="entities may lie inside each other or overlap")
    tagging: Literal["BIO", "BIOES"] = Field(default="BIO", description="tags of the crf and softmax heads")
    tokens: TokenChoice = "auto"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="head softmax: share of the target that is spread evenly over all tags",
    )
    focal_gamma: float = Field(
        default=0.0,
        ge=0,
        description="head softmax: above 0 (2 is usual), tokens that are nearly right count less",
    )
    window_overlap: int = Field(default=48, ge=0, description="tokens that neighbouring windows share")

    @model_validator(mode="after")
    def _losses_of_the_head(self) -> Self:
        refuse_both(self.label_smoothing, self.focal_gamma)
        for key in ("label_smoothing", "focal_gamma"):
            if getattr(self, key) and self.head != "softmax":
                raise ValueError(
                    f"{key} needs head: softmax; the loss of head {self.head!r} is not one of single tokens"
                )
        return self

    @model_validator(mode="after")
    def _nested_needs_pairs(self) -> Self:
        if self.nested and self.head != "global_pointer":
            raise ValueError(
                f"nested: true needs head: global_pointer; head {self.head!r} gives one tag a token"
            )
        return self


class Ner(Task[NerExample, NerConfig]):
    name = "ner"
    primary_metric = "f1"
    Example = NerExample
    Config = NerConfig

    def __init__(self, config: NerConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.tags = label_tags(self.labels, config.tagging)
        self.tag_ids = {tag: i for i, tag in enumerate(self.tags)}
        self.allowed = allowed_transitions(self.tags)

    @classmethod
    def collect_labels(cls, config: NerConfig, examples: Iterable[NerExample]) -> list[str]:
        labels = sorted({entity.label for example in examples for entity in example.entities or ()})
        if not labels:
            raise UserError(
                "ner needs entities, the training set has none: check the data's format and columns"
            )
        return labels

    def label_problems(self, example: NerExample) -> list[str]:
        return [
            f"entities[{i}]: label {entity.label!r} does not occur in the training set, which has {self.labels}"
            for i, entity in enumerate(example.entities or ())
            if entity.label not in self.label_ids
        ]

    def as_example(self, item: Any) -> NerExample:
        return NerExample(**text_record(item, self.name))

    def encode(self, text: str, tokenizer: Tokenizer) -> Encoding:
        return tokenizer.encode(text, characters=by_character(self.config.tokens, tokenizer))

    def featurize(self, example: NerExample, tokenizer: Tokenizer) -> list[Row]:
        encoding = self.encode(example.text, tokenizer)
        rows = window_rows(
            encoding, tokenizer, max_length=self.config.max_length, overlap=self.config.window_overlap
        )
        if example.labelled:
            spans, _ = self._token_spans(example, encoding)
            for row in rows:
                if self.config.head == "global_pointer":
                    row.targets["spans"] = self._pairs(row, spans)
                else:
                    row.targets["tags"] = tag_targets(row, spans, self.tag_ids, self.config.tagging)
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        if self.config.head == "global_pointer":
            return GlobalPointerHead(backbone.hidden_size, len(self.labels), dropout=self.config.dropout)
        if self.config.head == "crf":
            return CRFHead(
                backbone.hidden_size, len(self.tags), dropout=self.config.dropout, allowed=self.allowed
            )
        return TaggingHead(
            backbone.hidden_size,
            len(self.tags),
            dropout=self.config.dropout,
            label_smoothing=self.config.label_smoothing,
            focal_gamma=self.config.focal_gamma,
        )

    def decode(self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: NerExample) -> Prediction:
        if self.config.head == "global_pointer":
            found = decode_nested(outputs, rows, self.labels, nested=self.config.nested)
        else:
            found = decode_tags(outputs, rows, self.tags, self.allowed, self.config.tagging)
        entities = [
            {
                "start": span.start,
                "end": span.end,
                "label": span.label,
                "text": example.text[span.start : span.end],
                "score": round(score, 6),
            }
            for span, score in found
        ]
        return {"text": example.text, "entities": entities}

    def score(self, examples: Sequence[NerExample], predictions: Sequence[Prediction]) -> Scores:
        return span_scores([example.spans for example in examples], predicted_spans(predictions), self.labels)

    def breakdowns(
        self, examples: Sequence[NerExample], predictions: Sequence[Prediction], known: frozenset[str]
    ) -> dict[str, dict[str, Scores]]:
        gold, predicted = [example.spans for example in examples], predicted_spans(predictions)
        cuts = {"entity_length": span_scores_by(gold, predicted, lambda _, span: length_group(span))}
        if known:

            def group(index: int, span: Span) -> str:
                surface = examples[index].text[span.start : span.end]
                return "seen" if f"{span.label}\t{surface}" in known else "unseen"

            cuts["seen"] = span_scores_by(gold, predicted, group)
        return cuts

    def inventory(self, examples: Iterable[NerExample]) -> set[str]:
        return {
            f"{span.label}\t{example.text[span.start : span.end]}"
            for example in examples
            for span in example.spans
        }

    def confusion(
        self, examples: Sequence[NerExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        gold = [example.spans for example in examples]
        return span_confusion(gold, predicted_spans(predictions), self.labels)

    def confidences(
        self, examples: Sequence[NerExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        scores, right = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            gold = set(example.spans)
            for entity in prediction["entities"]:
                scores.append(entity["score"])
                right.append(Span(entity["start"], entity["end"], entity["label"]) in gold)
        return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: NerExample, tokenizer: Tokenizer) -> list[str]:
        encoding = self.encode(example.text, tokenizer)
        spans, lost = self._token_spans(example, encoding)
        room = room_of(tokenizer, self.config.max_length)
        return lost + too_long(spans, room, "an entity")

    def _token_spans(self, example: NerExample, encoding: Encoding) -> tuple[list[Span], list[str]]:
        """The gold spans in tokens, and a sentence for each that can't be expressed."""
        return token_spans(
            example.spans,
            example.text,
            encoding,
            self.label_ids,
            overlap=None
            if self.config.nested
            else "overlaps another entity: set task.nested: true and task.head: global_pointer",
        )

    def _pairs(self, row: Row, spans: Sequence[Span]) -> NDArray[np.int64]:
        first, stop = row.content
        begin, end = row.window, row.window + stop - first
        pairs = [
            (s.start - begin + first, s.end - begin + first - 1, self.label_ids[s.label])
            for s in spans
            if begin <= s.start and s.end <= end
        ]
        return np.array(pairs, dtype=np.int64).reshape(-1, 3)


def predicted_spans(predictions: Sequence[Prediction]) -> list[list[Span]]:
    return [[Span(e["start"], e["end"], e["label"]) for e in p["entities"]] for p in predictions]


def length_group(span: Span) -> str:
    length = span.end - span.start
    for low, high in ENTITY_LENGTHS:
        if high is None or length <= high:
            return f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
    raise AssertionError(length)
