"""Relation extraction: all (subject, predicate, object) triples of a text at once, entities included.

Both ends of a triple are characters of the original text. A text of several sentences or windows is read piece by
piece; a triple is learned and found where one piece holds both of its ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.draws import uniform
from wenmai.data.rows import IGNORE, Arrays, Row
from wenmai.errors import UserError
from wenmai.heads.casrel import CasRelHead
from wenmai.heads.gplinker import GPLinkerHead
from wenmai.heads.head import Head
from wenmai.metrics.scores import Scores
from wenmai.metrics.spans import span_confusion, span_scores_by
from wenmai.metrics.triples import (
    Triple,
    as_spans,
    count_group,
    overlap_types,
    surfaces,
    triple_scores,
    triple_scores_of,
)
from wenmai.tasks.placed import check_place
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.triple_decoding import CANDIDATES, decode_triples, surer
from wenmai.tasks.triple_rows import (
    ROLES,
    TripleLabels,
    held_apart,
    inside_row,
    not_nearest,
    token_triples,
)
from wenmai.tasks.windows import overlap_in, room_of, rows_at, sentence_bounds, window_bounds
from wenmai.text.spans import Span

SUBJECT_DRAWS = 11
"""Stream of the draws that choose the subject of a row."""


class End(BaseModel):
    """``text``, where the file gives it, must be what stands at these characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    label: str | None = Field(default=None, min_length=1)
    text: str | None = None


class Relation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: End
    predicate: str = Field(min_length=1)
    object: End


class RelationExtractionExample(Example):
    """``{"text", "relations": [{"subject": {"start", "end", "label"}, "predicate", "object": {...}}]}``.

    No relations is ``[]``, unlabelled is no field at all; labels may be left out. ``unlocated`` holds the triples that
    a reader did not find in the text: nothing is learned from them, ``check`` and ``evaluate`` count them.
    """

    text: str
    relations: tuple[Relation, ...] | None = None
    unlocated: tuple[tuple[str, str, str], ...] = ()

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for index, relation in enumerate(self.relations or ()):
            if "\t" in relation.predicate:
                raise ValueError(f"relations[{index}].predicate: {relation.predicate!r} holds a tab")
            for name in ("subject", "object"):
                check_place(getattr(relation, name), self.text, f"relations[{index}].{name}")
        return self

    @property
    def labelled(self) -> bool:
        return self.relations is not None

    @property
    def length(self) -> int:
        return len(self.text)


class RelationExtractionConfig(TaskConfig):
    name: Literal["relation_extraction"] = "relation_extraction"
    head: Literal["gplinker", "casrel"] = Field(
        default="gplinker",
        description="gplinker: all triples at once; casrel: subjects first, then the objects of each",
    )
    typed: bool = Field(
        default=False, description="subjects and objects have types (their labels), to be found as well"
    )
    match: Literal["offsets", "surface"] = Field(
        default="offsets",
        description="what the best model is chosen by, and groups are scored by: characters, or what is written there "
        "(for data that names entities without their place)",
    )
    long_text: Literal["windows", "sentences", "sentence"] = Field(
        default="windows",
        description="how texts become rows: windows that overlap; as many whole sentences as fit; each sentence alone",
    )
    window_overlap: int = Field(
        default=64,
        ge=0,
        description="tokens that neighbouring windows share, also of a sentence that is too long",
    )
    tokens: TokenChoice = "auto"
    head_size: int = Field(
        default=64, ge=2, multiple_of=2, description="width of the vectors that tokens are compared by"
    )
    conditioning: Literal["layer_norm", "addition"] = Field(
        default="layer_norm",
        description="head casrel: how tokens are told the subject; addition is as published",
    )
    threshold: float | None = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability that every part of a triple must be above; null: the one that is best on the dev set "
        "(head gplinker)",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _only_of_casrel(self) -> Self:
        if self.head != "casrel" and self.conditioning == "addition":
            raise ValueError(f"conditioning needs head: casrel; head {self.head!r} asks for no subject")
        if self.head == "casrel" and self.threshold is None:
            raise ValueError("threshold: null needs head: gplinker; give a number to head 'casrel'")
        return self


