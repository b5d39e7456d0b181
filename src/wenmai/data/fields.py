"""What ``data:`` changes in records after they are read: which ones, which columns, which labels, which
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from wenmai.data.lines import read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected
from wenmai.data.sources import Reading
from wenmai.errors import DataError

LABEL_FIELDS = frozenset({"label", "predicate"})
LABEL_LISTS = frozenset({"labels", "intents"})


class _UnknownLabelError(Exception):
    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def apply_reading(records: Scanned, reading: Reading, *, counts_ends: bool) -> Scanned:
    """The records that ``rows`` and ``where`` leave, with their columns, labels and ends as the options say.

    In this order: ``rows`` counts the records of the file, ``where`` looks at the file's own columns,
    ``columns`` picks and renames, then labels are named and mapped, last are inclusive ends made exclusive.

    Args:
        counts_ends: the format carries the user's own offsets, which ``end_inclusive`` speaks of.
    """
    if reading.rows is not None:
        records = islice(records, *reading.rows)
    if reading.where is not None:
        records = _where(records, reading.where)
    if reading.columns is not None:
        records = _columns(records, reading.columns)
    if reading.label_names is not None:
        records = _relabelled(records, _named(reading.label_names, reading.encoding))
    if reading.label_map is not None:
        known = reading.label_map
        records = _relabelled(records, lambda label, field: known.get(str(label), label))
    if reading.end_inclusive and counts_ends:
        records = _changed(records, _exclusive)
    return records


def _where(records: Scanned, where: Mapping[str, str | int | list[str | int]]) -> Scanned:
    allowed = {
        column: {str(value) for value in (values if isinstance(values, list) else [values])}
        for column, values in where.items()
    }
    for record in records:
        if isinstance(record, Rejected) or all(
            column in record.data and str(record.data[column]) in values for column, values in allowed.items()
        ):
            yield record


def _columns(records: Scanned, columns: Mapping[str, str | int]) -> Scanned:
    wanted = [(field, str(column)) for field, column in columns.items()]
    return _changed(records, lambda data: {field: data[column] for field, column in wanted if column in data})


def _changed(records: Scanned, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Scanned:
    for record in records:
        yield (
            record if isinstance(record, Rejected) else Record(change(record.data), record.path, record.line)
        )


def _named(path: str, encoding: str) -> Callable[[Any, str], str]:
    names: list[str] = []
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):  # without it all names behind it would have other numbers
            raise DataError(f"{path} can't be read", [line.problem])
        names.append(line.text.strip())
    while names and not names[-1]:
        names.pop()

    def name(label: Any, field: str) -> str:
        try:
            number = int(label)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < len(names):
            raise _UnknownLabelError(
                f"{label!r} is no number from 0 to {len(names) - 1}: {path} has {len(names)} names", field
            )
        return names[number]

    return name


def _relabelled(records: Scanned, change: Callable[[Any, str], Any]) -> Scanned:
    for record in records:
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield Record(_with_labels(record.data, change, ""), record.path, record.line)
        except _UnknownLabelError as error:
            yield rejected(record.path, record.line, str(error), field=error.field, record=record.data)


def _with_labels(value: Any, change: Callable[[Any, str], Any], field: str) -> Any:
    """A copy with every label changed, at any depth: labels of entities and predicates of relations too."""
    if isinstance(value, list):
        return [_with_labels(item, change, f"{field}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    copy = {}
    for key, inner in value.items():
        inside = f"{field}.{key}" if field else key
        if key in LABEL_FIELDS | LABEL_LISTS and isinstance(inner, str | int):
            copy[key] = change(inner, inside)
        elif key in LABEL_LISTS and isinstance(inner, list):
            copy[key] = [change(item, f"{inside}[{i}]") for i, item in enumerate(inner)]
        else:
            copy[key] = _with_labels(inner, change, inside)
    return copy


def _exclusive(value: Any) -> Any:
    """A copy with every ``end`` that stands beside a ``start`` moved behind its character."""
    if isinstance(value, list):
        return [_exclusive(item) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {key: _exclusive(inner) for key, inner in value.items()}
    if isinstance(copy.get("start"), int) and isinstance(copy.get("end"), int):
        copy["end"] += 1
    return copy
