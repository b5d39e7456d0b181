"""The examples of several tasks as one set, one task's after the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

from wenmai.data.examples import Examples
from wenmai.errors import Problem

E = TypeVar("E")


class JoinedExamples(Sequence[E], Generic[E]):
    """Several sets of examples in a row. Nothing is copied.

    Args:
        parts: the sets by name.
        wrap: name and example to an item of this set.
    """

    def __init__(self, parts: Mapping[str, Examples[Any]], wrap: Callable[[str, Any], E]):
        self.parts = dict(parts)
        self._wrap = wrap
        self._names = list(parts)
        self._first = np.cumsum([0, *map(len, parts.values())])

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> list[E]: ...
    def __getitem__(self, index: int | slice) -> E | list[E]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        name, place = self._where(index)
        return self._wrap(name, self.parts[name][place])

    def __iter__(self) -> Iterator[E]:
        for name, examples in self.parts.items():
            for example in examples:
                yield self._wrap(name, example)

    def place(self, index: int) -> str:
        """Where the example comes from: ``train.jsonl:17``."""
        name, place = self._where(index)
        return self.parts[name].place(place)

    @property
    def rejects(self) -> list[Problem]:
        """What was wrong with the records that were skipped."""
        return [problem for examples in self.parts.values() for problem in examples.rejects]

    def _where(self, index: int) -> tuple[str, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        index %= len(self)
        # of empty sets the last begins where the next does
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._names[number], index - int(self._first[number])
