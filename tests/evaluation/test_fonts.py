from __future__ import annotations

import importlib.util
from pathlib import Path

import matplotlib
import pytest
from fontTools.ttLib import TTCollection, TTFont
from matplotlib import font_manager

from wenmai.errors import UserError
from wenmai.evaluation import fonts
from wenmai.evaluation.fonts import LATIN_FONT, chinese_font, font_families, missing_glyphs

BUNDLED = Path(matplotlib.get_data_path()) / "fonts/ttf"
TEXT = "实体识别：人名、地名（机构）F1 龘"


@pytest.fixture
def only_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any Chinese font: what matplotlib brings, and nothing else."""
    entries = [entry for entry in font_manager.fontManager.ttflist if Path(entry.fname).parent == BUNDLED]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "_covering_face", fonts._covering_face.__wrapped__)


def cmap(path: Path) -> set[int]:
    opened = TTCollection(path).fonts[0] if path.suffix == ".ttc" else TTFont(path)
    return set(opened.getBestCmap())


def test_the_font_found_has_a_glyph_for_every_character() -> None:
    font = chinese_font(TEXT)
    assert missing_glyphs(font, TEXT) == set()
    assert {ord(char) for char in TEXT if not char.isspace()} <= cmap(font)


def test_missing_glyphs_agree_with_the_fonts_own_table() -> None:
    text = "Aé人名\u3000\u200b 地→"
    expected = {char for char in "Aé人名地→" if ord(char) not in cmap(LATIN_FONT)}
    assert missing_glyphs(LATIN_FONT, text) == expected == {"人", "名", "地"}


def test_latin_text_needs_no_other_font() -> None:
    assert font_families(["precision", "naïve – 0.5"]) == ["DejaVu Sans"]


def test_a_family_is_the_very_file_that_was_proven() -> None:
    family = font_families(["人名"])[0]
    assert font_manager.findfont(family, fallback_to_default=False) == str(chinese_font("人名"))


@pytest.mark.usefixtures("only_matplotlib")
def test_fonts_of_mplfonts_are_the_second_source() -> None:
    if importlib.util.find_spec("mplfonts") is None:
        pytest.skip("mplfonts is not installed")
    font = chinese_font("人名地名")
    assert "mplfonts" in font.parts
    assert missing_glyphs(font, "人名地名") == set()


@pytest.mark.usefixtures("only_matplotlib")
def test_hollow_boxes_of_a_last_resort_font_are_no_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib brings a font that maps every character to a box; its character map alone would pass."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)名.*pip install \"wenmai\[fonts\]\""):
        chinese_font("人名")