class RelationExtraction(Task[RelationExtractionExample, RelationExtractionConfig]):
    """``labels`` are the predicates and, where triples are typed, ``subject<TAB>type`` and ``object<TAB>type``."""

    name = "relation_extraction"
    Example = RelationExtractionExample
    Config = RelationExtractionConfig

    def __init__(self, config: RelationExtractionConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.names = TripleLabels.of(labels)
        self.threshold = 0.5 if config.threshold is None else config.threshold
        self.primary_metric = "surface_f1" if config.match == "surface" else "f1"

    @classmethod
    def collect_labels(
        cls, config: RelationExtractionConfig, examples: Iterable[RelationExtractionExample]
    ) -> list[str]:
        relations = [relation for example in examples for relation in example.relations or ()]
        if not relations:
            raise UserError(
                "relation_extraction needs relations, the training set has none: check the data's format and columns"
            )
        labels = sorted({relation.predicate for relation in relations})
        if not config.typed:
            return labels
        types = {(role, getattr(relation, role).label) for relation in relations for role in ROLES}
        if missing := sorted({role for role, label in types if label is None}):
            raise UserError(
                f"task.typed: true needs a label on every {' and '.join(missing)}, the training set has some without: "
                "add them, or set task.typed: false"
            )
        return labels + sorted(f"{role}\t{label}" for role, label in types)

    def label_problems(self, example: RelationExtractionExample) -> list[str]:
        """Ends without a type where types are scored. Unknown predicates and types are no problem: published splits
        have some, which count as missed (:meth:`lost_labels`)."""
        if not self.config.typed:
            return []
        return [
            f"relations[{i}].{role}: has no label: add it, or set task.typed: false"
            for i, relation in enumerate(example.relations or ())
            for role in ROLES
            if getattr(relation, role).label is None
        ]

    def as_example(self, item: Any) -> RelationExtractionExample:
        return RelationExtractionExample(**text_record(item, self.name))

    def encode(self, text: str, tokenizer: Tokenizer) -> Encoding:
        return tokenizer.encode(text, characters=by_character(self.config.tokens, tokenizer))

    def featurize(self, example: RelationExtractionExample, tokenizer: Tokenizer) -> list[Row]:
        encoding = self.encode(example.text, tokenizer)
        rows = rows_at(encoding, tokenizer, self._bounds(example.text, encoding, tokenizer))
        if example.labelled:
            triples_N7, _ = self._token_triples(example, encoding)
            for row in rows:
                inside_N7 = inside_row(row, triples_N7)
                row.targets["triples"] = inside_N7
                if self.config.head == "casrel":
                    # augment draws another one each epoch
                    row.targets["subject"] = inside_N7[:1, :2]
        return rows

    def augment(self, batch: Arrays, tokenizer: Tokenizer) -> Arrays:
        """For the head casrel: of each row's subjects one is drawn, all equally likely."""
        if self.config.head != "casrel":
            return batch
        drawn_B = uniform(batch["key"], SUBJECT_DRAWS, 1)[:, 0]
        subject_B12 = np.full((len(drawn_B), 1, 2), IGNORE, dtype=np.int64)
        for row, (triples_N7, draw) in enumerate(zip(batch["triples"], drawn_B, strict=True)):
            subjects_S2 = np.unique(triples_N7[triples_N7[:, 0] != IGNORE, :2], axis=0)
            if len(subjects_S2):
                subject_B12[row, 0] = subjects_S2[int(draw * len(subjects_S2))]
        return {**batch, "subject": subject_B12}

    def build_head(self, backbone: Backbone) -> Head:
        config, names = self.config, self.names
        if config.head == "casrel":
            return CasRelHead(
                backbone.hidden_size,
                len(names.predicates),
                subject_types=len(names.subject_types),
                object_types=len(names.object_types) if config.typed else 0,
                conditioning=config.conditioning,
                head_size=config.head_size,
                dropout=config.dropout,
            )
        return GPLinkerHead(
            backbone.hidden_size,
            len(names.predicates),
            subject_types=len(names.subject_types),
            object_types=len(names.object_types),
            head_size=config.head_size,
            dropout=config.dropout,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: RelationExtractionExample
    ) -> Prediction:
        relations = [
            {
                "subject": self._shown(triple.subject, example.text),
                "predicate": triple.predicate,
                "object": self._shown(triple.object, example.text),
                "score": round(score, 6),
            }
            for triple, score in decode_triples(
                outputs,
                rows,
                self.names,
                head=self.config.head,
                threshold=self.config.threshold or CANDIDATES[0],
            )
        ]
        return {"text": example.text, "relations": relations}

    def _shown(self, span: Span, text: str) -> dict[str, Any]:
        label = {"label": span.label} if self.config.typed else {}
        return {"start": span.start, "end": span.end, **label, "text": text[span.start : span.end]}

    def score(
        self, examples: Sequence[RelationExtractionExample], predictions: Sequence[Prediction]
    ) -> Scores:
        gold, predicted = self._both(examples, predictions)
        return triple_scores(gold, predicted, [example.text for example in examples], self.names.predicates)

    def settle(
        self, examples: Sequence[RelationExtractionExample], predictions: Sequence[Prediction]
    ) -> list[Prediction]:
        """Chooses the threshold of the highest F1 on the dev set, of equal ones the nearest to a half."""
        if self.config.threshold is not None:
            return list(predictions)
        found = {threshold: surer(predictions, threshold) for threshold in CANDIDATES}
        values = {at: self.score(examples, own).values()[self.primary_metric] for at, own in found.items()}
        self.threshold = min(CANDIDATES, key=lambda at: (-values[at], abs(at - 0.5)))
        return found[self.threshold]

    def meta(self) -> Mapping[str, Any]:
        """With the threshold that was chosen."""
        settled = self.config.model_copy(update={"threshold": self.threshold})
        return {**super().meta(), "config": settled.model_dump(mode="json")}

    def breakdowns(
        self,
        examples: Sequence[RelationExtractionExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        gold, predicted = self._both(examples, predictions)
        texts = [example.text for example in examples]
        by_surface = self.config.match == "surface"
        groups: dict[str, defaultdict[str, list[int]]] = {
            cut: defaultdict(list) for cut in ("triples", "overlap")
        }
        for index, (triples, text) in enumerate(zip(gold, texts, strict=True)):
            groups["triples"][count_group(triples)].append(index)
            for kind in overlap_types(triples, text, by_surface=by_surface):
                groups["overlap"][kind].append(index)
        cuts = {
            cut: triple_scores_of(gold, predicted, texts, own, by_surface=by_surface)
            for cut, own in groups.items()
        }
        if known:
            gold_spans, predicted_spans = as_spans(gold, predicted)

            def group(index: int, span: Span) -> str:
                triple = gold_spans[index].get(span) or predicted_spans[index][span]
                return "seen" if _line(triple, examples[index].text) in known else "unseen"

            cuts["seen"] = span_scores_by(gold_spans, predicted_spans, group)
        return cuts

    def inventory(self, examples: Iterable[RelationExtractionExample]) -> set[str]:
        return {_line(triple, example.text) for example in examples for triple in self._gold(example)}

    def confusion(
        self, examples: Sequence[RelationExtractionExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        """Predicates that were taken for each other between the same two ends."""
        return span_confusion(*as_spans(*self._both(examples, predictions)), self.names.predicates)

    def confidences(
        self, examples: Sequence[RelationExtractionExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        scores, right = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            gold = self._gold(example)
            for relation in prediction["relations"]:
                scores.append(relation["score"])
                right.append(self._triple(relation) in gold)
        return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: RelationExtractionExample, tokenizer: Tokenizer) -> list[str]:
        lost = [
            f"({subject!r}, {predicate!r}, {target!r}) is not in the text: skipped"
            for subject, predicate, target in example.unlocated
        ]
        encoding = self.encode(example.text, tokenizer)
        triples_N7, named = self._token_triples(example, encoding)
        lost += named
        rows = rows_at(encoding, tokenizer, self._bounds(example.text, encoding, tokenizer))
        if apart := held_apart(rows, triples_N7):
            lost.append(
                f"{apart} of {len(triples_N7)} triples have ends that no row holds together: raise task.max_length"
                + (" or task.window_overlap" if self.config.long_text == "windows" else "")
            )
        if self.config.head == "casrel":
            missed = sum(not_nearest(inside_row(row, triples_N7), len(row)) for row in rows)
            if missed:
                lost.append(
                    f"{missed} triples can't be told apart by head casrel (spans that begin together or cross): "
                    "set task.head: gplinker"
                )
        return lost

    def _bounds(self, text: str, encoding: Encoding, tokenizer: Tokenizer) -> list[tuple[int, int]]:
        room = room_of(tokenizer, self.config.max_length)
        overlap = overlap_in(room, self.config.window_overlap)
        if self.config.long_text == "windows":
            return window_bounds(len(encoding), room, overlap)
        together = self.config.long_text == "sentences"
        return sentence_bounds(text, encoding, room, overlap, together=together)

    def _token_triples(
        self, example: RelationExtractionExample, encoding: Encoding
    ) -> tuple[NDArray[np.int64], list[str]]:
        return token_triples(self._gold(example), example.text, encoding, self.names)

    def _gold(self, example: RelationExtractionExample) -> set[Triple]:
        return {self._triple(relation.model_dump()) for relation in example.relations or ()}

    def _both(
        self, examples: Sequence[RelationExtractionExample], predictions: Sequence[Prediction]
    ) -> tuple[list[set[Triple]], list[set[Triple]]]:
        predicted = [{self._triple(relation) for relation in p["relations"]} for p in predictions]
        return [self._gold(example) for example in examples], predicted

    def _triple(self, relation: dict[str, Any]) -> Triple:
        subject, target = (
            Span(end["start"], end["end"], (end.get("label") or "") if self.config.typed else "")
            for end in (relation["subject"], relation["object"])
        )
        return Triple(subject, relation["predicate"], target)


def _line(triple: Triple, text: str) -> str:
    return "\t".join(surfaces(triple, text))
