"""What ``wenmai predict`` reads: texts or records, one a line, from a file or a pipe, as they come."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from wenmai.data.lines import known_codec
from wenmai.errors import DataError, Problem, UserError
from wenmai.inference.asking import asked
from wenmai.tasks.task import Example, Task

LineFormat = Literal["auto", "text", "jsonl"]


def read_items(path: str, line_format: LineFormat, encoding: str = "utf-8") -> Iterator[tuple[str, Any]]:
    """The items of a file with their places, one a line; empty lines of JSONL are passed over.

    Args:
        path: a file, or ``-`` for standard input.
        line_format: ``auto`` goes by the ending, and without one by the first character: ``{`` means JSONL.

    Raises:
        DataError: no such file or encoding, a line that is not in this encoding, or not JSON.
    """
    name = "standard input" if path == "-" else path
    number = 0
    with _opened(path) as file:
        lines = _lines(file, encoding)
        while True:
            number += 1
            place = f"{name}:{number}"
            try:
                line = next(lines, None)
            except UnicodeError:
                raise _unreadable(
                    place, f"not {encoding}: set --encoding (gb18030 for many Chinese files)"
                ) from None
            if line is None:
                return
            line = line.removeprefix("\ufeff").rstrip("\r\n")
            if line_format == "auto" and (line.strip() or number > 1):
                line_format = _guessed(path, line)
            if line_format != "jsonl":
                yield place, line
            elif line.strip():
                yield place, _record(line, place)


def as_examples(items: Iterator[tuple[str, Any]], task: Task[Any, Any]) -> Iterator[Example]:
    """The items as the task's examples.

    Raises:
        DataError: an item is nothing that the task predicts for.
    """
    for place, item in items:
        try:
            yield asked(task, item)
        except UserError as error:
            raise _unreadable(place, str(error)) from None


def _lines(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The lines, split at LF alone; of a pipe as they come."""
    if not known_codec(encoding).startswith(("utf-16", "utf-32")):
        yield from (raw.decode(encoding) for raw in file)
        return
    # an LF byte is not always a line's end there
    text = io.TextIOWrapper(file, encoding, newline="\n")
    try:
        yield from text
    finally:
        text.detach()  # or standard input would be closed with it


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise _unreadable(
            path,
            f"{error.strerror}: give a file of texts or JSONL, or - for standard input "
            "(echo TEXT | wenmai predict BUNDLE -)",
        ) from None
    with file:
        yield file


def _guessed(path: str, line: str) -> LineFormat:
    ending = Path(path).suffix.lower()
    if ending in (".jsonl", ".ndjson"):
        return "jsonl"
    if ending == ".txt":
        return "text"
    return "jsonl" if line.lstrip().startswith("{") else "text"


def _record(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        advice = "correct the line, or set --format text if the lines are texts"
        raise _unreadable(f"{place}:{error.colno}", f"not JSON ({error.msg}): {advice}") from None


def _unreadable(place: str, message: str) -> DataError:
    return DataError("the input can't be used", [Problem(place, message)])
