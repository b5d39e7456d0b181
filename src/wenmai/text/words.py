"""Word boundaries, from whatever finds them: a rule without dependencies, rjieba, or any other function.

Used for whole-word masking and for scores by word. A segmenter takes a text and gives its words as ranges of
characters, so one that gives strings (jieba, LTP, HanLP) is wrapped with :func:`located`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Literal, Protocol

from wenmai.errors import UserError

Range = tuple[int, int]
"""Characters ``[start, end)``."""


class Segmenter(Protocol):
    """Finds the words of a text."""

    def __call__(self, text: str) -> list[Range]:
        """Ranges of characters, in order, not overlapping, none empty."""


# what belongs to the character before it: accents, variation selectors, skin tones
_MARKS = (
    "\u0300-\u036f\u1ab0-\u1aff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef"
)
_CHINESE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ONLY_CHINESE = re.compile(f"[{_CHINESE}]+")
_WORD = re.compile(
    rf"\d+(?:[.,:]\d+)+"  # 3.14  1,000  12:30
    rf"|(?:[^\W_{_CHINESE}][{_MARKS}]*)+"  # letters and digits of any other script
    rf"|\S[{_MARKS}]*(?:\u200d\S[{_MARKS}]*)*"  # a Chinese character, a mark, an emoji
)


def segment_words(text: str, segmenter: Segmenter | Literal["script", "rjieba"] = "script") -> list[Range]:
    """The words of a text; spaces belong to none.

    Args:
        segmenter: ``script``: every Chinese character and every mark by itself, letters and digits in runs,
            decimal numbers whole. ``rjieba``: words by dictionary and hidden Markov model. Or a function.

    Raises:
        UserError: ``rjieba`` is not installed.
    """
    if segmenter == "rjieba":
        return _rjieba()(text)
    return by_script(text) if segmenter == "script" else segmenter(text)


def by_script(text: str) -> list[Range]:
    """Words by the kinds of their characters: see :func:`segment_words`."""
    return [match.span() for match in _WORD.finditer(text)]


def is_chinese(text: str) -> bool:
    """Whether all of it is written without blanks between words: ideographs, kana, bopomofo."""
    return _ONLY_CHINESE.fullmatch(text) is not None


def located(text: str, words: Iterable[str]) -> list[Range]:
    """Where the words that some segmenter gave stand in the text; blank ones are left out.

    Raises:
        ValueError: a word does not follow: the segmenter changed the text.
    """
    found = []
    position = 0
    for word in words:
        if not word.strip():
            continue
        start = text.find(word, position)
        if start < 0 or text[position:start].strip():
            raise ValueError(f"the word {word!r} does not stand at character {position} of {text[:50]!r}")
        position = start + len(word)
        found.append((start, position))
    return found


@cache
def _rjieba() -> Segmenter:
    try:
        rjieba = import_module("rjieba")
    except ImportError as error:
        raise UserError(
            'segmenter rjieba needs the package rjieba, which is not installed: pip install "wenmai[chinese]"'
        ) from error

    def segment(text: str) -> list[Range]:
        return located(text, rjieba.cut(text))

    return segment
