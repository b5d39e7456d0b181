"""Pages as rows: the tokens of their words with boxes, and what of the gold a row can say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.boxes import BOX
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import IGNORE, Row, Target
from wenmai.tasks.layout_example import DocumentLayoutExample
from wenmai.tasks.sentence_rows import encode_words
from wenmai.tasks.windows import overlap_in, room_of, rows_at, window_bounds
from wenmai.text.boxes import THOUSAND, ThousandthBox, around
from wenmai.text.spans import Span
from wenmai.text.tags import Scheme, tags_from_spans

Boxes = Literal["words", "segments", "none"]
BEFORE, AFTER = (0, 0, 0, 0), (THOUSAND, THOUSAND, THOUSAND, THOUSAND)
"""Boxes of the special tokens before and after the words, as LayoutLM was trained with them."""


def page_rows(
    example: DocumentLayoutExample, tokenizer: Tokenizer, *, boxes: Boxes, max_length: int, overlap: int
) -> list[Row]:
    """The windows over a page's words, each word read by itself.

    Args:
        boxes: which the rows have.
        max_length: most tokens in a row, special tokens included.
        overlap: tokens that neighbouring windows share.
    """
    readable = [place for place in example.places if place[0] < place[1]]
    whole = [(0, len(example.text))]
    encoding = encode_words(
        example.text, readable, whole, tokenizer, characters=False, room=max(1, 10 * len(example.text))
    )[0]
    room = room_of(tokenizer, max_length)
    rows = rows_at(encoding, tokenizer, window_bounds(len(encoding), room, overlap_in(room, overlap)))
    if boxes != "none":
        box_T = boxes_of_tokens(example, encoding, segments=boxes == "segments")
        for row in rows:
            first, stop = row.content
            own = (
                [BEFORE] * first + box_T[row.window : row.window + stop - first] + [AFTER] * (len(row) - stop)
            )
            for side, name in enumerate(BOX):
                row.inputs[name] = [box[side] for box in own]
    return rows


def boxes_of_tokens(
    example: DocumentLayoutExample, encoding: Encoding, *, segments: bool
) -> list[ThousandthBox]:
    """The box of the word that each token is part of."""
    boxes = example.thousandths(segments=segments)
    first = first_words(example)
    found: list[ThousandthBox] = []
    for start, _ in encoding.offsets:
        found.append(boxes[first[start]] if start in first else found[-1])
    return found


def first_words(example: DocumentLayoutExample) -> dict[int, int]:
    """Character of the text -> the word that begins there."""
    return {start: index for index, (start, end) in enumerate(example.places) if start < end}


def word_spans(example: DocumentLayoutExample, labels: Collection[str]) -> tuple[list[Span], list[str]]:
    """The gold entities as ranges of the words that have characters, and a sentence for each that is none.

    Args:
        labels: that are known; entities with others are passed over, and named.
    """
    number = {index: at for at, index in enumerate(first_words(example).values())}
    taken = np.zeros(len(number), dtype=bool)
    found: list[Span] = []
    lost: list[str] = []
    for index, entity in enumerate(example.entities or ()):
        named = f"entities[{index}] ({entity.label}, {example.text[entity.start : entity.end][:40]!r})"
        words = [number[word] for word in entity.words if word in number]
        if entity.label not in labels:
            lost.append(f"{named} has a label that does not occur in the training set")
        elif not words:
            lost.append(f"{named} has no word with a character")
        elif words[-1] - words[0] + 1 != len(words):
            lost.append(
                f"{named} has other words between its own: order the words so that they follow each other"
            )
        elif taken[words[0] : words[-1] + 1].any():
            lost.append(
                f"{named} shares words with another entity: a word has one label, so remove one of them"
            )
        else:
            taken[words[0] : words[-1] + 1] = True
            found.append(Span(words[0], words[-1] + 1, entity.label))
    return sorted(found), lost


def row_targets(
    example: DocumentLayoutExample,
    rows: Sequence[Row],
    name_ids: Mapping[str, int],
    tag_ids: Mapping[str, int] | None,
    possible: NDArray[np.bool_] | None,
    *,
    scheme: Scheme,
    boxes: Boxes,
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The targets of :class:`wenmai.heads.layout.LayoutHead` for each row, and a sentence for what no row can say.

    Args:
        rows: of the page, from :func:`page_rows`.
        tag_ids: None: entities are given, not found.
        possible: (C, C): between which labels training has links; None: links are not learned.
    """
    found: list[dict[str, Target]] = [{} for _ in rows]
    lost: list[str] = []
    first = first_words(example)
    begins = [_words_of(row, first) for row in rows]
    if tag_ids is not None:
        known = tags_from_spans(word_spans(example, name_ids)[0], len(first), scheme)
        # also those of entities that a window cuts through: each word's tag is known
        tag_of = {word: tag_ids[tag] for word, tag in zip(first.values(), known, strict=True)}
        for targets, row, words in zip(found, rows, begins, strict=True):
            tags = [IGNORE] * len(row)
            for token, word in words:
                tags[token] = tag_of[word]
            targets["tags"] = tags
    if possible is not None:
        held: set[tuple[int, int]] = set()
        learned, seen = _learnable(example, name_ids, possible), seen_boxes(example, boxes)
        for targets, words in zip(found, begins, strict=True):
            token_of = {word: token for token, word in words}
            targets["entities"], numbers = _entities(example, token_of, name_ids, seen)
            inside = [(key, value) for key, value in learned if key in numbers and value in numbers]
            held.update(inside)
            pairs = [(numbers[key], numbers[value]) for key, value in inside]
            targets["links"] = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        if unknown := len({(link.key, link.value) for link in example.links or ()}) - len(learned):
            lost.append(f"{unknown} links are between labels that have none in the training set")
        if apart := len(set(learned) - held):
            lost.append(
                f"{apart} of {len(learned)} links have ends that no row holds together, so nothing is learned from "
                "them: raise task.max_length or task.window_overlap"
            )
    return list(found), lost


