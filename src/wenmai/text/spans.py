"""Spans: ranges of characters or tokens, end-exclusive, and the way between the two.

Characters are Unicode code points of the string that the user gave: ``text[span.start:span.end]`` is the
surface.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A labelled range ``[start, end)``."""

    start: int
    end: int
    label: str


Offsets = Sequence[tuple[int, int]]
"""Per token, the range of characters ``(start, end)`` of the original text that it stands for."""


class TokenAligner:
    """Character ranges to token ranges, each in constant time once the offsets were read.

    Args:
        offsets: per token its characters, in order, not overlapping; tokens of no character have
            ``start == end``.
    """

    def __init__(self, offsets: Offsets):
        self._token_at_start: dict[int, int] = {}
        self._token_at_end: dict[int, int] = {}
        for index, (start, end) in enumerate(offsets):
            if start != end:
                self._token_at_start.setdefault(start, index)
                self._token_at_end.setdefault(end, index)

    def to_tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The tokens ``[first, last + 1)`` that cover the characters ``[start, end)`` exactly.

        Returns:
            None if no run of tokens begins at ``start`` and ends at ``end``: the span can't be expressed.
        """
        first, last = self._token_at_start.get(start), self._token_at_end.get(end)
        return (first, last + 1) if first is not None and last is not None and first <= last else None


def to_token_span(start: int, end: int, offsets: Offsets) -> tuple[int, int] | None:
    """:meth:`TokenAligner.to_tokens` for a single span; reads all offsets, so keep an aligner for several."""
    return TokenAligner(offsets).to_tokens(start, end)


def to_character_span(first: int, stop: int, offsets: Offsets) -> tuple[int, int]:
    """The characters that the tokens ``[first, stop)`` stand for."""
    return offsets[first][0], offsets[stop - 1][1]


def overlapping(spans: Iterable[tuple[int, int, str]]) -> list[tuple[Span, Span]]:
    """All pairs of different spans that share a character (nesting included), in order of their starts."""
    ordered = sorted({Span(*span) for span in spans})
    pairs = []
    for i, left in enumerate(ordered):
        for right in ordered[i + 1 :]:
            if right.start >= left.end:
                break
            pairs.append((left, right))
    return pairs
