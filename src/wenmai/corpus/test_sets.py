"""All texts of the files of a test set, whatever their format: what stands in them is looked for, not understood."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from wenmai.corpus.encodings import SAMPLE_BYTES, detect, refuse_binary, refuse_wide
from wenmai.errors import DataError, Problem, UserError

_COLUMN_SHARE = 0.9
_LONGEST_TOKEN = 12
csv.field_size_limit(1 << 30)


def files_of(paths: list[str]) -> list[tuple[str, Path]]:
    """Name and path of every file: a folder stands for all files in it, hidden ones aside.

    Raises:
        DataError: something is missing, or a folder is empty.
    """
    found: list[tuple[str, Path]] = []
    problems: list[Problem] = []
    for given in paths:
        path = Path(given)
        inside = sorted(file for file in path.rglob("*") if file.is_file() and file.name[0] != ".")
        if path.is_dir() and inside:
            found += [(str(file), file) for file in inside]
        elif path.is_file():
            found.append((given, path))
        else:
            state = "is an empty folder" if path.is_dir() else "does not exist"
            problems.append(Problem(given, f"{state}; name a file or folder of test data"))
    if problems:
        raise DataError("the test sets can't be read", problems)
    return found


def texts_of(path: Path) -> Iterator[str]:
    """Every string in a file, which may be packed with gzip.

    JSON and JSON lines: all strings, at any depth, not the names of fields. CSV and TSV: all cells. Columns of tokens
    and tags (CoNLL): the tokens of a sentence joined. All else: the lines, and what stands between tabs in them.

    Raises:
        UserError: it is in UTF-16 or no text at all, so that nothing of it would be found.
    """
    raw = _unpacked(path)
    refuse_wide(raw[:SAMPLE_BYTES], str(path))
    refuse_binary(raw[:SAMPLE_BYTES], str(path))
    text = raw.decode(detect(raw[:SAMPLE_BYTES]), errors="replace").removeprefix("\ufeff")
    if path.name.removesuffix(".gz").endswith(".csv"):
        for row in csv.reader(io.StringIO(text, newline="")):
            yield from row
        return
    values = _json_values(text)
    if values is not None:
        for value in values:
            yield from _strings(value)
        return
    lines = _lines(text)
    if _is_columns(lines):
        for filled, sentence in groupby(lines, key=lambda line: bool(line.strip())):
            if filled:
                tokens = [line.split()[0] for line in sentence]
                yield "".join(tokens)
                yield " ".join(tokens)
        return
    for line in lines:
        yield from line.split("\t")


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: is not a whole gzip file ({error}); copy it again") from None


def _lines(text: str) -> list[str]:
    """The lines of a file; U+2028 and its like stand inside of texts, where splitlines() would cut."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def _json_values(text: str) -> list[Any] | None:
    """The values of a JSON file or of JSON lines; None if it is neither."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    values = []
    for line in _lines(text):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError:
                values.append(line)  # one damaged line: the text in it is kept out all the same
    return values


def _strings(value: Any) -> Iterator[str]:
    """All strings inside; a list of tokens also as the sentence that they make."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        if value and all(isinstance(inner, str) for inner in value):
            yield "".join(value)
            yield " ".join(value)
        for inner in value:
            yield from _strings(inner)


def _is_columns(lines: list[str]) -> bool:
    """Whether lines are tokens with tags: at least two short columns nearly everywhere, empty lines between."""
    filled = [line.split() for line in lines[:2000] if line.strip()]
    if not filled or len(filled) == len(lines[:2000]):
        return False
    columns = sum(2 <= len(parts) <= 12 and len(parts[0]) <= _LONGEST_TOKEN for parts in filled)
    return columns >= _COLUMN_SHARE * len(filled)
