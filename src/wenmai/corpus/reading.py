"""The documents of a piece of a file. Lines are found by their bytes, which UTF-8, GB18030 and Big5 all allow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from wenmai.corpus.documents import Document, Rejection
from wenmai.corpus.inputs import Chunk
from wenmai.corpus.settings import ReadingConfig

SHOWN = 200
Read = tuple[Document, Rejection | None]
"""A document, and why it can't be read; then its text is the start of what stands there."""
_Raw = tuple[int, bytes, bool]
"""First byte, bytes, and whether they are all: of what is too large only the start is kept."""
_HALF = re.compile("[\ud800-\udfff]")
_MARK = b"\xef\xbb\xbf"


def read_chunk(chunk: Chunk, reading: ReadingConfig) -> Iterator[Read]:
    """The documents that begin in the chunk, in order; every document of a file belongs to one of its chunks."""
    with chunk.input.path.open("rb") as file:
        by_line = chunk.input.lines_of_json or reading.unit == "line"
        raws = _lines(file, chunk, reading.largest_document) if by_line else _blocks(file, chunk, reading)
        for start, raw, whole in raws:
            if start == 0:
                raw = raw.removeprefix(_MARK)
            if raw.strip():
                yield _read(chunk, reading, start, raw, whole)


def _read(chunk: Chunk, reading: ReadingConfig, start: int, raw: bytes, whole: bool) -> Read:
    place = f"{chunk.input.name}:byte {start}"
    encoding = chunk.input.encoding

    def refused(reason: str, detail: str) -> Read:
        shown = raw[:SHOWN].decode(encoding, errors="replace")
        return Document(shown, chunk.input.source, place), Rejection(reason, detail)

    if not whole:
        return refused("oversized", f"more than {reading.largest_document} bytes")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        return refused("undecodable", f"not {encoding} at byte {start + error.start}")
    if not chunk.input.lines_of_json:
        return Document(text, chunk.input.source, place), None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return refused("not_json", str(error))
    if not isinstance(record, dict) or not isinstance(record.get(reading.text_field), str):
        return refused("no_text", f"an object with a text in the field '{reading.text_field}' is expected")
    if "\\ud" in text.lower():  # half of a pair, which no file can hold
        record = json.loads(_HALF.sub("\ufffd", json.dumps(record, ensure_ascii=False)))
    text = record.pop(reading.text_field)
    return Document(text, chunk.input.source, place, record), None


def _lines(file: BinaryIO, chunk: Chunk, largest: int) -> Iterator[_Raw]:
    if chunk.start:
        file.seek(chunk.start - 1)
        _skip_line(file)  # it began before
    while (start := file.tell()) < chunk.stop:
        raw = file.readline(largest + 2)
        whole = raw.endswith(b"\n") or len(raw) < largest + 2
        if not whole:
            _skip_line(file)
        yield start, raw.rstrip(b"\r\n"), whole


def _blocks(file: BinaryIO, chunk: Chunk, reading: ReadingConfig) -> Iterator[_Raw]:
    """A document begins at the file's start or after an empty line, and belongs to the chunk of that line."""
    if chunk.start:
        file.seek(chunk.start - 1)
        _skip_line(file)
        while (at := file.tell()) < chunk.stop and (raw := file.readline(reading.largest_document)).strip():
            pass
        if at >= chunk.stop or not raw:
            return
    lines: list[bytes] = []
    size, first = 0, file.tell()
    while True:
        at = file.tell()
        raw = file.readline(reading.largest_document)
        if raw and raw.strip():
            first = first if lines else at
            size += len(raw)
            if size <= reading.largest_document or not lines:
                lines.append(raw)
            continue
        if lines:
            yield first, b"".join(lines).rstrip(b"\r\n"), size <= reading.largest_document
        lines, size = [], 0
        if not raw or at >= chunk.stop:
            return


def _skip_line(file: BinaryIO) -> None:
    while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass
