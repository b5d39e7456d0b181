"""Relation classification: how two marked entities of a text are related.

The entities come in as characters of the original text. Markers ``<e1> </e1> <e2> </e2>`` are put around their tokens,
which the vocabulary gets when a run begins; or the model is told by the places alone. A text longer than a row is cut
to the part that holds both entities (:mod:`wenmai.tasks.pair_rows`), and ``wenmai check`` says what goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.new_tokens import NewToken
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.heads.cross_entropy import refuse_both
from wenmai.heads.head import Head
from wenmai.heads.marked_pair import MarkedPairHead
from wenmai.metrics.relations import relation_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.labels import (
    FocalGamma,
    LabelSmoothing,
    as_label,
    label_confidences,
    label_confusion,
    label_prediction,
    shown,
)
from wenmai.tasks.pair_rows import PairTokens, cut, pair_row, pair_tokens
from wenmai.tasks.placed import check_place
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.windows import room_of
from wenmai.text.places import TAGS, Range, pair_places, tagged_pair

DISTANCES = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 49), (50, None))
"""Characters between the entities, for scores by distance."""


class Mention(BaseModel):
    """``text``, where the file gives it, must be what stands at these characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    text: str | None = None

    @property
    def range(self) -> Range:
        return self.start, self.end


class RelationClassificationExample(Example):
    """``{"text", "subject": {"start", "end"}, "object": {"start", "end"}, "label"}``.

    Also ``subject`` and ``object`` as they stand in the text (``"上海"``), or neither and the text with tags in it:
    ``<e1>上海</e1>在<e2>中国</e2>``. What that leaves open is settled by a rule and said in ``guessed``.
    """

    text: str
    subject: Mention
    object: Mention
    label: str | None = None
    guessed: tuple[str, ...] | None = Field(default=None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """Entities at their places, tags out of the text."""
        if not isinstance(data, Mapping) or not isinstance(data.get("text"), str):
            return data
        changed = dict(data)
        ends = (data.get("subject"), data.get("object"))
        if ends == (None, None) and (tagged := tagged_pair(data["text"])) is not None:
            changed["text"], *places = tagged
            changed |= {
                key: _mention(place) for key, place in zip(("subject", "object"), places, strict=True)
            }
        elif any(isinstance(entity, str) for entity in ends):
            first, second = (_given(entity) for entity in ends)
            if first is not None and second is not None:
                *places, guessed = pair_places(data["text"], first, second)
                for key, entity, place in zip(("subject", "object"), ends, places, strict=True):
                    if isinstance(entity, str):
                        changed[key] = _mention(place)
                changed["guessed"] = [*(data.get("guessed") or ()), *guessed]
        return changed

    @field_validator("label", mode="before")
    @classmethod
    def _label(cls, value: Any) -> Any:
        return as_label(value)

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for key, entity in (("subject", self.subject), ("object", self.object)):
            check_place(entity, self.text, key)
        return self

    @property
    def labelled(self) -> bool:
        return self.label is not None

    @property
    def guesses(self) -> Sequence[str]:
        return self.guessed or ()

    @property
    def length(self) -> int:
        return len(self.text)


def _mention(place: Any) -> dict[str, int]:
    return {"start": place[0], "end": place[1]}


def _given(entity: Any) -> str | Range | None:
    """What :func:`pair_places` takes; None if it is neither a surface nor a place."""
    if isinstance(entity, str):
        return entity
    known = isinstance(entity, Mapping) and all(isinstance(entity.get(key), int) for key in ("start", "end"))
    return (entity["start"], entity["end"]) if known else None


class RelationClassificationConfig(TaskConfig):
    name: Literal["relation_classification"] = "relation_classification"
    markers: bool = Field(
        default=True, description="<e1> </e1> <e2> </e2> around the entities, new tokens of the model"
    )
    representation: Literal["entity_starts", "entity_means", "r_bert", "cls"] = Field(
        default="entity_starts",
        description="what is decided from: the first token of each entity (its marker); the mean of each; the row's "
        "first token and both means (R-BERT); the row's first token",
    )
    no_relation: str | None = Field(
        default=None, description="the label that F1 leaves out: Other, unknown; default: all count"
    )
    tokens: TokenChoice = "auto"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: LabelSmoothing = 0.0
    focal_gamma: FocalGamma = 0.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_both(self.label_smoothing, self.focal_gamma)
        if self.representation == "cls" and not self.markers:
            raise ValueError(
                "representation: cls needs markers: true; nothing else would tell the model which entities are meant"
            )
        return self


class RelationClassification(Task[RelationClassificationExample, RelationClassificationConfig]):
    name = "relation_classification"
    primary_metric = "macro_f1"
    Example = RelationClassificationExample
    Config = RelationClassificationConfig

    @classmethod
    def collect_labels(
        cls, config: RelationClassificationConfig, examples: Iterable[RelationClassificationExample]
    ) -> list[str]:
        labels = sorted({example.label for example in examples if example.label is not None})
        if len(labels) < 2:
            raise UserError(
                f"relation_classification needs at least two labels, the training set has {labels}: "
                "add examples of the other classes"
            )
        if config.no_relation is not None and config.no_relation not in labels:
            near = get_close_matches(config.no_relation, labels, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"task.no_relation: {config.no_relation!r} is no label of the training set; {hint}"
                f"it has {shown(labels)}"
            )
        return labels

    def label_problems(self, example: RelationClassificationExample) -> list[str]:
        if example.label is None or example.label in self.label_ids:
            return []
        known = f"does not occur in the training set, which has {shown(self.labels)}"
        return [f"label {example.label!r} {known}: map it with data.label_map"]

    def as_example(self, item: Any) -> RelationClassificationExample:
        record = {"text": item} if isinstance(item, str) else item
        if isinstance(record, Mapping) and isinstance(record.get("text"), str):
            wanted = {key: record[key] for key in ("text", "subject", "object", "id") if key in record}
            if "subject" in wanted or "object" in wanted or any(tag in wanted["text"] for tag in TAGS):
                return RelationClassificationExample.model_validate(wanted)
        raise UserError(
            f"{self.name} predicts for {{'text': ..., 'subject': {{'start': 0, 'end': 2}}, 'object': ...}} or a text "
            f"with tags, '<e1>上海</e1>在<e2>中国</e2>', not for {item!r}"
        )

    @property
    def own_tokens(self) -> Sequence[NewToken]:
        return [NewToken(tag, special=True) for tag in TAGS] if self.config.markers else []

    def _tokens(self, example: RelationClassificationExample, tokenizer: Tokenizer) -> PairTokens:
        characters = by_character(self.config.tokens, tokenizer)
        return pair_tokens(
            example.text, example.subject.range, example.object.range, tokenizer, characters=characters
        )

    def _room(self, tokenizer: Tokenizer) -> int:
        """Tokens of the text that a row holds; 2 at least, one for each entity."""
        return max(2, room_of(tokenizer, self.config.max_length) - (len(TAGS) if self.config.markers else 0))

    def featurize(self, example: RelationClassificationExample, tokenizer: Tokenizer) -> list[Row]:
        tokens = self._tokens(example, tokenizer)
        kept = cut(tokens, self._room(tokenizer)).kept
        row = pair_row(tokens, kept, tokenizer, markers=self.config.markers)
        if example.label is not None:
            row.targets["label"] = self.label_ids.get(example.label, IGNORE)
        return [row]

    def build_head(self, backbone: Backbone) -> Head:
        return MarkedPairHead(
            backbone.hidden_size,
            len(self.labels),
            representation=self.config.representation,
            dropout=self.config.dropout,
            label_smoothing=self.config.label_smoothing,
            focal_gamma=self.config.focal_gamma,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: RelationClassificationExample
    ) -> Prediction:
        pair = {
            key: {"start": entity.start, "end": entity.end, "text": example.text[entity.start : entity.end]}
            for key, entity in (("subject", example.subject), ("object", example.object))
        }
        answer = label_prediction(outputs[0]["logits"].astype(np.float64), self.labels)
        return {"text": example.text, **pair, **answer}

    def score(
        self, examples: Sequence[RelationClassificationExample], predictions: Sequence[Prediction]
    ) -> Scores:
        return relation_scores(
            _gold(examples),
            [p["label"] for p in predictions],
            self.labels,
            no_relation=self.config.no_relation,
        )

    def breakdowns(
        self,
        examples: Sequence[RelationClassificationExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        scores = self.score(examples, predictions)
        groups: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            groups.setdefault(distance_group(example), []).append(index)
        return {"distance": {name: scores.subset(indices) for name, indices in groups.items()}}

    def confusion(
        self, examples: Sequence[RelationClassificationExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        return label_confusion(_gold(examples), predictions, self.labels)

    def confidences(
        self, examples: Sequence[RelationClassificationExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        return label_confidences(_gold(examples), predictions)

    def lost_labels(self, example: RelationClassificationExample, tokenizer: Tokenizer) -> list[str]:
        tokens = self._tokens(example, tokenizer)
        total, room = len(tokens.encoding), self._room(tokenizer)
        made = cut(tokens, room)
        lost = [
            f"the {key} at {entity.start}:{entity.end} has no token: set task.tokens: characters"
            for key, entity, (first, stop) in zip(
                ("subject", "object"), (example.subject, example.object), tokens.entities, strict=True
            )
            if first == stop
        ]
        if made.of_entities:
            lost.append(
                f"{made.of_entities} tokens at the end of an entity are cut off: it is longer than its part of {room}"
            )
        if made.between:
            lost.append(
                f"{made.between} tokens between the entities are cut out: they lie farther apart than {room}"
            )
        elif total > room:
            lost.append(f"{total - room} of {total} tokens are cut off, those farthest from the entities")
        return lost


def _gold(examples: Sequence[RelationClassificationExample]) -> list[str]:
    return [str(example.label) for example in examples]


def distance_group(example: RelationClassificationExample) -> str:
    """The group of the number of characters between the entities; those that overlap have none."""
    (_, stop), (start, _) = sorted([example.subject.range, example.object.range])
    between = max(0, start - stop)
    for low, high in DISTANCES:
        if high is None or between <= high:
            return f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
    raise AssertionError(between)
