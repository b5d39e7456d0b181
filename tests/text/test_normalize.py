"""Normalisation against unicodedata and OpenCC themselves, and the offset map by hand and by properties."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenmai.errors import UserError
from wenmai.text import normalize as module
from wenmai.text.normalize import NormalizedText, normalize

TRICKY = [
    *"e\u0301\u0323\u030aa\u0308ｶﾞﾊﾟ\u3099\u309a",
    *"\u1100\u1161\u11a8가ㄱㅏﾡￂ",
    *"ﬁ㎏①½…ﷺ\u0344\u00a8\u2126\u212bＡ１，！～　\u00a0",
    *"\u09c7\u09be\u0dd9\u0dcf\u0f71\u0f72\u1b05\u1b35\U00011131\U00011127",
    *"中文汉\U00020000\ufa0e\U0002f800ab1 \n\ufe0f",
]
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=25)


def only_compatibility(text: str) -> NormalizedText:
    return normalize(text, controls=False)


@settings(max_examples=800, deadline=None, derandomize=True, database=None)
@given(texts)
def test_compatibility_alone_is_nfkc_with_a_monotone_map(text):
    result = only_compatibility(text)
    assert result.text == unicodedata.normalize("NFKC", text)
    check_map(result)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(texts)
def test_whatever_is_on_the_map_is_sound(text):
    for controls in (True, False):
        for simplify in (True, False):
            result = normalize(text, controls=controls, simplify=simplify)
            check_map(result)
            if controls:
                # nothing is left to do the second time
                assert normalize(result.text).text == normalize(result.text, controls=False).text


def check_map(result: NormalizedText) -> None:
    original = result.original
    assert len(result.text) == len(result.starts) == len(result.ends) == len(result)
    previous = (0, 0)
    for start, end in result.offsets:
        assert 0 <= start < end <= len(original)
        # either the same characters as before, or characters after those
        assert (start, end) == previous or start >= previous[1]
        previous = (start, end)
    for start in range(len(original)):
        for end in range(start + 1, len(original) + 1):
            first, stop = result.from_original(start, end)
            kept = [i for i, (a, b) in enumerate(result.offsets) if a < end and b > start]
            assert list(range(first, stop)) == kept
    for first in range(len(result)):
        for stop in range(first + 1, len(result) + 1):
            start, end = result.to_original(first, stop)
            assert result.from_original(start, end)[0] <= first
            assert result.from_original(start, end)[1] >= stop


def test_every_part_normalised_by_itself_gives_its_part():
    rng = random.Random(3)
    for _ in range(500):
        text = "".join(rng.choices(TRICKY, k=12))
        result = only_compatibility(text)
        groups: dict[tuple[int, int], str] = {}
        for character, where in zip(result.text, result.offsets, strict=True):
            groups[where] = groups.get(where, "") + character
        for (start, end), part in groups.items():
            assert unicodedata.normalize("NFKC", text[start:end]) == part


def test_no_character_of_this_unicode_version_composes_across_a_cut():
    """All pairs that compose, taken from the database; halves of a pair must stay in one piece."""
    pairs = 0
    for point in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pairs += 1
            second = chr(int(parts[1], 16))
            assert module.joins_before(second), f"U+{ord(second):04X}"
    assert pairs > 900


@pytest.mark.parametrize(
    ("text", "normal", "offsets"),
    [
        ("ＡＢ中", "AB中", [(0, 1), (1, 2), (2, 3)]),
        ("e\u0301t", "ét", [(0, 2), (2, 3)]),
        ("oﬁ1", "ofi1", [(0, 1), (1, 2), (1, 2), (2, 3)]),
        ("5㎏", "5kg", [(0, 1), (1, 2), (1, 2)]),
        ("\u1112\u1161\u11ab글", "한글", [(0, 3), (3, 4)]),
        ("ｶﾞｽ", "ガス", [(0, 2), (2, 3)]),
        ("……。", "......。", [(0, 1)] * 3 + [(1, 2)] * 3 + [(2, 3)]),
        # the lower mark is moved before the upper one and joins the letter; the three map as a whole
        ("a\u0301\u0323b", "\u1ea1\u0301b", [(0, 3), (0, 3), (3, 4)]),
    ],
)
def test_maps_by_hand(text, normal, offsets):
    result = normalize(text)
    assert (result.text, result.offsets) == (normal, offsets)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\r\nb\rc\nd\u2028e\x0cf", "a\nb\nc\nd\ne\nf"),
        ("a\tb\0\x1b\x9fc", "a bc"),
        ("张\u200b三\ufeff\u200e\u2060四\xad", "张三四"),
        ("a\ud800b", "a\ufffdb"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("नक्\u200dष می\u200cخواهم", "नक्\u200dष می\u200cخواهم"),
        ("中\u200d国a\u200cb\U00020000\u200d\U00020001\u200d", "中国ab\U00020000\U00020001"),
    ],
)
def test_controls(text, clean):
    assert normalize(text, compatibility=False).text == clean
    assert normalize(text, compatibility=False, controls=False).text == text


def test_ranges_go_both_ways_around_dropped_characters():
    result = normalize("\u200b张\u200b三\r\n是")
    assert result.text == "张三\n是"
    assert result.to_original(0, 2) == (1, 4)
    assert result.to_original(1, 1) == (3, 3)
    assert result.to_original(4, 4) == (7, 7)
    assert result.from_original(0, 3) == (0, 1)
    assert result.from_original(2, 3) == (1, 1)
    assert result.from_original(4, 5) == (2, 3)
    assert result.to_original(*result.from_original(4, 5)) == (4, 6)


def test_an_untouched_text_maps_to_itself_without_memory():
    text = "张三在北京。" * 3
    result = normalize(text, simplify=True)
    assert result.text is text
    assert isinstance(result.starts, range) and isinstance(result.ends, range)
    assert result.offsets == [(i, i + 1) for i in range(len(text))]
    assert normalize("").offsets == []


def test_simplified_is_what_opencc_says():
    opencc = pytest.importorskip("opencc")
    text = "頭髮與發財，乾淨的乾坤；瞭解著作，反覆ＡＢ"
    result = normalize(text, compatibility=False, simplify=True)
    assert result.text == opencc.OpenCC("t2s").convert(text) == "头发与发财，干净的乾坤；了解著作，反复ＡＢ"
    assert result.offsets == [(i, i + 1) for i in range(len(text))]
    both = normalize("㎏\u200b頭髮", simplify=True)
    assert (both.text, both.offsets) == ("kg头发", [(0, 1), (0, 1), (2, 3), (3, 4)])


def test_a_conversion_of_other_length_is_narrowed_to_the_word_that_changed():
    """``tw2sp`` turns 部落格 (three characters) into 博客 (two)."""
    opencc = pytest.importorskip("opencc")
    convert = opencc.OpenCC("tw2sp").convert
    text = "我的部落格裡有軟體，你的部落格呢"
    plain = NormalizedText(text, text, range(len(text)), range(1, len(text) + 1))
    result = plain.edited(module._conversion_edits(text, convert(text), convert))
    assert result.text == convert(text) == "我的博客里有软件，你的博客呢"
    check_map(result)
    assert [text[slice(*result.to_original(i, i + 2))] for i in (2, 11)] == ["部落格", "部落格"]
    assert text[slice(*result.to_original(4, 5))] == "裡"
    assert text[slice(*result.to_original(6, 8))] == "軟體"


def test_without_opencc_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    module._simplifier.cache_clear()
    try:
        with pytest.raises(UserError, match=r'pip install "wenmai\[chinese\]"'):
            normalize("漢字", simplify=True)
    finally:
        module._simplifier.cache_clear()
