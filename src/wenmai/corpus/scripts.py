"""Which scripts the characters of a text belong to, by tables over the first 2^18 code points."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from wenmai.corpus.ngrams import code_points

NAMES = ("chinese", "latin", "kana", "hangul", "other_letter", "digit", "punctuation", "symbol", "space")
_TABLE_SIZE = 1 << 18
_KINDS = {"L": "other_letter", "M": "other_letter", "N": "digit", "P": "punctuation", "Z": "space"}


def script_counts(text: str) -> npt.NDArray[np.int64]:
    """How many characters of each of ``NAMES`` a text has, shape (9,)."""
    points = np.minimum(code_points(text), _TABLE_SIZE - 1)
    return np.bincount(_table()[points], minlength=len(NAMES))


def chinese_share(counts: npt.NDArray[np.int64]) -> float:
    """Chinese characters among all letters; 0 for a text without letters."""
    letters = int(counts[:5].sum())
    return int(counts[0]) / letters if letters else 0.0


def symbol_share(counts: npt.NDArray[np.int64]) -> float:
    """Everything but letters, digits and spaces, among all but spaces: half of it is suspicious in any language."""
    visible = int(counts[:8].sum())
    return int(counts[6:8].sum()) / visible if visible else 0.0


@cache
def _table() -> npt.NDArray[np.uint8]:
    """Code point -> number of its name; made once, in a tenth of a second."""
    return np.array([NAMES.index(_name(chr(point))) for point in range(_TABLE_SIZE)], dtype=np.uint8)


def _name(character: str) -> str:
    point = ord(character)
    if 0x4E00 <= point <= 0x9FFF or 0x3400 <= point <= 0x4DBF or 0xF900 <= point <= 0xFAFF or point == 0x3007:
        return "chinese"
    if 0x20000 <= point <= 0x3FFFF:
        return "chinese" if unicodedata.category(character) == "Lo" else "symbol"
    if 0x3041 <= point <= 0x30FF and point != 0x30FB:
        return "kana"
    if 0xAC00 <= point <= 0xD7AF or 0x1100 <= point <= 0x11FF:
        return "hangul"
    if character.isspace():
        return "space"
    kind = unicodedata.category(character)[0]
    if (kind == "L" and point < 0x250) or (0xFF21 <= point <= 0xFF5A and kind == "L"):
        return "latin"
    return _KINDS.get(kind, "symbol")
