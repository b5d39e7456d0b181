"""Normalised text that knows where each of its characters comes from.

Every step (controls, Unicode NFKC, traditional to simplified) is a list of replacements of ranges, and every
character of the result keeps the range of the original that it stands for. What one replacement joins (``e``
and an accent to ``é``) or spreads (``㎏`` to ``kg``) maps as a whole; all else maps character by character.

Reference: Unicode Standard Annex 15, Unicode Normalization Forms.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from wenmai.errors import UserError

Edit = tuple[int, int, str]
"""Characters ``[start, end)`` and what stands there instead."""


@dataclass(frozen=True)
class NormalizedText:
    """A text and the way back to the text that it was made from.

    Args:
        original: the text as it was given.
        text: the text now.
        starts, ends: for each character of ``text`` the characters ``[start, end)`` of ``original`` that it
            stands for; neither ever decreases. Python ranges while nothing was replaced: no memory, no time.
    """

    original: str
    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Per character of ``text`` its range of ``original``."""
        return list(zip(self.starts, self.ends, strict=True))

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The characters of ``original`` that ``text[start:end]`` stands for; an empty range stays empty.

        Characters that were dropped before and after the range are not part of it.
        """
        if start < end:
            return self.starts[start], self.ends[end - 1]
        at = self.starts[start] if start < len(self.text) else len(self.original)
        return at, at

    def from_original(self, start: int, end: int) -> tuple[int, int]:
        """The shortest range of ``text`` that stands for all of ``original[start:end]`` that was kept.

        It stands for more than was asked for if the range begins or ends inside characters that were joined;
        then ``to_original`` of the result is not ``(start, end)``.
        """
        first, stop = bisect_right(self.ends, start), bisect_left(self.starts, end)
        return (first, stop) if start < end and first < stop else (first, first)

    def edited(self, edits: Iterable[Edit]) -> NormalizedText:
        """The text with ranges of ``text`` replaced, the map carried along.

        Args:
            edits: in order, not overlapping, none of an empty range.
        """
        pieces: list[str] = []
        starts, ends = array("q"), array("q")
        position = 0
        for start, end, replacement in edits:
            pieces += (self.text[position:start], replacement)
            starts.extend(self.starts[position:start])
            ends.extend(self.ends[position:start])
            starts.extend([self.starts[start]] * len(replacement))
            ends.extend([self.ends[end - 1]] * len(replacement))
            position = end
        if position == 0:
            return self
        pieces.append(self.text[position:])
        starts.extend(self.starts[position:])
        ends.extend(self.ends[position:])
        return NormalizedText(self.original, "".join(pieces), starts, ends)


def normalize(
    text: str, *, compatibility: bool = True, controls: bool = True, simplify: bool = False
) -> NormalizedText:
    """A text in one spelling of everything that means the same.

    Args:
        compatibility: Unicode NFKC: full and half width, ligatures, circled and squared characters, accents
            composed. Chinese commas, colons, question and exclamation marks become ASCII; ``。、`` stay.
        controls: every line end becomes ``\\n``, a tab a space, a lone surrogate U+FFFD; other controls and
            characters of no width are removed, but joiners in emoji and in scripts that need them stay.
        simplify: traditional to simplified Chinese with OpenCC, by phrases.

    Raises:
        UserError: ``simplify`` without the package OpenCC.
    """
    result = NormalizedText(text, text, range(len(text)), range(1, len(text) + 1))
    if controls:
        result = result.edited(_control_edits(result.text))
    if compatibility:
        result = result.edited(_compatibility_edits(result.text))
    if simplify:
        convert = _simplifier()
        result = result.edited(_conversion_edits(result.text, convert(result.text), convert))
    return result


_CONTROL = re.compile(
    "(?P<line>\r\n|[\n\r\x0b\x0c\x85\u2028\u2029])"
    "|(?P<tab>\t)"
    "|(?P<surrogate>[\ud800-\udfff])"
    "|(?P<joiner>[\u200c\u200d])"
    "|[\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def _control_edits(text: str) -> Iterator[Edit]:
    for match in _CONTROL.finditer(text):
        start, end = match.span()
        if match["line"]:
            if match["line"] != "\n":
                yield start, end, "\n"
        elif match["tab"]:
            yield start, end, " "
        elif match["surrogate"]:
            yield start, end, "\ufffd"
        elif not (match["joiner"] and _joins(text[start - 1 : start]) and _joins(text[end : end + 1])):
            yield start, end, ""


def _joins(neighbour: str) -> bool:
    """Whether a joiner beside this character (or end of text) can change how it looks."""
    if neighbour < "\u0300":
        return False
    kind = unicodedata.category(neighbour)[0]
    return kind in "MS" or (kind == "L" and unicodedata.east_asian_width(neighbour) not in "WF")


def _compatibility_edits(text: str) -> Iterator[Edit]:
    if unicodedata.is_normalized("NFKC", text):
        return
    start = 0
    for stop in range(1, len(text) + 1):
        if stop == len(text) or not joins_before(text[stop]):
            piece = text[start:stop]
            changed = unicodedata.normalize("NFKC", piece)
            if changed != piece:
                yield start, stop, changed
            start = stop


@lru_cache(maxsize=65536)
def joins_before(character: str) -> bool:
    """Whether normalisation may mix this character with what stands before it: accents, voice marks of half
    width, letters that complete a syllable."""
    first = unicodedata.normalize("NFKD", character)[0]
    # combining marks; vowels and finals of Hangul; vowel signs of Kirat Rai, which are letters
    return (
        unicodedata.combining(first) > 0
        or unicodedata.category(first)[0] == "M"
        or "\u1160" <= first <= "\u11ff"
        or "\U00016d63" <= first <= "\U00016d6a"
    )


@cache
def _simplifier() -> Callable[[str], str]:
    try:
        import opencc
    except ImportError as error:
        raise UserError(
            "traditional to simplified Chinese needs the package OpenCC, which is not installed: "
            'pip install "wenmai[chinese]"'
        ) from error
    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def _conversion_edits(
    source: str, target: str, convert: Callable[[str], str], begin: int = 0
) -> Iterator[Edit]:
    """What turns ``source`` into ``target = convert(source)``, in the smallest parts that can be told apart.

    Args:
        convert: converts by phrases and may change lengths.
        begin: where ``source`` starts in the whole text.
    """
    if source == target:
        return
    if len(source) == len(target):
        for at, (before, after) in enumerate(zip(source, target, strict=True), begin):
            if before != after:
                yield at, at + 1, after
        return
    # a cut is sound where both sides, converted by themselves, give the same; the middle is tried first
    middle = len(source) // 2
    for cut in sorted(range(1, len(source)), key=lambda at: abs(at - middle)):
        left, right = convert(source[:cut]), convert(source[cut:])
        if left + right == target:
            yield from _conversion_edits(source[:cut], left, convert, begin)
            yield from _conversion_edits(source[cut:], right, convert, begin + cut)
            return
    yield begin, begin + len(source), target
