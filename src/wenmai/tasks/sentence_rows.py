"""Texts as rows of one sentence each: where rows end, which tokens make a word, where it is open whether one begins.

Ranges of words and sentences are characters ``[start, end)`` of the text, in order, not overlapping.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.text.sentences import CLAUSE_MARKS

Border = Literal["blank", "begins", "open"]
"""Of a token: it is no part of a word; a word begins, as a blank or nothing stands before it; it may begin or not."""
Range = tuple[int, int]
Offsets = Sequence[Range]
Tokens = tuple[int, int]
"""Tokens ``[first, stop)`` of a word."""


def encode_sentences(
    text: str, sentences: Sequence[Range], tokenizer: Tokenizer, *, characters: bool, room: int
) -> list[Encoding]:
    """The sentences of a text, those that do not fit in parts, those without a token left out; at least one encoding.

    Args:
        characters: one token for every character.
        room: most tokens of an encoding.
    """
    found = tokenizer.encode_batch([text[start:end] for start, end in sentences], characters=characters)
    shifted = [_shifted(encoding, start) for (start, _), encoding in zip(sentences, found, strict=True)]
    return _rows_of(part for encoding in shifted for part in fitting(encoding, text, room))


def encode_words(
    text: str,
    words: Sequence[Range],
    sentences: Sequence[Range],
    tokenizer: Tokenizer,
    *,
    characters: bool,
    room: int,
) -> list[Encoding]:
    """As :func:`encode_sentences`, with every word read by itself, so that its tokens are its own and cover it."""
    found = tokenizer.encode_batch([text[start:end] for start, end in words], characters=characters)
    whole = []
    for (start, end), encoding in zip(words, found, strict=True):
        if not len(encoding):
            encoding = tokenizer.encode(text[start:end], characters=True)
        encoding = _shifted(encoding, start)
        encoding.offsets[0] = (start, encoding.offsets[0][1])
        encoding.offsets[-1] = (encoding.offsets[-1][0], end)
        whole.append(encoding)
    starts = [start for start, _ in words]
    joined = (_joined(whole[slice(*beginning_in(*sentence, starts))]) for sentence in sentences)
    return _rows_of(part for encoding in joined for part in fitting(encoding, text, room, set(starts)))


def fitting(
    encoding: Encoding, text: str, room: int, starts: Collection[int] | None = None
) -> Iterator[Encoding]:
    """A sentence in parts of at most ``room`` tokens: one if it fits.

    A longer one is cut behind the last comma or blank in the second half of the room, else where the room ends.

    Args:
        encoding: of the sentence; its offsets are those of the text.
        starts: the only characters that a part may begin at, as far as one of them lies in the room.
    """
    first = 0
    while len(encoding) - first > room:
        half, limit = first + (room + 1) // 2, first + room
        places = [at for at in range(limit, first, -1) if starts is None or encoding.offsets[at][0] in starts]
        free = (at for at in places if at >= half and text[encoding.offsets[at][0] - 1] in CLAUSE_MARKS)
        cut = next(free, places[0] if places else limit)
        yield encoding.slice(first, cut)
        first = cut
    yield encoding.slice(first, len(encoding))


def sentence_row(encoding: Encoding, tokenizer: Tokenizer, window: int) -> Row:
    """One row with the special tokens of a single sequence around it.

    Args:
        window: tokens of the text before it.
    """
    template = tokenizer.single
    before, after = template.before, template.after
    ids = [*before, *encoding.ids, *after]
    return Row(
        inputs={"input_ids": ids, "token_type_ids": [template.types[1]] * len(ids)},
        offsets=[(0, 0)] * len(before) + encoding.offsets + [(0, 0)] * len(after),
        content=(len(before), len(before) + len(encoding)),
        window=window,
    )


def borders(text: str, offsets: Offsets) -> list[Border]:
    """What the text itself says of each token: a blank ends a word and belongs to none."""
    found: list[Border] = []
    before = -1
    for start, end in offsets:
        if text[start:end].isspace():
            found.append("blank")
            continue
        after_blank = before < 0 or any(character.isspace() for character in text[before:start])
        found.append("begins" if after_blank else "open")
        before = end
    return found


def words_of(begins_T: NDArray[np.floating], known: Sequence[Border]) -> list[Tokens]:
    """The words of a sentence.

    Args:
        begins_T: above 0 where a word begins, as far as it is open.
        known: of :func:`borders`.
    """
    words: list[Tokens] = []
    for token, border in enumerate(known):
        if border == "begins" or (border == "open" and begins_T[token] > 0):
            words.append((token, token + 1))
        elif border == "open":
            words[-1] = (words[-1][0], token + 1)
    return words


def place_words(
    text: str, words: Sequence[Range], rows: Sequence[Row], *, given: bool
) -> tuple[list[dict[int, Tokens]], dict[int, str]]:
    """Where words stand in rows.

    Args:
        given: the rows are made of :func:`encode_words`; else words have to end where :func:`borders` says.

    Returns:
        per row, number of the word -> its tokens, counted from the row's first token of the text; and number -> reason
        for the words that stand in no row.
    """
    starts = [start for start, _ in words]
    missing = dict.fromkeys(range(len(words)), "begins or ends inside a token: set task.tokens: characters")
    placed = []
    for row in rows:
        offsets = row.offsets[slice(*row.content)]
        known = borders(text, offsets)
        token_starts = [start for start, _ in offsets]
        here: dict[int, Tokens] = {}
        between = (offsets[0][0], offsets[-1][1]) if offsets else (0, 0)
        for index in range(*beginning_in(*between, starts)):
            first, stop = beginning_in(*words[index], token_starts)
            if first == stop or (offsets[first][0], offsets[stop - 1][1]) != words[index]:
                continue
            if not given and any(border != "open" for border in known[first + 1 : stop]):
                missing[index] = "holds a blank, at which every word ends"
                continue
            here[index] = (first, stop)
            del missing[index]
        placed.append(here)
    return placed, missing


def beginning_in(start: int, end: int, starts: Sequence[int]) -> tuple[int, int]:
    """The numbers ``[first, stop)`` of the tokens, or words, that begin inside of the characters ``[start, end)``.

    Args:
        starts: the first character of each, ascending.
    """
    return bisect_left(starts, start), bisect_left(starts, end)


def _shifted(encoding: Encoding, by: int) -> Encoding:
    return Encoding(encoding.ids, [(start + by, end + by) for start, end in encoding.offsets])


def _joined(encodings: Sequence[Encoding]) -> Encoding:
    return Encoding(
        [token for encoding in encodings for token in encoding.ids],
        [place for encoding in encodings for place in encoding.offsets],
    )


def _rows_of(parts: Iterable[Encoding]) -> list[Encoding]:
    return [part for part in parts if len(part)] or [Encoding([], [])]
