"""A pair of entities of one text as one row: markers around them, and of a long text the part that holds both."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.marked_pair import OBJECT, OBJECT_START, SUBJECT, SUBJECT_START
from wenmai.text.places import TAGS, Range

BITS = ((SUBJECT, SUBJECT_START), (OBJECT, OBJECT_START))


@dataclass(frozen=True)
class PairTokens:
    """The tokens of a text, none of which crosses a border of an entity.

    Args:
        encoding: of the whole text.
        entities: the tokens ``[first, stop)`` of the subject and the object; empty where the tokenizer drops all of an
            entity's characters.
    """

    encoding: Encoding
    entities: tuple[Range, Range]


@dataclass(frozen=True)
class PairCut:
    """What of a text a row holds.

    Args:
        kept: indices of its tokens, in order.
        between: tokens left out between the entities, which were too far apart.
        of_entities: tokens left out of the entities themselves, which were too long.
    """

    kept: Sequence[int]
    between: int
    of_entities: int


def marker_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of :data:`wenmai.text.places.TAGS`.

    Raises:
        UserError: the vocabulary does not have them.
    """
    found = _known_markers(tokenizer)
    if len(found) < len(TAGS):
        raise UserError(
            f"the vocabulary has no {', '.join(TAGS)}: open the model with wenmai.load or a run, which add them, "
            "or set task.markers: false"
        )
    return found


def _known_markers(tokenizer: Tokenizer) -> list[int]:
    """The ids of those tags that the vocabulary has; the vocabulary itself would take long to get."""
    ids = [tokenizer.pretrained.convert_tokens_to_ids(tag) for tag in TAGS]
    return [int(i) for i in ids if i not in (None, tokenizer.unk_id)]


def pair_tokens(
    text: str, subject: Range, target: Range, tokenizer: Tokenizer, *, characters: bool
) -> PairTokens:
    """Tokens and entities; where a piece would cross a border of an entity, the text is tokenised in parts.

    Tags that a user wrote in the text are text: they never become markers.

    Args:
        subject, target: characters of both entities.
        characters: see :meth:`Tokenizer.encode`.
    """
    encoding = _plain(text, tokenizer, characters)
    borders = {*subject, *target}
    if any(start < border < end for start, end in _around(encoding, borders) for border in borders):
        ids: list[int] = []
        offsets: list[Range] = []
        for begin, end in pairwise(sorted({0, len(text), *borders})):
            part = _plain(text[begin:end], tokenizer, characters)
            ids += part.ids
            offsets += [(begin + first, begin + last) for first, last in part.offsets]
        encoding = Encoding(ids, offsets)
    starts = [start for start, _ in encoding.offsets]
    first, second = (
        (bisect_left(starts, start), bisect_left(starts, end)) for start, end in (subject, target)
    )
    return PairTokens(encoding, (first, second))


def _around(encoding: Encoding, borders: set[int]) -> list[Range]:
    """The tokens that may cross a border: the last that begins before each."""
    starts = [start for start, _ in encoding.offsets]
    return [encoding.offsets[at - 1] for border in borders if (at := bisect_left(starts, border)) > 0]


def _plain(text: str, tokenizer: Tokenizer, characters: bool) -> Encoding:
    encoding = tokenizer.encode(text, characters=characters)
    markers = {*_known_markers(tokenizer)}
    if not markers.intersection(encoding.ids):
        return encoding
    ids: list[int] = []
    offsets: list[Range] = []
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        part = Encoding([token], [(0, end - start)])
        if token in markers:
            part = tokenizer.encode(text[start:end], characters=True)
        ids += part.ids
        offsets += [(start + first, start + last) for first, last in part.offsets]
    return Encoding(ids, offsets)


def cut(tokens: PairTokens, room: int) -> PairCut:
    """The part of a text that a row has room for.

    A text that fits stays whole. Else a window with both entities in its middle; where they are too far apart, half of
    the room around each, and what lies between is left out; of an entity longer than its half, the beginning.

    Args:
        room: tokens, 2 at least.
    """
    total = len(tokens.encoding)
    (first, stop), (other, end) = sorted(tokens.entities)
    begin, end_of_both = first, max(stop, end)
    if total <= room:
        kept = list(range(total))
    elif end_of_both - begin <= room:
        kept = list(_window(begin, end_of_both, room, total))
    else:
        parts = (
            _window(first, stop, room - room // 2, total),
            _window(other, end, room // 2, total),
        )
        kept = sorted({*parts[0], *parts[1]})
    holds = {*kept}
    of_entities = len({i for entity in tokens.entities for i in range(*entity) if i not in holds})
    between = sum(i not in holds for i in range(stop, other))
    return PairCut(kept, between, of_entities)


def _window(first: int, stop: int, room: int, total: int) -> range:
    """``room`` tokens with ``[first, stop)`` in their middle, or its beginning if it is longer."""
    spare = room - (stop - first)
    begin = first if spare < 0 else min(max(0, first - spare // 2), max(0, total - room))
    return range(begin, min(begin + room, total))


def pair_row(tokens: PairTokens, kept: Sequence[int], tokenizer: Tokenizer, *, markers: bool) -> Row:
    """The row of the kept tokens, with its input ``pair_marks``; see :class:`MarkedPairHead`.

    Args:
        markers: whether :data:`TAGS` stand around the entities; an entity that lies in the other is marked inside it.
    """
    template = tokenizer.single
    encoding = tokens.encoding
    entities = [(bisect_left(kept, first), bisect_left(kept, stop)) for first, stop in tokens.entities]
    written = marker_ids(tokenizer) if markers else []
    ids, offsets, marks = list(template.before), [(0, 0)] * len(template.before), [0] * len(template.before)

    def write(which: int, closing: bool) -> None:
        if markers:
            ids.append(written[2 * which + closing])
            offsets.append((0, 0))
            marks.append(0 if closing else BITS[which][1])

    for at in range(len(kept) + 1):
        for which, closing in _tags_at(at, entities):
            write(which, closing)
        if at == len(kept):
            break
        ids.append(encoding.ids[kept[at]])
        offsets.append(encoding.offsets[kept[at]])
        marks.append(0)
        for (first, stop), (inside, start) in zip(entities, BITS, strict=True):
            if first <= at < stop:
                marks[-1] |= inside | (start if at == first and not markers else 0)
    content = (len(template.before), len(ids))
    after = template.after
    return Row(
        inputs={
            "input_ids": [*ids, *after],
            "token_type_ids": [template.types[1]] * (len(ids) + len(after)),
            "pair_marks": [*marks, *([0] * len(after))],
        },
        offsets=[*offsets, *([(0, 0)] * len(after))],
        content=content,
    )


def _tags_at(at: int, entities: Sequence[Range]) -> list[tuple[int, bool]]:
    """Which tags stand before a token, in order: what ends there closes, the inner one first; then what begins opens,
    the outer one first. An entity without a token opens and closes in between."""
    closing = sorted(
        (i for i, (first, stop) in enumerate(entities) if first < stop == at),
        key=lambda i: (-entities[i][0], -i),
    )
    empty = [i for i, (first, stop) in enumerate(entities) if first == stop == at]
    opening = sorted(
        (i for i, (first, stop) in enumerate(entities) if first == at < stop),
        key=lambda i: (-entities[i][1], i),
    )
    return [
        *((i, True) for i in closing),
        *(tag for i in empty for tag in ((i, False), (i, True))),
        *((i, False) for i in opening),
    ]
