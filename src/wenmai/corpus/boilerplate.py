"""Markup inside lines, and lines that belong to a web page rather than to its text."""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"<(?:/?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?|![A-Za-z][^<>]*)>")
_UNSEEN = (
    (re.compile(r"<script\b[^<>]*>", re.IGNORECASE), re.compile(r"</script\s*>", re.IGNORECASE)),
    (re.compile(r"<style\b[^<>]*>", re.IGNORECASE), re.compile(r"</style\s*>", re.IGNORECASE)),
    (re.compile("<!--"), re.compile("-->")),
)
"""Beginnings and ends of what a browser doesn't show."""
_BREAK = re.compile(r"<(?:br\s*/?|/p|/div|/li|/tr|/h[1-6])>", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n(?:[ \t\u3000]*\n)+")

_WORDS = (
    "登录|注册|首页|搜索|收藏|分享|举报|打印|评论|点赞|关闭|更多|展开|收起|客服|帮助"
    "|联系我们|关于我们|网站地图|免责声明"
)
_TURN = r"(?:上一[页篇章]|下一[页篇章]|返回(?:首页|顶部|目录|列表)|回到顶部|末页|尾页|目录)"
_BYLINE = "责任编辑|责编|编辑|来源|作者|发布时间|更新时间|(?:阅读|浏览|点击)(?:量|次数)?"
_WHOLE_LINE = re.compile(
    rf"""
      (?:https?://|www\.)\S+                                           # an address alone
    | (?:首页|主页)?[\s>|»·/-]*{_TURN}(?:[\s>|»·/-]*{_TURN})*
    | (?:第\s*\d+\s*页[\s,，/]*)?(?:共\s*\d+\s*页)|第\s*\d+\s*页|-\s*\d+\s*-
    | (?:{_WORDS})(?:[\s>|»·/()（）\d-]+(?:{_WORDS}))*[\s>|»·/()（）\d-]*
    | (?:点击|扫码|长按|扫一扫)[^。！？]{{0,12}}(?:查看|下载|关注|进入|阅读原文|二维码|打开)[^。！？]{{0,12}}
    | (?:{_BYLINE})[:：]\s*\S{{0,24}}
    | .{{0,12}}ICP\s*[备证]\s*\d+\s*号.*|.{{0,20}}公网安备\s*\d+\s*号.*
    | (?:copyright|©|\(c\)|版权所有)\s*.{{0,60}}(?:\d{{4}}|all\s+rights\s+reserved|保留所有权利|有限公司).{{0,40}}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST = 120
"""A longer line is text, whatever it begins with."""


def without_markup(text: str) -> str:
    """The text without tags, scripts and comments, entities resolved; ends of paragraphs become line ends.

    ``a < b`` and ``<你好>`` are no tags and stay.
    """
    if "<" in text:
        for begin, end in _UNSEEN:
            text = _without_parts(text, begin, end)
        text = _TAG.sub("", _BREAK.sub("\n", text))
    if "&" in text:
        text = html.unescape(text)
    return text


def _without_parts(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> str:
    """The text without what stands between a beginning and the next end, both included, in one pass over it.

    A beginning without an end stays: it is spoken of, or the text was cut.
    """
    kept: list[str] = []
    at = 0
    while (opening := begin.search(text, at)) and (closing := end.search(text, opening.end())):
        kept.append(text[at : opening.start()])
        at = closing.end()
    return "".join([*kept, text[at:]]) if kept else text


def without_boilerplate(text: str) -> str:
    """The text without lines of navigation, page numbers, licence numbers, bylines and addresses."""
    lines = text.split("\n")
    kept = [line for line in lines if not is_boilerplate(line)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def is_boilerplate(line: str) -> bool:
    """Whether a whole line is one of these."""
    bare = line.strip()
    return 0 < len(bare) <= _LONGEST and _WHOLE_LINE.fullmatch(bare) is not None


def tidy(text: str) -> str:
    """No spaces at the ends of lines, no two empty lines together, none around the text."""
    text = "\n".join(line.rstrip(" \t\u3000") for line in text.split("\n")) if "\n" in text else text
    return _BLANK_LINES.sub("\n\n", text).strip(" \t\n\u3000")
