"""Every filter lets good text pass and refuses what it is for; every repair changes what it is for and nothing else."""

from __future__ import annotations

import time

import pytest

from corpus.texts import GOOD, made_up
from wenmai.corpus.boilerplate import is_boilerplate, tidy, without_markup
from wenmai.corpus.cleaning import cleaning_steps
from wenmai.corpus.documents import Document, Rejection, apply
from wenmai.corpus.ngrams import code_points, ngram_hashes
from wenmai.corpus.repetition import duplicate_lines, repeated_share, top_ngram_share
from wenmai.corpus.scripts import chinese_share, script_counts, symbol_share
from wenmai.corpus.settings import CleanConfig

REFUSED = {
    "empty": "<p></p>\n首页 | 登录",
    "too_short": "很短。",
    "too_long": GOOD * 10,
    "not_chinese": "This page is in English, 只有四字, and so it is of no use here at all.",
    "symbols": "★☆★☆※※◆◇■□●○" + "好的" * 2 + "！！！！？？？？～～～～",
    "digits": "价格表 13800138000 13900139000 41 52 63 74 二手 一百 三百 四百",
    "frequent_run": "哈哈哈" * 9 + GOOD[:20],
    "repeated_runs": GOOD + GOOD,
    "duplicate_lines": "\n".join(["山谷里的风也停了一会儿", "他慢慢往回走去", "山谷里的风也停了一会儿"] * 2),
    "damaged": GOOD[:20] + "\ufffd" * 3,
}
CONFIG = CleanConfig(max_characters=300)


def cleaned(text: str, config: CleanConfig = CONFIG) -> Document | Rejection:
    return apply(cleaning_steps(config), Document(text))


def test_good_text_passes_unchanged() -> None:
    assert cleaned(GOOD) == Document(GOOD)


@pytest.mark.parametrize("reason", REFUSED)
def test_every_filter_refuses(reason: str) -> None:
    outcome = cleaned(REFUSED[reason])
    assert isinstance(outcome, Rejection) and outcome.reason == reason and outcome.detail


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("too_short", {"min_characters": 3}),
        ("too_long", {"max_characters": 10**6, "repetition": {"repeated_ngrams": {}, "top_ngrams": {}}}),
        ("not_chinese", {"min_chinese": 0.05}),
        ("symbols", {"max_symbols": 1.0}),
        ("digits", {"max_digits": 1.0}),
        ("frequent_run", {"repetition": {"top_ngrams": {}, "repeated_ngrams": {}}}),
        ("repeated_runs", {"repetition": {"repeated_ngrams": {8: 1.0}}}),
        ("duplicate_lines", {
            "repetition": {"duplicate_lines": 1.0, "duplicate_line_characters": 1.0, "repeated_ngrams": {}}
        }),
    ],
)  # fmt: skip
def test_every_limit_can_be_lifted(reason: str, change: dict[str, object]) -> None:
    config = CleanConfig.model_validate({"max_characters": 300, **change})
    assert isinstance(cleaned(REFUSED[reason], config), Document)


def test_markup_goes_and_text_stays() -> None:
    given = (
        "<html><script>var a = 1 < 2;</script><p>一&nbsp;二</p><p class='x'>a < b 且 <你好> 3>2</p></html>"
    )
    assert tidy(without_markup(given)) == "一\xa0二\na < b 且 <你好> 3>2"


@pytest.mark.parametrize(
    "line",
    ["https://a.cn/b?c=1", "上一页 下一页", "首页 > 返回列表", "第 3 页", "登录 | 注册 (3)",
     "责任编辑：王芳", "京ICP备12345号-1",
     "Copyright © 2020 某某公司 All rights reserved", "点击下载客户端"],
)  # fmt: skip
def test_boilerplate_is_recognised(line: str) -> None:
    assert is_boilerplate(line)


@pytest.mark.parametrize(
    "line", [GOOD, "他登录了网站。", "第三页上写着一行字。",
             "来源：这条消息来自昨天的报纸，记者在现场看到了很多人，说法不同。", ""]
)  # fmt: skip
def test_text_is_no_boilerplate(line: str) -> None:
    assert not is_boilerplate(line)


def test_changes_are_counted() -> None:
    outcome = cleaned(f"登录\n<b>{GOOD}</b>  \u200b\n\n\n他在山上看见了很多云。", CONFIG)
    assert isinstance(outcome, Document)
    assert set(outcome.changes) == {"normalized", "markup_removed", "lines_removed", "spaces_removed"}


def test_width_and_characters_are_options() -> None:
    assert cleaned(GOOD + "Ａ１", CleanConfig(compatibility=True)).text.endswith("A1")  # type: ignore[union-attr]
    pytest.importorskip("opencc")
    assert "后来" in cleaned("後來" + GOOD, CleanConfig(simplify=True)).text  # type: ignore[union-attr]


@pytest.mark.parametrize("begin", ["<script>", "<!--", "<style "])
def test_what_begins_and_never_ends_stays_and_takes_no_time(begin: str) -> None:
    text = f"讲讲 {begin} 的用法。" * 20_000
    started = time.perf_counter()
    assert without_markup(text).count("的用法") == 20_000
    assert time.perf_counter() - started < 2
    assert without_markup(f"一<!-- x > --><SCRIPT a='b'>c < d</Script >二{begin.strip()}").startswith("一二")


def test_scripts_are_counted() -> None:
    counts = script_counts("中文abcかな한글，★ 12\n𠀀")
    assert dict(zip(("zh", "la", "ka", "ha", "ot", "di", "pu", "sy", "sp"), counts.tolist(), strict=True)) == {
        "zh": 3, "la": 3, "ka": 2, "ha": 2, "ot": 0, "di": 2, "pu": 1, "sy": 1, "sp": 2,
    }  # fmt: skip
    assert chinese_share(counts) == 0.3 and symbol_share(counts) == pytest.approx(2 / 14)
    assert chinese_share(script_counts("12")) == symbol_share(script_counts("")) == 0


def by_hand(text: str, n: int) -> tuple[float, float]:
    """Shares of the most frequent and of all repeated runs, without hashes."""
    runs = [text[i : i + n] for i in range(len(text) - n + 1)]
    most = max((runs.count(run) for run in runs), default=0)
    covered = {i + k for i, run in enumerate(runs) if run in runs[:i] for k in range(n)}
    return (min(1, most * n / len(text)) if most >= 5 else 0), len(covered) / len(text)


@pytest.mark.parametrize(
    "text", ["一二三四" * 7, "一二三" * 2 + GOOD + "一二三", "啊" * 9, GOOD, "一", "一二"]
)
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_shares_of_repetition_are_those_counted_by_hand(text: str, n: int) -> None:
    hashes = ngram_hashes(code_points(text), n)
    assert (top_ngram_share(hashes, n), repeated_share(hashes, n)) == pytest.approx(by_hand(text, n))


def test_duplicate_lines_by_hand() -> None:
    assert duplicate_lines("一一\n二\n\n一一\n一一") == (0.5, 4 / 7)


def test_hashes_of_runs_are_equal_where_the_runs_are() -> None:
    text = made_up(1, length=300)[0] + "𠀀" + GOOD + GOOD
    points = code_points(text)
    for n in (1, 2, 5, 13):
        hashes = ngram_hashes(points, n).tolist()
        runs = [text[i : i + n] for i in range(len(text) - n + 1)]
        assert len(hashes) == len(runs) and len(set(zip(hashes, runs, strict=True))) == len(set(runs))
        assert len(set(hashes)) == len(set(runs))
