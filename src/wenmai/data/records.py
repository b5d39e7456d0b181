"""What a reader yields: a record of the user's data, or one that can't be used, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenmai.errors import DataError, Problem


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the source holds it.

    Args:
        data: its fields.
        path: the file as the user named it.
        line: from 1; where the record starts in a text file, its row in a table; None if the file is one
            record.
    """

    data: dict[str, Any]
    path: str
    line: int | None = None

    @property
    def place(self) -> str:
        """``train.jsonl:17``"""
        return place(self.path, self.line)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that can't be used, and why.

    Args:
        problem: place, field and reason.
        path, line: as in :class:`Record`.
        record: what could be read of it: the fields, or the raw text.
    """

    problem: Problem
    path: str
    line: int | None = None
    record: Any = None


Scanned = Iterator[Record | Rejected]
"""What every reader yields: good records and bad ones, in the order of the file."""


def place(path: str, line: int | None) -> str:
    """``train.jsonl:17``, or the path alone where there are no lines."""
    return path if line is None else f"{path}:{line}"


def rejected(
    path: str,
    line: int | None,
    message: str,
    *,
    field: str | None = None,
    record: Any = None,
    column: int | None = None,
) -> Rejected:
    """A rejected record in one call; ``column`` from 1 makes its place ``train.jsonl:17:35``."""
    where = place(path, line) if column is None else f"{place(path, line)}:{column}"
    return Rejected(Problem(where, message, field), path, line, record)


def unreadable(
    path: str | Path, message: str, *, line: int | None = None, field: str | None = None
) -> DataError:
    """The whole source can't be read: there is no sense in going on with its next record."""
    return DataError(f"{path} can't be read", [Problem(place(str(path), line), message, field)])
