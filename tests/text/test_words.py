"""Words by the built-in rule, by rjieba where it is installed, and by any function."""

from __future__ import annotations

import random
import sys

import pytest

from wenmai.errors import UserError
from wenmai.text import words as module
from wenmai.text.words import located, segment_words


def surfaces(text: str, **arguments: object) -> list[str]:
    return [text[start:end] for start, end in segment_words(text, **arguments)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我爱NLP，2026年！", ["我", "爱", "NLP", "，", "2026", "年", "！"]),
        ("iPhone15 卖1,000.50元", ["iPhone15", "卖", "1,000.50", "元"]),
        ("3.14 12:30 GPT-4.", ["3.14", "12:30", "GPT", "-", "4", "."]),
        ("cafe\u0301 naïve Москва", ["cafe\u0301", "naïve", "Москва"]),
        ("👨\u200d👩\u200d👧👍🏽❤\ufe0f", ["👨\u200d👩\u200d👧", "👍🏽", "❤\ufe0f"]),
        ("\U00020000𠮷ＡＢ　ひらカ한국", ["\U00020000", "𠮷", "ＡＢ", "ひ", "ら", "カ", "한국"]),
        ("a_b\r\n\tc", ["a", "_", "b", "c"]),
        (" ", []),
        ("", []),
    ],
)
def test_words_by_script(text, words):
    assert surfaces(text) == words


def test_every_character_but_spaces_has_one_word():
    rng = random.Random(6)
    alphabet = "中国abZ09.,: \n\u3000，。é\u0301👍🏽\u200d한ひ\U00020000_-"
    for _ in range(2000):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 25)))
        at = 0
        for start, end in segment_words(text):
            assert (
                at <= start < end
                and not text[at:start].strip()
                and not any(map(str.isspace, text[start:end]))
            )
            at = end
        assert not text[at:].strip()


def test_any_function_is_a_segmenter():
    def pairs(text: str) -> list[tuple[int, int]]:
        return [(i, min(i + 2, len(text))) for i in range(0, len(text), 2)]

    assert surfaces("北京大学生", segmenter=pairs) == ["北京", "大学", "生"]
    assert surfaces("我 爱\n北京", segmenter=lambda text: located(text, ["我", " ", "爱", "\n", "北京"])) == [
        "我",
        "爱",
        "北京",
    ]


@pytest.mark.parametrize("words", [["北", "京", "市"], ["京", "北"], ["京"]])
def test_words_that_are_not_those_of_the_text_are_refused(words):
    with pytest.raises(ValueError, match="does not stand at character"):
        located("北京", words)


def test_rjieba_knows_chinese_words():
    pytest.importorskip("rjieba", reason="extra wenmai[chinese] without rjieba")
    text = "我来到北京清华大学 2026"
    assert surfaces(text, segmenter="rjieba") == ["我", "来到", "北京", "清华大学", "2026"]


def test_without_rjieba_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    module._rjieba.cache_clear()
    try:
        with pytest.raises(UserError, match=r'pip install "wenmai\[chinese\]"'):
            segment_words("北京", "rjieba")
    finally:
        module._rjieba.cache_clear()
