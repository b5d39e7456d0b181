"""JSON lines, and JSON files that hold a list of records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from wenmai.data.lines import Line, read_lines, read_whole
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable

SPAN_FIELDS = frozenset({"entities", "slots", "relations", "spo_list", "answers", "words", "links"})
"""Lists of objects that belong to one record, and so do not make an object a wrapper around records."""

WHITESPACE = " \t\r\n"


class _NotJSONNumberError(ValueError):
    """NaN or Infinity, which JSON does not know and no loss survives."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJSONNumberError(f"{name} is not a number JSON knows: write null, or leave the field out")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def scan_jsonl(path: str, encoding: str) -> Scanned:
    """A JSON object a line; empty lines are passed over."""
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):
            yield line
            continue
        text = line.text.strip(WHITESPACE)
        if not text:
            continue
        try:
            value = _DECODER.decode(text)
        except json.JSONDecodeError as error:
            column = error.colno + line.text.index(text[0])
            yield rejected(path, line.number, _not_json(error), record=line.text, column=column)
        except (_NotJSONNumberError, ValueError, RecursionError) as error:
            yield rejected(path, line.number, _unusable(error), record=line.text)
        else:
            yield _as_record(value, path, line.number)


def scan_json(path: str, encoding: str) -> Scanned:
    """A JSON array of objects, or one object with a single list inside, such as ``{"data": [...]}``.

    Records are decoded one at a time, so only the text of the file is held, not its objects.
    """
    text = read_whole(path, encoding)
    start = _skip(text, 0)
    wrapped = text[start : start + 1] == "{"
    if wrapped:
        start = _inner_list(text, start, path)
    elif text[start : start + 1] != "[":
        raise unreadable(path, "is not JSON: a list or an object is expected", line=_line_of(text, start))
    line, counted = 1, 0
    for position, value in _elements(text, start, path, last=not wrapped):
        line += text.count("\n", counted, position)
        counted = position
        yield _as_record(value, path, line)


def json_file_is_lines(path: str, encoding: str) -> bool:
    """Whether a file that ends in ``.json`` holds an object a line, rather than one JSON value.

    The first line decides: a whole object, unless it is all the file holds and wraps a list of records. Where
    it is no whole object (the first line of a pretty-printed one, or a record cut off), the second line
    decides.
    """
    lines = (line.text.strip(WHITESPACE) for line in read_lines(path, encoding) if isinstance(line, Line))
    texts = (text for text in lines if text)
    first, second = next(texts, ""), next(texts, "")
    if not first.startswith("{"):
        return False
    value = _object(first)
    if value is None:
        return _object(second) is not None
    lists = [key for key, inner in value.items() if _is_records(inner)]
    return bool(second) or len(lists) != 1 or lists[0] in SPAN_FIELDS


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _as_record(value: Any, path: str, line: int) -> Record | Rejected:
    if isinstance(value, dict):
        return Record(value, path, line)
    return rejected(path, line, f"a JSON object is expected, not {_kind(value)}", record=value)


def _elements(text: str, start: int, path: str, *, last: bool) -> Iterator[tuple[int, Any]]:
    """Position and value of each element of the list that opens at ``start``.

    Args:
        last: nothing may follow the list.
    """
    position = _skip(text, start + 1)
    if text[position : position + 1] == "]":
        raise unreadable(path, "holds an empty list: at least one record is needed")
    while True:
        value, end = _decode(text, position, path)
        yield position, value
        position = _skip(text, end)
        following = text[position : position + 1]
        if following == "]":
            if last:
                _refuse_more(text, position + 1, path)
            return
        if following != ",":
            raise unreadable(path, _cut_off(following), line=_line_of(text, position))
        position = _skip(text, position + 1)


def _inner_list(text: str, start: int, path: str) -> int:
    """Where the only list of objects of the object that opens at ``start`` opens."""
    lists: dict[str, int] = {}
    position = _skip(text, start + 1)
    while text[position : position + 1] != "}":
        key, end = _decode(text, position, path)
        position = _skip(text, end)
        if text[position : position + 1] != ":":
            raise unreadable(path, "is not JSON: ':' is missing", line=_line_of(text, position))
        opens = _skip(text, position + 1)
        value, end = _decode(text, opens, path)
        if _is_records(value):
            lists[str(key)] = opens
        position = _skip(text, end)
        if text[position : position + 1] not in (",", "}"):
            raise unreadable(path, _cut_off(text[position : position + 1]), line=_line_of(text, position))
        if text[position] == ",":
            position = _skip(text, position + 1)
    _refuse_more(text, position + 1, path)
    if len(lists) != 1:
        found = f"it holds {len(lists)} ({', '.join(lists)})" if lists else "it holds none"
        raise unreadable(path, f"an object with exactly one list of records inside is expected: {found}")
    return next(iter(lists.values()))


def _refuse_more(text: str, position: int, path: str) -> None:
    """Stops where a second value follows the first: its records would be passed over in silence."""
    position = _skip(text, position)
    if position < len(text):
        raise unreadable(
            path,
            f"goes on behind its end with {text[position : position + 20]!r}: put all records into one list, "
            "or one on each line (jsonl)",
            line=_line_of(text, position),
        )


def _decode(text: str, position: int, path: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise unreadable(f"{path}:{error.lineno}:{error.colno}", _not_json(error)) from error
    except (_NotJSONNumberError, ValueError, RecursionError) as error:
        raise unreadable(
            path, f"in the record that starts here: {_unusable(error)}", line=_line_of(text, position)
        ) from error


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] and text[position] in WHITESPACE:
        position += 1
    return position


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _not_json(error: json.JSONDecodeError) -> str:
    reason = error.msg[:1].lower() + error.msg[1:]
    return f"is not JSON: {reason}; is the line cut off, or a quote or comma missing?"


def _unusable(error: Exception) -> str:
    return "is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _cut_off(following: str) -> str:
    return (
        f"is not JSON: ',' is missing before {following!r}"
        if following
        else "ends before its list does: is it cut off?"
    )


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "a text"),
        (list, "a list"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)
