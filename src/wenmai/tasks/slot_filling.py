"""Slot filling: what a text wants (intents) and the words that say how (slots), by one model.

One intent a text, several at once (``task.intents: several``), or combinations as classes of their own
(``combined``: ``atis_flight#atis_airfare``, the convention of published results on ATIS). Slots are flat; they come in
and go out as characters of the original text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.slot_filling import SlotFillingHead
from wenmai.metrics.classification import confusion_matrix
from wenmai.metrics.scores import Scores
from wenmai.metrics.slot_filling import slot_filling_scores
from wenmai.tasks.labels import label_scores, shown, softmax
from wenmai.tasks.placed import check_place
from wenmai.tasks.span_decoding import decode_tags
from wenmai.tasks.span_targets import tag_targets, token_spans, too_long
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.windows import pooled_windows, room_of, window_rows
from wenmai.text.places import named_values, value_places
from wenmai.text.spans import Span
from wenmai.text.tags import OUTSIDE, Scheme, allowed_transitions, label_tags

INTENT, SLOT = "intent:", "slot:"
"""Before the names in ``labels``, which hold both kinds."""
COMBINED = "#"
NUMBERS_OF_SLOTS = ("0", "1", "2", "3", "4+")


class Slot(BaseModel):
    """``text``, where the file gives it, must be what stands at these characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    label: str = Field(min_length=1)
    text: str | None = None


class SlotFillingExample(Example):
    """``{"text", "intents": [...], "slots": [{"start", "end", "label"}]}``; ``slots`` also ``{"city": "上海"}``.

    Values without places get the first place that no other value has; what that leaves open is in ``guessed``.
    """

    text: str
    intents: tuple[str, ...] | None = None
    slots: tuple[Slot, ...] | None = None
    guessed: tuple[str, ...] | None = Field(default=None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: object) -> object:
        """A single intent as a list, values of slots at their places."""
        if not isinstance(data, Mapping):
            return data
        changed = dict(data)
        if isinstance(data.get("intents"), str):
            changed["intents"] = [data["intents"]]
        if isinstance(data.get("slots"), Mapping) and isinstance(data.get("text"), str):
            places, guessed = value_places(data["text"], named_values(data["slots"]))
            changed["slots"] = [{"start": s, "end": e, "label": name} for s, e, name in places]
            changed["guessed"] = [*(data.get("guessed") or ()), *guessed]
        return changed

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for index, slot in enumerate(self.slots or ()):
            check_place(slot, self.text, f"slots[{index}]")
        return self

    @property
    def labelled(self) -> bool:
        return self.intents is not None and self.slots is not None

    @property
    def guesses(self) -> Sequence[str]:
        return self.guessed or ()

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def spans(self) -> list[Span]:
        return [Span(slot.start, slot.end, slot.label) for slot in self.slots or ()]


class SlotFillingConfig(TaskConfig):
    name: Literal["slot_filling"] = "slot_filling"
    intents: Literal["one", "several", "combined"] = Field(
        default="one",
        description="one a text; several: each by itself, at least the likeliest; combined: a#b is a class of its own",
    )
    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="intents: several: probability from which one is given"
    )
    head: Literal["crf", "softmax"] = Field(
        default="crf", description="slot tags decided for the whole text together, or each by itself"
    )
    tagging: Literal["BIO", "BIOES"] = Field(default="BIO", description="tags of the slots")
    intent_conditioned: bool = Field(
        default=False, description="slots are decided with the intents' probabilities in view"
    )
    slot_weight: float = Field(
        default=1.0, gt=0, description="weight of the slots' loss (a token's mean) beside the intents'"
    )
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to the vector that intents are read from; last is for decoders"
    )
    tokens: TokenChoice = "auto"
    unseen_labels: Literal["refuse", "count"] = Field(
        default="refuse",
        description="labels of dev and test that the training set lacks: an error, or mistakes of the model",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)
    window_overlap: int = Field(default=48, ge=0, description="tokens that neighbouring windows share")


