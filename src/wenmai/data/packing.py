"""Consecutive documents joined to rows of full length, over the borders of sentences and documents.

As the FULL-SENTENCES of RoBERTa (Liu et al. 2019): the tokens of document after document make one stream, with the
special tokens that end a row between any two of them, and the stream is cut into rows. So no position of a batch is
padding, and short lines of a text are read beside their neighbours.

The stream begins anew with every group of documents: groups are made by any number of processes at once, and only a
group's last row is shorter than the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wenmai.data.featurizing import Examples
from wenmai.data.rows import Row, Tokens

E = TypeVar("E")
Name = tuple[str, str]
"""``inputs`` or ``targets``, and a key of it."""

GROUP_BYTES = 256 << 10
"""Records of a group: about 80,000 tokens of Chinese, so of 160 rows of 512 tokens one is shorter."""


class Groups(Examples[list[E]]):
    """Consecutive examples in groups of at least ``size`` bytes of records; the last has what is left.

    Args:
        examples: at least one.
    """

    def __init__(self, examples: Examples[E], size: int = GROUP_BYTES):
        self._examples = examples
        first = [0]
        held = 0
        for i in range(len(examples)):
            if held >= size:
                first.append(i)
                held = 0
            held += len(examples.record(i).encode("utf-8", "surrogatepass"))
        self._first = [*first, len(examples)]

    def __len__(self) -> int:
        return len(self._first) - 1

    def __getitem__(self, index: int, /) -> list[E]:
        return [self._examples[i] for i in self.range(index)]

    def range(self, index: int) -> range:
        """Which examples a group holds."""
        return range(self._first[index], self._first[index + 1])

    def record(self, index: int) -> str:
        """The records of the group, one a line."""
        return "\n".join(self._examples.record(i) for i in self.range(index))


def packing(featurize: Callable[[E], list[Row]], max_length: int) -> Callable[[Iterable[E]], list[Row]]:
    """A featurizer of groups from one of single examples; see :func:`packed`."""
    return lambda group: packed(map(featurize, group), max_length)


def packed(documents: Iterable[Sequence[Row]], max_length: int) -> list[Row]:
    """The content of all rows in order, in as few rows as hold it.

    Args:
        documents: the rows of each, windows that don't overlap. Whatever a row has is a number a token.
        max_length: tokens of a row, special tokens included.

    Returns:
        at least one row; without offsets. All but the last have ``max_length`` tokens.
    """
    shell: Row | None = None
    streams: dict[Name, list[NDArray[Any]]] = {}
    between: list[NDArray[np.bool_]] = []
    for rows in documents:
        shell = shell or rows[0]
        for row in rows:
            start, stop = row.content
            _extend(streams, row, start, stop)
            between.append(np.zeros(stop - start, dtype=np.bool_))
        if rows[-1].content[1] > rows[-1].content[0]:
            _extend(streams, rows[-1], stop, len(rows[-1]))
            between.append(np.ones(len(rows[-1]) - stop, dtype=np.bool_))
    assert shell is not None, "no document"
    before, after = shell.content[0], len(shell) - shell.content[1]
    room = max_length - before - after
    stream = {name: np.concatenate(parts) for name, parts in streams.items()}
    between_S = np.concatenate(between)
    total = len(between_S) - after
    made: list[Row] = []
    at = 0
    while at < total or not made:
        # a row begins with text
        while at < total and between_S[at]:
            at += 1
        stop = max(at, min(at + room, total))
        made.append(_filled(shell, {name: values[at:stop] for name, values in stream.items()}, stop - at))
        at = stop
    return made


def _extend(streams: dict[Name, list[NDArray[Any]]], row: Row, start: int, stop: int) -> None:
    for name, values in _fields(row):
        streams.setdefault(name, []).append(np.asarray(values)[start:stop])


def _fields(row: Row) -> Iterable[tuple[Name, Tokens]]:
    for part, fields in (("inputs", row.inputs), ("targets", row.targets)):
        for name, values in fields.items():
            assert isinstance(values, list | np.ndarray) and len(values) == len(row), (
                f"{name} can't be packed"
            )
            yield (part, name), values


def _filled(shell: Row, content: dict[Name, NDArray[Any]], count: int) -> Row:
    """A row with the special tokens of another and so many tokens between them."""
    start, stop = shell.content
    row = Row(inputs={}, content=(start, start + count))
    for name, values in _fields(shell):
        whole = np.concatenate([np.asarray(values)[:start], content[name], np.asarray(values)[stop:]])
        if name[0] == "inputs":
            row.inputs[name[1]] = whole
        else:
            row.targets[name[1]] = whole
    return row
