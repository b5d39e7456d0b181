"""Sentences of Chinese and English text, and windows of whole sentences over long texts.

Rules, no model: a sentence ends at a line end, after ``。！？…；`` with the quotes that close there, and
after an English full stop, question or exclamation mark where a space follows, unless the stop belongs to an
abbreviation, an initial or the number of a list item. In doubt two sentences stay one: windows that get too
long are cut anyway, but a sentence cut in the middle is lost to whoever reads its halves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

Range = tuple[int, int]
"""Characters ``[start, end)``."""

_LINE_END = r"[\n\r\x0b\x0c\x85\u2028\u2029]"
_MARKS = "。！？…；｡!?."
_CLOSERS = "”’\"'」』）)】］]》〉}｝〗〕"
_END = re.compile(rf"[{_MARKS}][{_MARKS}{re.escape(_CLOSERS)}]*(?P<space>\s*)|{_LINE_END}\s*")
_HAS_LINE_END = re.compile(_LINE_END)
_ENDS_ANYWHERE = frozenset("。！？…；｡")
# a quoted sentence inside another one, which goes on: “走吧！”，他说
_GOES_ON = frozenset("，、,：:;）)】》」』")
CLAUSE_MARKS = frozenset("，、；：,;: \t\u3000")
"""Behind which a sentence that is too long is best cut."""
_ABBREVIATIONS = re.compile(
    r"mrs?|ms|dr|prof|[sj]r|st|mt|gen|col|lt|sgt|capt|sen|gov|hon|rev|messrs|inc|ltd|co|corp|bros|dept|univ"
    r"|assn|vs|cf|ca|approx|est|viz|al|eds?"
)
_BEFORE_NUMBERS = re.compile(
    r"nos?|vols?|figs?|eqs?|secs?|chs?|pp|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
_LAST_WORD = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)*$")
_LIST_NUMBER = re.compile(r"(?:^|[\n\r])[ \t\u3000]*(?:\d{1,3}|[A-Za-z])$")


def split_sentences(text: str) -> list[Range]:
    """The sentences of a text, in order; joined they are the whole text.

    Spaces and line ends after a sentence belong to it, those at the start of the text to the first one. An
    empty text has no sentence.
    """
    sentences = []
    start = 0
    blank = len(text) - len(text.lstrip())
    for match in _END.finditer(text):
        end = match.end()
        if blank < end < len(text) and _is_end(text, match):
            sentences.append((start, end))
            start = end
    if start < len(text):
        sentences.append((start, len(text)))
    return sentences


def sentence_windows(text: str, max_characters: int, overlap_sentences: int = 0) -> list[Range]:
    """Ranges of whole sentences, as long as fit, that cover a text.

    Args:
        max_characters: most characters in a window, at least 1. A longer sentence is cut, after a comma or a
            space if its second half has one, else anywhere but before a combining mark.
        overlap_sentences: so many sentences at the end of a window come again at the start of the next, as
            far as there is room for a new one beside them.
    """
    if max_characters < 1 or overlap_sentences < 0:
        raise ValueError(f"max_characters={max_characters}, overlap_sentences={overlap_sentences}: too small")
    pieces = [
        piece for sentence in split_sentences(text) for piece in _pieces(text, *sentence, max_characters)
    ]
    windows: list[Range] = []
    first = stop = 0
    while stop < len(pieces):
        # repeated sentences give way, earliest first, to the first new one
        while pieces[stop][1] - pieces[first][0] > max_characters:
            first += 1
        while stop < len(pieces) and pieces[stop][1] - pieces[first][0] <= max_characters:
            stop += 1
        windows.append((pieces[first][0], pieces[stop - 1][1]))
        first = max(first + 1, stop - overlap_sentences)
    return windows


def _is_end(text: str, match: re.Match[str]) -> bool:
    """Whether a sentence ends with these marks and spaces; something follows them."""
    marks, space, following = match[0].rstrip(), match["space"], text[match.end()]
    if not marks or _HAS_LINE_END.search(space):
        return True
    if not space and following in _GOES_ON:
        return False
    if not _ENDS_ANYWHERE.isdisjoint(marks):
        return True
    before = text[max(0, match.start() - 40) : match.start()]
    if not space:
        # 我喜欢NLP.他也是 ends at a stop without a space; 3.中国 and http://a.cn/?q=1 do not
        return unicodedata.east_asian_width(following) in "WF" and not before[-1:].isdigit()
    if following.islower():
        return False
    return marks.rstrip(_CLOSERS) != "." or not _is_abbreviated(before, following)


def _is_abbreviated(before: str, following: str) -> bool:
    """Whether the full stop after this text shortens its last word, or numbers a list item."""
    if _LIST_NUMBER.search(before):
        return True
    found = _LAST_WORD.search(before)
    if found is None:
        return False
    word = found[0].lower()
    return (
        len(word) == 1  # J. Smith
        or "." in word  # U.S., e.g., Ph.D.
        or _ABBREVIATIONS.fullmatch(word) is not None
        or (following.isdigit() and _BEFORE_NUMBERS.fullmatch(word) is not None)
    )


def _pieces(text: str, start: int, end: int, longest: int) -> Iterator[Range]:
    """A sentence cut into ranges of at most so many characters."""
    while end - start > longest:
        half, limit = start + (longest + 1) // 2, start + longest
        cut = next((at for at in range(limit, half, -1) if text[at - 1] in CLAUSE_MARKS), limit)
        while cut > start and unicodedata.category(text[cut])[0] == "M":
            cut -= 1
        cut = cut if cut > start else limit
        yield start, cut
        start = cut
    yield start, end