def seen_boxes(example: DocumentLayoutExample, boxes: Boxes) -> list[ThousandthBox]:
    """Of each word the box that the model sees; all 0 where it sees none."""
    if boxes == "none":
        return [BEFORE] * len(example.words)
    return example.thousandths(segments=boxes == "segments")


def head_word(example: DocumentLayoutExample, words: Sequence[int]) -> int:
    """The first of an entity's words that has a character, which stands for the entity; or just the first."""
    return next((word for word in words if example.words[word].text), words[0])


def _words_of(row: Row, first: Mapping[int, int]) -> list[tuple[int, int]]:
    """First token and number of every word that begins in the row."""
    start, stop = row.content
    return [
        (token, first[row.offsets[token][0]])
        for token in range(start, stop)
        if row.offsets[token][0] in first
    ]


def _learnable(
    example: DocumentLayoutExample, name_ids: Mapping[str, int], possible: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """The links between labels that have any in training, as numbers of entities."""
    entities = example.entities or ()
    found = []
    for link in example.links or ():
        key, value = (name_ids.get(entities[end].label) for end in (link.key, link.value))
        if key is not None and value is not None and possible[key, value]:
            found.append((link.key, link.value))
    return list(dict.fromkeys(found))


def _entities(
    example: DocumentLayoutExample,
    token_of: Mapping[int, int],
    name_ids: Mapping[str, int],
    seen: Sequence[ThousandthBox],
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """The entities that begin in a row (N, 6), and number on the page -> number among these."""
    found: list[tuple[int, ...]] = []
    numbers: dict[int, int] = {}
    for index, entity in enumerate(example.entities or ()):
        token = token_of.get(head_word(example, entity.words))
        if token is not None and entity.label in name_ids:
            numbers[index] = len(found)
            box = around(seen[word] for word in entity.words)
            found.append((token, name_ids[entity.label], *map(int, box)))
    return np.array(found, dtype=np.int64).reshape(-1, 6), numbers
