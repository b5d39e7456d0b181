"""A page with its words, their boxes and what they say: the record of document layout, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.data.conll import join_words
from wenmai.tasks.task import Example
from wenmai.text.boxes import THOUSAND, Box, ThousandthBox, in_thousandths
from wenmai.text.spans import Span

Range = tuple[int, int]
Finite = Annotated[float, Field(allow_inf_nan=False)]
BoxField = tuple[Finite, Finite, Finite, Finite]


class PageWord(BaseModel):
    """``box`` is ``[left, top, right, bottom]``; ``segment_box`` that of the line or block the word is part of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    box: BoxField
    segment_box: BoxField | None = None


class PageEntity(BaseModel):
    """``words`` are numbers of the page's words from 0, in order; or ``start`` and ``end`` are characters of its text.

    Each follows from the other; ``text``, where the file gives it, must be what stands at these characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1)
    words: tuple[int, ...]
    start: int
    end: int
    text: str | None = None


class PageLink(BaseModel):
    """Numbers of two entities from 0: ``value`` belongs to ``key``, as an answer to its question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: int
    value: int


class DocumentLayoutExample(Example):
    """``{"words": [{"text", "box"}], "width", "height", "entities": [...], "links": [...]}``, see the parts above.

    ``width`` and ``height`` of the page are in the unit of the boxes; without them boxes are thousandths of the page.
    ``text`` follows from the words (:func:`page_text`). Unlabelled is no ``entities`` at all.
    """

    words: tuple[PageWord, ...]
    text: str = ""
    width: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    height: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    entities: tuple[PageEntity, ...] | None = None
    links: tuple[PageLink, ...] | None = None

    @classmethod
    def inputs(cls) -> set[str]:
        return {"words", "text", "width", "height"}

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, data: object) -> object:
        """The text, and of every entity both its words and its characters; words without the places that predictions
        have."""
        if not isinstance(data, Mapping) or not isinstance(data.get("words"), list | tuple):
            return data
        texts = [
            word["text"]
            for word in data["words"]
            if isinstance(word, Mapping) and isinstance(word.get("text"), str)
        ]
        if len(texts) < len(data["words"]):
            return data
        text, places = page_text(texts)
        changed = {**data, "text": text if data.get("text") is None else data["text"]}
        changed["words"] = [_bare(word, place) for word, place in zip(data["words"], places, strict=True)]
        if isinstance(data.get("entities"), list | tuple):
            changed["entities"] = [_both_ways(entity, places) for entity in data["entities"]]
        return changed

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.text != (joined := page_text([word.text for word in self.words])[0]):
            raise ValueError(
                f"text: is {_short(self.text)}, but the words are {_short(joined)}: leave it out"
            )
        self._check_boxes()
        for index, entity in enumerate(self.entities or ()):
            self._check_entity(entity, f"entities[{index}]: ")
        self._check_links()
        return self

    @property
    def labelled(self) -> bool:
        return self.entities is not None

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def guesses(self) -> Sequence[str]:
        beyond = [place for place, box in self._boxes() if not self._inside(box)]
        if not beyond:
            return ()
        return (
            f"{len(beyond)} boxes reach beyond the page and are cut at its edge, the first is {beyond[0]}",
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in the unit of the boxes."""
        return (self.width or THOUSAND, self.height or THOUSAND)

    @cached_property
    def places(self) -> list[Range]:
        """The characters of each word."""
        return page_text([word.text for word in self.words])[1]

    @property
    def spans(self) -> list[Span]:
        return [Span(entity.start, entity.end, entity.label) for entity in self.entities or ()]

    def thousandths(self, *, segments: bool) -> list[ThousandthBox]:
        """The box of each word in thousandths of the page, or that of its segment where it has one."""
        return [
            in_thousandths(word.segment_box if segments and word.segment_box else word.box, *self.size)
            for word in self.words
        ]

    def _boxes(self) -> list[tuple[str, Box]]:
        boxes: list[tuple[str, Box]] = []
        for index, word in enumerate(self.words):
            boxes.append((f"words[{index}].box", word.box))
            if word.segment_box is not None:
                boxes.append((f"words[{index}].segment_box", word.segment_box))
        return boxes

    def _inside(self, box: Box) -> bool:
        width, height = self.size
        return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height

    def _check_boxes(self) -> None:
        if (self.width is None) != (self.height is None):
            missing = "width" if self.width is None else "height"
            raise ValueError(f"{missing}: is missing: give the page's width and height, or neither")
        width, height = self.size
        for place, box in self._boxes():
            left, top, right, bottom = box
            if right < left or bottom < top:
                raise ValueError(
                    f"{place}: {list(box)} ends before it begins: a box is [left, top, right, bottom], from the upper "
                    "left corner of the page"
                )
            if self.width is None and not self._inside(box):
                raise ValueError(
                    f"{place}: {list(box)} is not within 0 to {THOUSAND}: give the width and height of the page, in "
                    "the unit of the boxes"
                )
            if right < 0 or bottom < 0 or left > width or top > height:
                raise ValueError(
                    f"{place}: {list(box)} lies outside of the page, which is {width:g} wide and {height:g} high: "
                    "boxes, width and height are in one unit"
                )

    def _check_entity(self, entity: PageEntity, where: str) -> None:
        numbers = entity.words
        if "\t" in entity.label:
            raise ValueError(f"{where}label {entity.label!r} holds a tab")
        if not numbers:
            raise ValueError(f"{where}has no words: give the numbers of its words, from 0")
        if min(numbers) < 0 or max(numbers) >= len(self.words) or list(numbers) != sorted({*numbers}):
            raise ValueError(
                f"{where}words {list(numbers)} are not numbers from 0 to {len(self.words) - 1} in order, each once"
            )
        first, last = self.places[numbers[0]], self.places[numbers[-1]]
        if (entity.start, entity.end) != (first[0], last[1]):
            raise ValueError(
                f"{where}start {entity.start} and end {entity.end} are not where words begin and end: "
                f"words {list(numbers)} are {first[0]}:{last[1]} of the page's text"
            )
        surface = self.text[entity.start : entity.end]
        if entity.text is not None and entity.text != surface:
            raise ValueError(f"{where}its words are {_short(surface)}, not {_short(entity.text)}")

    def _check_links(self) -> None:
        count = len(self.entities or ())
        for index, link in enumerate(self.links or ()):
            if not (0 <= link.key < count and 0 <= link.value < count) or link.key == link.value:
                raise ValueError(
                    f"links[{index}]: key {link.key} and value {link.value} are not the numbers of two of the "
                    f"record's {count} entities, counted from 0"
                )


def page_text(words: Sequence[str]) -> tuple[str, list[Range]]:
    """The words of a page as one text, joined as tokens of CoNLL files are, and the characters of each.

    Words without a character have an empty place behind the word before.
    """
    text, found = join_words([word for word in words if word])
    ranges = iter(found)
    places: list[Range] = []
    for word in words:
        end = places[-1][1] if places else 0
        places.append(next(ranges) if word else (end, end))
    return text, places


def _bare(word: Mapping[str, Any], place: Range) -> Mapping[str, Any]:
    """A word without ``start`` and ``end``, where these are what follows from the words."""
    if (word.get("start"), word.get("end")) != place:
        return word
    return {key: value for key, value in word.items() if key not in ("start", "end")}


def _both_ways(entity: object, places: Sequence[Range]) -> object:
    if not isinstance(entity, Mapping):
        return entity
    words, start, end = (entity.get(key) for key in ("words", "start", "end"))
    if words is None and isinstance(start, int) and isinstance(end, int):
        inside = [i for i, (first, stop) in enumerate(places) if start <= first < stop <= end]
        return {**entity, "words": inside}
    known = isinstance(words, Sequence) and all(isinstance(i, int) and 0 <= i < len(places) for i in words)
    if known and words and start is None and end is None:
        return {**entity, "start": places[words[0]][0], "end": places[words[-1]][1]}
    return {"start": 0, "end": 0, **entity} if words is not None else entity


def _short(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}…")


def as_record(item: Any) -> dict[str, Any] | None:
    """The fields of a page without its labels; None if the item is no page."""
    if not isinstance(item, Mapping) or not isinstance(item.get("words"), list | tuple):
        return None
    return {key: item[key] for key in ("id", "words", "width", "height") if item.get(key) is not None}
