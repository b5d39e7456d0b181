"""How far long work has come, told to whoever asked: the library itself shows nothing.

Functions that take long have a parameter ``progress: Progress = SILENT`` and write::

    with progress.task("reading train.jsonl", total, "rows") as step:
        for row in rows:
            step.advance()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """One piece of work while it goes on."""

    def advance(self, n: int = 1, **shown: object) -> None:
        """``n`` more units are done; ``shown`` are values to stand beside the bar (``loss="0.42"``)."""


class Progress(Protocol):
    """Who is told about the work."""

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Step]:
        """A new piece of work.

        Args:
            name: what is done, for people.
            total: how many units there will be; None if nobody knows.
            unit: what is counted, in the plural: ``steps``, ``rows``, ``texts``.
        """


class _SilentStep:
    def advance(self, n: int = 1, **shown: object) -> None:
        pass


class _Silent:
    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[Step]:
        yield _SilentStep()


SILENT: Progress = _Silent()
"""Tells nobody."""