class SlotFilling(Task[SlotFillingExample, SlotFillingConfig]):
    name = "slot_filling"
    primary_metric = "sentence_accuracy"
    Example = SlotFillingExample
    Config = SlotFillingConfig

    def __init__(self, config: SlotFillingConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.intents = [label.removeprefix(INTENT) for label in labels if label.startswith(INTENT)]
        self.slots = [label.removeprefix(SLOT) for label in labels if label.startswith(SLOT)]
        self.intent_ids = {name: i for i, name in enumerate(self.intents)}
        self.tags = slot_tags(self.slots, config.tagging)
        self.tag_ids = {tag: i for i, tag in enumerate(self.tags)}
        self.allowed = allowed_transitions(self.tags)

    @property
    def several(self) -> bool:
        return self.config.intents == "several"

    @classmethod
    def collect_labels(cls, config: SlotFillingConfig, examples: Iterable[SlotFillingExample]) -> list[str]:
        intents: set[str] = set()
        slots: set[str] = set()
        for example in examples:
            intents.update(classes_of(example.intents or (), config))
            slots.update(slot.label for slot in example.slots or ())
        if not intents or not slots:
            raise UserError(
                f"slot_filling needs intents and slots, the training set has {len(intents)} and {len(slots)}: check "
                "the data's format and columns; intents alone are text_classification, slots alone ner"
            )
        return [*(INTENT + name for name in sorted(intents)), *(SLOT + name for name in sorted(slots))]

    def label_problems(self, example: SlotFillingExample) -> list[str]:
        problems = [] if self.config.unseen_labels == "count" else self._unseen(example)
        if example.intents is not None and not example.intents:
            problems.append(
                "intents: has none: give texts without an intent one of their own, such as 'none'"
            )
        if self.config.intents == "one" and len(example.intents or ()) > 1:
            problems.append(
                f"intents: has {len(example.intents or ())}: set task.intents: several, or combined for a class of "
                "each combination"
            )
        return problems

    def _unseen(self, example: SlotFillingExample) -> list[str]:
        remedy = (
            "it counts as a mistake (task.unseen_labels: count)"
            if self.config.unseen_labels == "count"
            else "set task.unseen_labels: count to count it as a mistake, or map it with data.label_map"
        )
        return [
            f"intents: {name!r} does not occur in the training set, which has {shown(self.intents)}; {remedy}"
            for name in classes_of(example.intents or (), self.config)
            if name not in self.intent_ids
        ] + [
            f"slots[{i}]: label {slot.label!r} does not occur in the training set, which has {shown(self.slots)}; "
            f"{remedy}"
            for i, slot in enumerate(example.slots or ())
            if SLOT + slot.label not in self.label_ids
        ]

    def as_example(self, item: Any) -> SlotFillingExample:
        return SlotFillingExample(**text_record(item, self.name))

    def encode(self, text: str, tokenizer: Tokenizer) -> Encoding:
        return tokenizer.encode(text, characters=by_character(self.config.tokens, tokenizer))

    def featurize(self, example: SlotFillingExample, tokenizer: Tokenizer) -> list[Row]:
        encoding = self.encode(example.text, tokenizer)
        rows = window_rows(
            encoding, tokenizer, max_length=self.config.max_length, overlap=self.config.window_overlap
        )
        if example.labelled:
            spans, _ = self._token_spans(example, encoding)
            ids = [
                self.intent_ids.get(name, IGNORE) for name in classes_of(example.intents or (), self.config)
            ]
            known = np.array([i for i in ids if i != IGNORE], dtype=np.int64)
            for row in rows:
                row.targets["tags"] = tag_targets(row, spans, self.tag_ids, self.config.tagging)
                if self.several:
                    row.targets["labels"] = known.reshape(-1, 1)
                else:
                    row.targets["label"] = ids[0] if ids else IGNORE
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        return SlotFillingHead(
            backbone.hidden_size,
            len(self.intents),
            len(self.tags),
            pooling=self.config.pooling,
            several=self.several,
            crf=self.config.head == "crf",
            allowed=self.allowed,
            conditioned=self.config.intent_conditioned,
            slot_weight=self.config.slot_weight,
            dropout=self.config.dropout,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: SlotFillingExample
    ) -> Prediction:
        logits_I = pooled_windows(
            [out["intent_logits"] for out in outputs], rows, "mean", one_label=not self.several
        )
        probability_I = 1 / (1 + np.exp(-logits_I)) if self.several else softmax(logits_I)
        best = self.intents[int(probability_I.argmax())]
        if self.several:
            order = np.argsort(-probability_I, kind="stable")
            intents = [self.intents[i] for i in order if probability_I[i] >= self.config.threshold] or [best]
        else:
            intents = best.split(COMBINED) if self.config.intents == "combined" else [best]
        slots = [
            {
                "start": span.start,
                "end": span.end,
                "label": span.label,
                "text": example.text[span.start : span.end],
                "score": round(score, 6),
            }
            for span, score in decode_tags(outputs, rows, self.tags, self.allowed, self.config.tagging)
        ]
        scores = label_scores(probability_I, self.intents)
        return {"text": example.text, "intents": intents, "scores": scores, "slots": slots}

    def score(self, examples: Sequence[SlotFillingExample], predictions: Sequence[Prediction]) -> Scores:
        single = list(dict.fromkeys(name for label in self.intents for name in self._names(label)))
        gold = [
            [name for intent in example.intents or () for name in self._names(intent)] for example in examples
        ]
        return slot_filling_scores(
            (gold, [example.spans for example in examples]),
            ([p["intents"] for p in predictions], [predicted_slots(p) for p in predictions]),
            single,
            self.slots,
        )

    def _names(self, label: str) -> list[str]:
        """The intents that a class stands for, or that a record writes as one."""
        return label.split(COMBINED) if self.config.intents == "combined" else [label]

    def breakdowns(
        self,
        examples: Sequence[SlotFillingExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        scores = self.score(examples, predictions)
        cuts = {"number_of_slots": [NUMBERS_OF_SLOTS[min(len(example.spans), 4)] for example in examples]}
        if known:
            cuts["seen"] = [
                "seen" if self.inventory([example]) <= known else "unseen" for example in examples
            ]
        return {
            cut: {
                group: scores.subset([i for i, own in enumerate(groups) if own == group])
                for group in sorted({*groups})
            }
            for cut, groups in cuts.items()
        }

    def inventory(self, examples: Iterable[SlotFillingExample]) -> set[str]:
        return {
            f"{span.label}\t{example.text[span.start : span.end]}"
            for example in examples
            for span in example.spans
        }

    def confusion(
        self, examples: Sequence[SlotFillingExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        """Of intents; those of several a text can't be told to stand for each other."""
        if self.several:
            return None
        gold = [classes_of(example.intents or (), self.config)[0] for example in examples]
        found = [classes_of(p["intents"], self.config)[0] for p in predictions]
        return self.intents, confusion_matrix(gold, found, self.intents)

    def confidences(
        self, examples: Sequence[SlotFillingExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Of slots."""
        scores, right = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            gold = set(example.spans)
            for slot, span in zip(prediction["slots"], predicted_slots(prediction), strict=True):
                scores.append(slot["score"])
                right.append(span in gold)
        return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: SlotFillingExample, tokenizer: Tokenizer) -> list[str]:
        spans, lost = self._token_spans(example, self.encode(example.text, tokenizer))
        room = room_of(tokenizer, self.config.max_length)
        return lost + too_long(spans, room, "a slot") + self._unseen(example)

    def _token_spans(self, example: SlotFillingExample, encoding: Encoding) -> tuple[list[Span], list[str]]:
        return token_spans(
            example.spans,
            example.text,
            encoding,
            self.slots,
            overlap="overlaps another slot: a token has one tag, so remove one of them",
        )


def classes_of(intents: Sequence[str], config: SlotFillingConfig) -> list[str]:
    """The classes that a text's intents are to the model: themselves, or their combination, in whatever order, also
    where a record writes it as one."""
    if config.intents == "combined" and intents:
        return [COMBINED.join(sorted({name for intent in intents for name in intent.split(COMBINED)}))]
    return list(dict.fromkeys(intents))


def slot_tags(names: Sequence[str], scheme: Scheme) -> list[str]:
    """``O``, then all tags by the name of their slot and then by their prefix, whatever the order of ``names``.

    So a tag keeps its place for a set of names, and all tags of a slot are neighbours.
    """
    tags = [tag for tag in label_tags(names, scheme) if tag != OUTSIDE]
    return [OUTSIDE, *sorted(tags, key=lambda tag: (tag[2:], tag[:1]))]


def predicted_slots(prediction: Prediction) -> list[Span]:
    return [Span(slot["start"], slot["end"], slot["label"]) for slot in prediction["slots"]]
