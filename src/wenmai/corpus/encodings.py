"""Which encoding a Chinese text file is in, and texts that were once read in the wrong one."""

from __future__ import annotations

import codecs
import re
from typing import Any, Literal

from wenmai.errors import UserError

SAMPLE_BYTES = 1 << 20
"""How much of the start of a file decides."""
Encoding = Literal["utf-8", "gb18030", "big5"]
_UPPER_HALF = re.compile("[\x80-\u02ff]")
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# lead bytes of the frequent half of each table: level 1 of GB 2312, level 1 of Big5
_FREQUENT = {"gb18030": range(0xB0, 0xD8), "big5": range(0xA4, 0xC7)}


def detect(sample: bytes) -> Encoding:
    """The encoding in which most lines of a sample can be read.

    UTF-8 if at least half of the lines beyond ASCII are valid UTF-8, which text in another encoding almost never is.
    Nearly all bytes are valid GB18030, so between GB18030 and Big5 the share of frequent characters decides.

    Args:
        sample: the start of a file; a line that it cuts off is passed over.
    """
    lines = sample.split(b"\n")
    lines = [line for line in (lines[:-1] or lines) if not line.isascii()]
    valid = sum(_decodes(line, "utf-8") for line in lines)
    if 2 * valid >= len(lines):
        return "utf-8"
    return max(("gb18030", "big5"), key=lambda name: _frequent_share(lines, name))


def refuse_wide(sample: bytes, path: str) -> None:
    """Stops at a file whose lines can't be found by their bytes.

    Raises:
        UserError: the file is in UTF-16.
    """
    if sample.startswith(WIDE_MARKS):
        raise UserError(
            f"{path}: is in UTF-16; UTF-8, GB18030 and Big5 are read: "
            f"iconv -f UTF-16 -t UTF-8 {path} > {path}.utf8"
        )


def refuse_binary(sample: bytes, path: str) -> None:
    """Stops at a file that is no text: of which more than a hundredth are zero bytes.

    Raises:
        UserError: it is one.
    """
    if sample.count(0) * 100 > len(sample):
        raise UserError(
            f"{path}: is no text (it has {sample.count(0):,} zero bytes in its first {len(sample):,}), so nothing of "
            "it could be read: convert it to .txt or .jsonl, or leave it out"
        )


def repair(text: str) -> str:
    """The text with mojibake undone (UTF-8 that was read as Latin-1 or Windows-1252), by ftfy.

    Raises:
        UserError: the package ftfy is missing.
    """
    if text.isascii() or not _suspicious(text):
        return text
    fixed: str = _ftfy().fix_encoding(text)
    return fixed


def _suspicious(text: str) -> bool:
    """Mojibake of this kind has a character of Latin-1's upper half or a lone continuation; Chinese text has few."""
    return _UPPER_HALF.search(text) is not None


def _ftfy() -> Any:
    try:
        import ftfy
    except ImportError:
        raise UserError('clean.repair needs the package ftfy: pip install "wenmai[corpus]"') from None
    return ftfy


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _frequent_share(lines: list[bytes], encoding: str) -> float:
    """Of all double bytes, those whose lead byte is in the frequent half; lines that are invalid count against it."""
    frequent = double = 0
    for line in lines:
        valid = _decodes(line, encoding)
        at = 0
        while at < len(line) - 1:
            if line[at] < 0x80:
                at += 1
                continue
            double += 1
            frequent += valid and line[at] in _FREQUENT[encoding]
            at += 2
    return frequent / max(1, double)
