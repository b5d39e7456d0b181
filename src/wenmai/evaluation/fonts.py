"""A font that can draw the characters at hand: found by its glyphs, since names prove nothing.

Plots of Chinese data show hollow boxes when the plotting library falls back to a font without Chinese glyphs.
Here the characters of a figure come first, and a font is taken only if its character map holds all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from wenmai.errors import UserError

LATIN_FAMILY = "DejaVu Sans"
"""Comes with matplotlib."""
LATIN_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"

CHARACTERS_A_GLYPH = 4
"""A font that makes more characters share a glyph than this, on average, doesn't draw them."""


def missing_glyphs(font: Path, text: str, *, face: int = 0) -> set[str]:
    """The characters of ``text`` that the font can't draw; white space and invisible ones need no glyph.

    Args:
        font: a TrueType or OpenType file, or a collection of them.
        face: which font of a collection.
    """
    covered = _covered(str(font), face)
    return {char for char in text if char.isprintable() and not char.isspace() and ord(char) not in covered}


def chinese_font(characters: str) -> Path:
    """The file of a font that covers all these characters, a regular sans serif if there is one.

    Looks through the fonts that matplotlib knows, then through those of mplfonts (extra ``fonts``).

    Raises:
        UserError: no font covers them.
    """
    return Path(_covering_face(_distinct(characters)).fname)


def font_families(texts: Iterable[str]) -> list[str]:
    """Values for matplotlib's ``font.family`` that draw every character of the texts.

    Raises:
        UserError: some characters are in no font at hand.
    """
    beyond_latin = missing_glyphs(LATIN_FONT, "".join(texts))
    if not beyond_latin:
        return [LATIN_FAMILY]
    return [_family(_covering_face(_distinct(beyond_latin))), LATIN_FAMILY]


def _distinct(characters: Iterable[str]) -> str:
    return "".join(sorted(set(characters)))


@cache
def _covering_face(characters: str) -> Any:
    for face in _faces():
        if not missing_glyphs(Path(face.fname), characters, face=face.index):
            return face
    shown = " ".join(characters[:20]) + (" ..." if len(characters) > 20 else "")
    raise UserError(
        f"no font on this machine can draw: {shown}\n"
        'Install one that can: pip install "wenmai[fonts]" (or a system package such as fonts-noto-cjk).'
    )


def _faces() -> Iterator[Any]:
    """Every font at hand, the likeliest first; those of mplfonts are opened only if the others don't do."""
    yield from sorted(font_manager.fontManager.ttflist, key=_rank)
    spec = importlib.util.find_spec("mplfonts")  # its import would change matplotlib's settings
    for folder in (spec.submodule_search_locations or []) if spec else []:
        brought = (
            path for path in (Path(folder) / "fonts").glob("*") if path.suffix in (".ttf", ".otf", ".ttc")
        )
        yield from sorted((font_manager.ttfFontProperty(FT2Font(str(path))) for path in brought), key=_rank)


def _rank(face: Any) -> tuple[bool, bool, bool, bool, str, str, int]:
    """Regular before bold and italic, sans before serif and mono, mainland glyph shapes before others."""
    name = face.name.lower()
    return (
        face.weight not in (400, "normal", "regular") or face.style != "normal",
        "mono" in name or "typewriter" in name,
        "serif" in name.replace("sans serif", "") or "ming" in name or "song" in name,
        not any(part in ("sc", "cn", "gb", "gbk") for part in name.split()),
        face.name,
        face.fname,
        face.index,
    )


@cache
def _family(face: Any) -> str:
    """Registers the face under a name of its own: other files may bear the font's public name."""
    font_manager.fontManager.addfont(face.fname)
    alias = re.sub(r"\W+", " ", f"wenmai {face.name} {Path(face.fname).name} {face.index}")
    font_manager.fontManager.ttflist.append(dataclasses.replace(face, name=alias))
    return alias


@cache
def _covered(font: str, face: int) -> frozenset[int]:
    opened = FT2Font(font, face_index=face)
    glyphs = {char: glyph for char, glyph in opened.get_charmap().items() if glyph}
    # a font of last resort maps every character there is to a few hundred hollow boxes
    return frozenset(glyphs if len(glyphs) <= CHARACTERS_A_GLYPH * opened.num_glyphs else ())
