"""Sentence ends by hand, and windows by their properties."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from wenmai.text.sentences import sentence_windows, split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "marked",
    [
        # Chinese; | stands where a sentence ends and another begins
        "他走了。|她没走！|真的？？！|是啊……|我不知道；|他也不知道",
        "他说：“你好。”|她问：『去哪儿？』|（好吧。）|就这样。",
        "“走吧！”，他说。|“走吧！”|他说。",
        "他（听说走了。）、她和我。",
        "圆周率是3.14，增长了1.5%。|网址是http://a.cn/?q=1。",
        "我喜欢NLP.|他也是!|真的?|是的",
        "第3.2节，见3.中国",
        # lines
        "标题\n|第一行\r\n\r\n  |第二行。 \n|第三行",
        "\n\n 开头的空行。|后来",
        # English
        'Mr. Smith paid $3.50 to Dr. J. K. Jones. |"Really?" |She left. |He stayed... |Why?',
        "The U.S. Army, e.g. the 3rd, met at 5 p.m. on Monday. |It rained.",
        "See Fig. 3 and No. 5. |No. |Yes!",
        "It works... sometimes. |Yahoo! is a firm.",
        "1. First item. |Then more.\n|2. Second item.\n|a. Third",
        "He sat in the sun. |In 1998. |Then",
        "中文。|English sentence. |又是中文。",
        " ",
        "。",
        "",
    ],
)
def test_ends_by_hand(marked):
    assert "|".join(sentences(marked.replace("|", ""))) == marked


def test_sentences_cover_any_text():
    rng = random.Random(4)
    alphabet = "中a1A。！？….,;；!? \n\r\t”“\"'）(、，\u3000\u2028e\u0301"
    for _ in range(3000):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 30)))
        ranges = split_sentences(text)
        assert "".join(sentences(text)) == text
        assert all(start < end for start, end in ranges)
        # no sentence is blank unless the whole text is
        assert all(sentence.strip() for sentence in sentences(text)) or not text.strip()


def test_windows_cover_the_text_with_whole_sentences():
    rng = random.Random(5)
    for _ in range(1500):
        text = "".join(rng.choices("中文字，。a \n", [6, 6, 6, 1, 2, 2, 1, 1], k=rng.randint(0, 80)))
        longest, overlap = rng.randint(1, 30), rng.randint(0, 3)
        windows = sentence_windows(text, longest, overlap)
        assert all(0 < end - start <= longest for start, end in windows)
        covered = 0
        for start, end in windows:
            assert start <= covered < end
            covered = end
        assert covered == len(text)
        if overlap == 0:
            assert all(end == start for (_, end), (start, _) in pairwise(windows))
        ends = {end for _, end in split_sentences(text)}
        whole = {end for start, end in split_sentences(text) if end - start <= longest}
        # a sentence that fits into a window is never cut
        for _, end in windows:
            if end not in ends:
                owner = min(e for e in ends if e > end)
                assert owner not in whole


def test_windows_by_hand():
    text = "一二。三四。五六。七八。"
    assert sentence_windows(text, 6) == [(0, 6), (6, 12)]
    assert sentence_windows(text, 8, 1) == [(0, 6), (3, 9), (6, 12)]
    assert sentence_windows(text, 9, 2) == [(0, 9), (3, 12)]
    # no room to repeat anything
    assert sentence_windows(text, 3, 2) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert sentence_windows(text, 100, 2) == [(0, 12)]
    assert sentence_windows("", 5) == []


def test_a_long_sentence_is_cut_after_a_comma_and_never_before_an_accent():
    assert sentence_windows("一二三，四五六七八", 6) == [(0, 4), (4, 9)]
    assert sentence_windows("一，三四五六七八九", 6) == [(0, 6), (6, 9)]
    assert sentence_windows("abcde\u0301fg", 5) == [(0, 4), (4, 8)]
    assert sentence_windows("e\u0301\u0302\u0303", 2) == [(0, 2), (2, 4)]


@pytest.mark.parametrize(("longest", "overlap"), [(0, 0), (5, -1)])
def test_sizes_that_make_no_sense(longest, overlap):
    with pytest.raises(ValueError, match="too small"):
        sentence_windows("文", longest, overlap)
