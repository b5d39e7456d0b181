"""Files and their lines: what is missing, empty or in another encoding is told with its place and remedy."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wenmai.data.records import Rejected, rejected, unreadable

SHOWN_BYTES = 4
MARK = "\ufeff"
"""The byte order mark, which any encoding of Unicode may begin a file with; elsewhere it is a character."""
CHINESE_ENCODINGS = ("gb18030", "big5")


class Line(NamedTuple):
    """A line without its end, numbered from 1."""

    number: int
    text: str


def existing_file(path: str) -> Path:
    """The file, which exists, is a file and holds something.

    Raises:
        DataError: it does not; names files of nearly the same name, or those of the folder.
    """
    file = Path(path)
    if file.is_dir():
        names = sorted(child.name for child in file.iterdir() if child.is_file())
        inside = (
            f"it holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            if names
            else "it holds no files"
        )
        raise unreadable(path, f"is a folder where a file is expected: name one file; {inside}")
    if not file.exists():
        raise unreadable(path, missing(file))
    if file.stat().st_size == 0:
        raise unreadable(path, "is empty: at least one record is needed")
    return file


def missing(path: Path) -> str:
    """A sentence on a path that does not exist, with the nearest name that does."""
    parent = path.parent
    if not parent.is_dir():
        known = next(folder for folder in parent.parents if folder.is_dir())
        gone = parent.relative_to(known).parts[0]
        if (known / gone).exists():
            return f"does not exist: {str(known / gone)!r} is a file, not a folder"
        near = difflib.get_close_matches(gone, [child.name for child in known.iterdir()], n=1)
        hint = f"; did you mean {str(known / near[0])!r}?" if near else ""
        return f"does not exist: there is no folder {str(known / gone)!r}{hint}"
    names = sorted(child.name for child in parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"does not exist; did you mean {str(parent / near[0])!r}?"
    return f"does not exist; {parent.resolve().name!r} holds {', '.join(names[:5]) or 'nothing'}"


def read_lines(path: str, encoding: str) -> Iterator[Line | Rejected]:
    """The lines of a text file, split at LF alone, without the byte order mark and without a CR before the
    LF.

    Splitting at LF alone keeps U+2028 and other separators that stand inside a text; the bytes of a damaged
    line are one rejected record. A file whose first line beyond ASCII is already invalid is in another
    encoding.

    Raises:
        DataError: the file is missing, empty or in another encoding.
    """
    codec = known_codec(encoding)
    file = existing_file(path)
    if codec.startswith(("utf-16", "utf-32")):  # an LF byte is not always a line's end there
        yield from _wide_lines(file, path, codec)
        return
    beyond_ascii = False
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = _without_mark(raw, path, codec)
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                text = raw.decode(codec)
            except UnicodeDecodeError as error:
                whole_file = not beyond_ascii and not _is_surrogate(raw, error, encoding)
                message = _undecodable(raw, error, encoding, whole_file=whole_file)
                if whole_file:
                    raise unreadable(path, message, line=number) from error
                yield rejected(path, number, message, record=raw.decode(codec, "replace"))
                continue
            beyond_ascii = beyond_ascii or not raw.isascii()
            yield Line(number, text if number > 1 else text.removeprefix(MARK))


def read_whole(path: str, encoding: str) -> str:
    """The whole text of a file, line ends as they are.

    Raises:
        DataError: the file is missing, empty or in another encoding; names the line.
    """
    codec = known_codec(encoding)
    raw = existing_file(path).read_bytes()
    raw = _without_mark(raw, path, codec)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        start = raw.rfind(b"\n", 0, error.start) + 1
        line = raw[start:].split(b"\n", 1)[0]
        inside = UnicodeDecodeError(codec, line, error.start - start, error.start - start + 1, error.reason)
        whole_file = raw[:start].isascii()
        raise unreadable(
            path, _undecodable(line, inside, encoding, whole_file=whole_file), line=number
        ) from error
    return text.removeprefix(MARK)


def known_codec(encoding: str) -> str:
    """The codec's own name.

    Raises:
        DataError: there is no such encoding.
    """
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise unreadable(
            "data.encoding", f"{encoding!r} is no known encoding; use utf-8, gb18030, big5 or utf-16"
        ) from error


def _without_mark(raw: bytes, path: str, codec: str) -> bytes:
    if codec in ("utf-8", "utf-8-sig"):
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise unreadable(path, "starts with the mark of UTF-16: set data.encoding: utf-16", line=1)
        return raw.removeprefix(codecs.BOM_UTF8)
    return raw


def _wide_lines(file: Path, path: str, codec: str) -> Iterator[Line]:
    with file.open(encoding=codec, newline="\n") as stream:
        number = 0
        try:
            for number, text in enumerate(stream, 1):
                text = text if number > 1 else text.removeprefix(MARK)
                yield Line(number, text.removesuffix("\n").removesuffix("\r"))
        except UnicodeError as error:
            raise unreadable(
                path, f"is not {codec}: set data.encoding to the file's own", line=number + 1
            ) from error


def _undecodable(raw: bytes, error: UnicodeDecodeError, encoding: str, *, whole_file: bool) -> str:
    """What to do about bytes that are not in the encoding they should be in."""
    shown = raw[error.start : error.start + SHOWN_BYTES].hex(" ")
    found = f"byte {error.start + 1} is not {encoding} ({shown})"
    if _is_surrogate(raw, error, encoding):
        return (
            f"{found}: half of a surrogate pair, as programs write that store UTF-16 in UTF-8 (CESU-8); "
            "replace these bytes, or set data.on_error: skip to leave the record out"
        )
    if whole_file:
        fitting = [name for name in CHINESE_ENCODINGS if _decodes(raw, name)]
        known = fitting[0] if fitting else "gb18030"
        return f"{found}: set data.encoding: {known}, or convert the file to UTF-8"
    return (
        f"{found}: the line is damaged, others are not; mend it, or set data.on_error: skip to leave it out"
    )


def _is_surrogate(raw: bytes, error: UnicodeDecodeError, encoding: str) -> bool:
    """Whether the bytes are U+D800 to U+DFFF, which UTF-8 does not have, in a line that is UTF-8 but for such."""
    if known_codec(encoding) != "utf-8" or raw[error.start : error.start + 1] != b"\xed":
        return False
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # half of a Hangul syllable, or another encoding
        return False
    return True


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
