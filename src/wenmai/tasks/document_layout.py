"""Document layout: which words of a page make up its fields, and which field is the answer to which.

A page is words with boxes, as optical character recognition gives them. Its text is its words joined; entities and
links come in and go out as numbers of words and as characters of that text. Every word is tokenised by itself, so no
token has two boxes; a word is tagged at its first token.

Encoders that read boxes (LayoutLM, LayoutLMv3, LiLT) get them; to any other the head adds embeddings of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.layout import LayoutHead
from wenmai.metrics.layout import Link, layout_scores
from wenmai.metrics.scores import Scores
from wenmai.metrics.spans import span_confusion, span_scores_by
from wenmai.metrics.triples import Triple, as_spans
from wenmai.tasks.labels import shown
from wenmai.tasks.layout_decoding import Entity, PageOutputs
from wenmai.tasks.layout_example import DocumentLayoutExample, as_record
from wenmai.tasks.layout_rows import page_rows, row_targets, word_spans
from wenmai.tasks.task import Prediction, RowOutputs, Task, TaskConfig
from wenmai.text.boxes import plain
from wenmai.text.spans import Span
from wenmai.text.tags import allowed_transitions, label_tags

Part = Literal["entities", "links"]
ARROW = " → "
NUMBERS_OF_WORDS = ((1, "1"), (2, "2"), (3, "3"), (5, "4-5"), (10, "6-10"))


class DocumentLayoutConfig(TaskConfig):
    name: Literal["document_layout"] = "document_layout"
    max_length: int = Field(default=512, ge=8, description="tokens of one row, special tokens included")
    parts: list[Part] = Field(
        default=["entities", "links"],
        min_length=1,
        description="what is learned. Without entities every record gives its own",
    )
    boxes: Literal["words", "segments", "none"] = Field(
        default="words",
        description="which boxes the model sees: each word's, that of its line or block if the record has it, or none",
    )
    tagging: Literal["BIO", "BIOES"] = Field(default="BIO", description="tags of words")
    link_size: int = Field(default=64, ge=1, description="width of an entity's vectors for scoring links")
    link_weight: float = Field(
        default=1.0, gt=0, description="weight of the links' loss beside the entities'"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)
    window_overlap: int = Field(default=64, ge=0, description="tokens that neighbouring windows share")

    @model_validator(mode="after")
    def _each_part_once(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts {self.parts} names a part twice")
        return self


class DocumentLayout(Task[DocumentLayoutExample, DocumentLayoutConfig]):
    """``labels`` are those of entities and, of links, ``key<TAB>value``: the labels at their ends."""

    name = "document_layout"
    Example = DocumentLayoutExample
    Config = DocumentLayoutConfig

    def __init__(self, config: DocumentLayoutConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.finds_entities, self.finds_links = (part in config.parts for part in ("entities", "links"))
        self.primary_metric = "f1" if self.finds_entities else "link_f1"
        self.names = [label for label in labels if "\t" not in label]
        self.name_ids = {name: i for i, name in enumerate(self.names)}
        self.tags = label_tags(self.names, config.tagging)
        self.tag_ids = {tag: i for i, tag in enumerate(self.tags)}
        self.allowed = allowed_transitions(self.tags)
        self.possible = np.zeros((len(self.names), len(self.names)), dtype=bool)
        for label in labels:
            key, tab, value = label.partition("\t")
            if tab:
                self.possible[self.name_ids[key], self.name_ids[value]] = True

    @classmethod
    def collect_labels(
        cls, config: DocumentLayoutConfig, examples: Iterable[DocumentLayoutExample]
    ) -> list[str]:
        labels: set[str] = set()
        pairs: set[str] = set()
        for example in examples:
            entities = example.entities or ()
            labels.update(entity.label for entity in entities)
            pairs.update(
                f"{entities[link.key].label}\t{entities[link.value].label}" for link in example.links or ()
            )
        if not labels:
            raise UserError(
                "document_layout needs entities, the training set has none: check the data's format"
            )
        if "links" in config.parts and not pairs:
            raise UserError(
                "task.parts names links, but the training set has none: check the data's format, or set task.parts: "
                "[entities]"
            )
        return sorted(labels) + (sorted(pairs) if "links" in config.parts else [])

    def label_problems(self, example: DocumentLayoutExample) -> list[str]:
        problems = [
            f"entities[{i}]: label {entity.label!r} does not occur in the training set, which has {shown(self.names)}"
            for i, entity in enumerate(example.entities or ())
            if entity.label not in self.name_ids
        ]
        if self.finds_links and example.labelled and example.links is None:
            problems.append(
                "links: are missing, task.parts asks for them: write [] where a page has none, or set task.parts: "
                "[entities]"
            )
        return problems

    def as_example(self, item: Any) -> DocumentLayoutExample:
        record = as_record(item)
        if record is None:
            raise UserError(
                "document_layout predicts for a page, {'words': [{'text': ..., 'box': [left, top, right, bottom]}], "
                f"'width': ..., 'height': ...}}, not for {str(item)[:200]!r}"
            )
        if not self.finds_entities:
            if item.get("entities") is None:
                raise UserError(
                    "this model links entities and does not find them (its task.parts are links): give them as "
                    "{'words': [...], 'entities': [{'words': [0, 1], 'label': ...}]}"
                )
            record["entities"] = item["entities"]
        return DocumentLayoutExample(**record)

    def featurize(self, example: DocumentLayoutExample, tokenizer: Tokenizer) -> list[Row]:
        rows = page_rows(
            example,
            tokenizer,
            boxes=self.config.boxes,
            max_length=self.config.max_length,
            overlap=self.config.window_overlap,
        )
        if example.labelled:
            for row, targets in zip(rows, self._targets(example, rows)[0], strict=True):
                row.targets.update(targets)
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        added = self.config.boxes != "none" and not backbone.reads_boxes
        return LayoutHead(
            backbone.hidden_size,
            tags=len(self.tags) if self.finds_entities else 0,
            link_size=self.config.link_size if self.finds_links else 0,
            possible=self.possible,
            link_weight=self.config.link_weight,
            boxes=backbone.word_embeddings.embedding_dim if added else 0,
            dropout=self.config.dropout,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: DocumentLayoutExample
    ) -> Prediction:
        given = [Entity(entity.words, entity.label, None) for entity in example.entities or ()]
        page = PageOutputs.of(outputs, rows, example)
        entities = (
            page.entities(self.tags, self.allowed, self.config.tagging) if self.finds_entities else given
        )
        width, height = plain(example.size)
        prediction: Prediction = {
            "text": example.text,
            "width": width,
            "height": height,
            "words": [
                {"text": word.text, "start": start, "end": end, "box": plain(word.box)}
                for word, (start, end) in zip(example.words, example.places, strict=True)
            ],
            "entities": [entity.shown(example) for entity in entities],
        }
        if self.finds_links:
            prediction["links"] = page.links(entities, self.name_ids, self.config.boxes)
        if self.finds_links and self.finds_entities and example.labelled:
            # what entity linking is scored by
            prediction["given_links"] = page.links(given, self.name_ids, self.config.boxes)
        return prediction

    def score(self, examples: Sequence[DocumentLayoutExample], predictions: Sequence[Prediction]) -> Scores:
        joint = self.finds_entities and self.finds_links
        return layout_scores(
            [example.spans for example in examples],
            [_spans(p) for p in predictions] if self.finds_entities else None,
            [_gold_links(example) for example in examples],
            labels=self.names,
            links=[_links(p["links"], _spans(p)) for p in predictions] if self.finds_links else None,
            given_links=[
                _links(p["given_links"], example.spans)
                for example, p in zip(examples, predictions, strict=True)
            ]
            if joint
            else None,
        )

    def breakdowns(
        self,
        examples: Sequence[DocumentLayoutExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        cuts: dict[str, dict[str, Scores]] = {}
        gold, predicted = [example.spans for example in examples], [_spans(p) for p in predictions]
        if self.finds_entities:
            places = [
                {(entity.start, entity.end): len(entity.words) for entity in example.entities or ()}
                | {(e["start"], e["end"]): len(e["words"]) for e in p["entities"]}
                for example, p in zip(examples, predictions, strict=True)
            ]
            cuts["entity_words"] = span_scores_by(
                gold, predicted, lambda index, span: _number_of_words(places[index][span[:2]])
            )
        if self.finds_links:
            links = as_spans(
                [{_triple(link) for link in _gold_links(example)} for example in examples],
                [{_triple(link) for link in _links(p["links"], _spans(p))} for p in predictions],
            )
            cuts["link"] = span_scores_by(*links, lambda _, span: span.label)
        if known and self.finds_entities:

            def group(index: int, span: Span) -> str:
                return "seen" if _line(examples[index], span) in known else "unseen"

            cuts["seen"] = span_scores_by(gold, predicted, group)
        return cuts

    def inventory(self, examples: Iterable[DocumentLayoutExample]) -> set[str]:
        return {_line(example, span) for example in examples for span in example.spans}

    def confusion(
        self, examples: Sequence[DocumentLayoutExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        if not self.finds_entities:
            return None
        return span_confusion(
            [example.spans for example in examples], [_spans(p) for p in predictions], self.names
        )

    def confidences(
        self, examples: Sequence[DocumentLayoutExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Of entities; where they are given, of links."""
        scores, right = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            if self.finds_entities:
                gold: set[Any] = set(example.spans)
                found: list[Any] = _spans(prediction)
                scored = prediction["entities"]
            else:
                gold, scored = _gold_links(example), prediction["links"]
                found = [next(iter(_links([link], example.spans))) for link in scored]
            scores += [item["score"] for item in scored]
            right += [item in gold for item in found]
        return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: DocumentLayoutExample, tokenizer: Tokenizer) -> list[str]:
        if not example.labelled:
            return []
        rows = self.featurize(example.model_copy(update={"entities": None, "links": None}), tokenizer)
        lost = self._targets(example, rows)[1]
        return lost if not self.finds_entities else word_spans(example, self.name_ids)[1] + lost

    def _targets(
        self, example: DocumentLayoutExample, rows: Sequence[Row]
    ) -> tuple[list[Mapping[str, Any]], list[str]]:
        return row_targets(
            example,
            rows,
            self.name_ids,
            self.tag_ids if self.finds_entities else None,
            self.possible if self.finds_links else None,
            scheme=self.config.tagging,
            boxes=self.config.boxes,
        )


def _spans(prediction: Prediction) -> list[Span]:
    return [Span(e["start"], e["end"], e["label"]) for e in prediction["entities"]]


def _links(links: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> set[Link]:
    return {(spans[link["key"]], spans[link["value"]]) for link in links}


def _gold_links(example: DocumentLayoutExample) -> set[Link]:
    return _links([link.model_dump() for link in example.links or ()], example.spans)


def _triple(link: Link) -> Triple:
    return Triple(link[0], f"{link[0].label}{ARROW}{link[1].label}", link[1])


def _line(example: DocumentLayoutExample, span: Span) -> str:
    return f"{span.label}\t{example.text[span.start : span.end]}"


def _number_of_words(count: int) -> str:
    return next((name for most, name in NUMBERS_OF_WORDS if count <= most), "11+")
