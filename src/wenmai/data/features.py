"""The rows of a training set in one compact file, from which any row is read in microseconds.

Tokenising takes a hundred times as long as reading the result back, and a run needs each row several times: to
measure it, and once an epoch. So rows are made once and kept as integers of as few bytes as their values need::

    magic | records of all rows, one after the other | index | trailer

A record is ``T, content start, content stop, window`` and then the row's fields as its *layout* says; few layouts
describe all rows of a set. Nothing in the file is code, and a checksum over all of it tells a damaged one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from wenmai.data.rows import IGNORE, Arrays, Padding, Row, Target, Tokens

E = TypeVar("E")
Ints = NDArray[np.int64]

MAGIC = b"wenmai\x00\x01"
"""Begins and ends the file; its last byte counts the versions of the format."""
HEAD = struct.Struct("<4i")
ITEMS = struct.Struct("<2i")
TRAILER = struct.Struct("<4QI8s")
"""Bytes of the records and of the layouts, number of examples and of rows, checksum, magic."""
READ_AT_ONCE = 16 << 20
EXAMPLES_AT_ONCE = 256
INTEGERS = {"b": 1, "h": 2, "i": 4, "q": 8}
"""Codes of ``struct`` and their bytes."""


class Field(NamedTuple):
    """One value of a row as its record holds it.

    Args:
        part: ``inputs`` or ``targets``.
        name: key of the part's dictionary.
        kind: ``list`` of T numbers; ``same``: T times one number; ``number``: a single one; ``items``: N and K,
            then N times K numbers.
        code: of the numbers in ``struct``.
    """

    part: str
    name: str
    kind: str
    code: str


Layout = tuple[Field, ...]


@dataclass(frozen=True)
class Chunk:
    """The rows of consecutive examples, encoded.

    Args:
        records: of R rows.
        rows_E: rows of each example.
        bytes_R, tokens_R, layout_R: length of each record, of each row, and which of ``layouts`` it has.
    """

    records: bytes
    rows_E: Ints
    bytes_R: Ints
    tokens_R: Ints
    layout_R: Ints
    layouts: list[Layout]


def encode(examples: Iterable[list[Row]]) -> Chunk:
    """The rows of some examples; their ``offsets`` are left out, which training does not read.

    Raises:
        AssertionError: a row holds what is no whole number where one belongs.
    """
    records: list[bytes] = []
    counts: list[int] = []
    lengths: list[int] = []
    chosen: list[int] = []
    layouts: dict[Layout, int] = {}
    for rows in examples:
        counts.append(len(rows))
        for row in rows:
            layout, parts = _encoded(row)
            records.append(b"".join(parts))
            lengths.append(len(row))
            chosen.append(layouts.setdefault(layout, len(layouts)))
    return Chunk(
        records=b"".join(records),
        rows_E=np.array(counts, dtype=np.int64),
        bytes_R=np.array([len(record) for record in records], dtype=np.int64),
        tokens_R=np.array(lengths, dtype=np.int64),
        layout_R=np.array(chosen, dtype=np.int64),
        layouts=list(layouts),
    )


def _encoded(row: Row) -> tuple[Layout, list[bytes]]:
    fields: list[Field] = []
    parts = [HEAD.pack(len(row), *row.content, row.window)]
    values: list[tuple[str, str, Target]] = [("inputs", name, value) for name, value in row.inputs.items()]
    values += [("targets", name, value) for name, value in row.targets.items()]
    for part, name, value in values:
        if isinstance(value, np.ndarray) and value.ndim == 2:
            code, data = _integers(value)
            fields.append(Field(part, name, "items", code))
            parts += [ITEMS.pack(*value.shape), data]
        elif isinstance(value, list | np.ndarray):
            assert len(value) == len(row), f"{part} {name!r} has {len(value)} values for {len(row)} tokens"
            same = len(value) > 0 and _all_alike(value)
            code, data = _integers(value[:1] if same else value)
            fields.append(Field(part, name, "same" if same else "list", code))
            parts.append(data)
        elif isinstance(value, float):
            fields.append(Field(part, name, "number", "d"))
            parts.append(struct.pack("<d", value))
        else:
            code, data = _integers([value])
            fields.append(Field(part, name, "number", code))
            parts.append(data)
    return tuple(fields), parts


def _all_alike(values: Tokens) -> bool:
    if isinstance(values, list):
        return values.count(values[0]) == len(values)
    return bool((values == values[0]).all())


def _integers(values: Tokens) -> tuple[str, bytes]:
    """The shortest type that holds them all, and their bytes."""
    array = np.asarray(values)
    if not array.size:
        return "b", b""
    assert array.dtype.kind in "iub", f"expected whole numbers, got {array.dtype}"
    low, high = int(array.min()), int(array.max())
    code = next(code for code, size in INTEGERS.items() if max(-low - 1, high) < 1 << (8 * size - 1))
    return code, array.astype(f"<i{INTEGERS[code]}").tobytes()


def _decoded(record: bytes, layout: Layout) -> Row:
    length, first, stop, window = HEAD.unpack_from(record)
    row = Row(inputs={}, content=(first, stop), window=window)
    for field, value in zip(layout, _values(record, layout, length), strict=True):
        if field.kind == "same":
            value = np.full(length, value)
        (row.inputs if field.part == "inputs" else row.targets)[field.name] = value
    return row


def _values(record: bytes, layout: Layout, length: int) -> list[Any]:
    """The fields of a record, of those of kind ``same`` the one number."""
    values: list[Any] = []
    at = HEAD.size
    for _, _, kind, code in layout:
        if kind == "list":
            values.append(np.frombuffer(record, _TYPES[code], length, at))
            at += length * INTEGERS[code]
        elif kind == "items":
            count, width = ITEMS.unpack_from(record, at)
            array = np.frombuffer(record, _TYPES[code], count * width, at + ITEMS.size)
            values.append(array.reshape(count, width).astype(np.int64))
            at += ITEMS.size + array.nbytes
        else:
            number = _NUMBERS[code]
            values.append(number.unpack_from(record, at)[0])
            at += number.size
    return values


_TYPES = {code: np.dtype(f"<i{size}") for code, size in INTEGERS.items()}
_NUMBERS = {code: struct.Struct(f"<{code}") for code in (*INTEGERS, "d")}


def write_features(sink: BinaryIO, chunks: Iterable[Chunk]) -> None:
    """Writes the file from the chunks of all examples, in their order."""
    written = crc = 0

    def put(data: bytes) -> None:
        nonlocal written, crc
        sink.write(data)
        written += len(data)
        crc = zlib.crc32(data, crc)

    put(MAGIC)
    layouts: dict[Layout, int] = {}
    columns: list[list[Ints]] = [[], [], [], []]
    for chunk in chunks:
        put(chunk.records)
        numbers = np.array([layouts.setdefault(layout, len(layouts)) for layout in chunk.layouts])
        layout_R = numbers[chunk.layout_R] if len(chunk.layout_R) else chunk.layout_R
        for column, part, dtype in zip(
            columns,
            (chunk.rows_E, chunk.bytes_R, chunk.tokens_R, layout_R),
            _COLUMNS,
            strict=True,
        ):
            column.append(part.astype(dtype))
    end_of_records = written
    rows_E, bytes_R, tokens_R, layout_R = (
        np.concatenate(column) if column else np.zeros(0, dtype)
        for column, dtype in zip(columns, _COLUMNS, strict=True)
    )
    for array in (rows_E, bytes_R, tokens_R, layout_R):
        put(array.tobytes())
    described = json.dumps(list(layouts)).encode()
    put(described)
    sink.write(TRAILER.pack(end_of_records, len(described), len(rows_E), len(bytes_R), crc, MAGIC))


_COLUMNS = ("<i4", "<i4", "<i4", "<i4")
"""Types of the index: rows of each example; bytes, tokens and layout of each row."""


class Features:
    """The rows of a set, by example. Pickled, it opens its file again.

    Args:
        read: bytes ``[start, start + size)`` of the file.
        size: of the file.
        origin: what to make it from in another process: the file's path, or all its bytes.

    Raises:
        ValueError: the file is cut off, damaged or of another version.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, origin: Path | bytes):
        self._read = read
        self._origin = origin
        if size < len(MAGIC) + TRAILER.size or read(0, len(MAGIC)) != MAGIC:
            raise ValueError("no file of features")
        index_at, described, examples, rows, crc, magic = TRAILER.unpack(
            read(size - TRAILER.size, TRAILER.size)
        )
        if magic != MAGIC or index_at + 4 * (examples + 3 * rows) + described + TRAILER.size != size:
            raise ValueError("cut off")
        if _checksum(read, size - TRAILER.size) != crc:
            raise ValueError("damaged")
        columns = np.frombuffer(read(index_at, 4 * (examples + 3 * rows)), "<i4")
        rows_E, bytes_R, tokens_R, layout_R = np.split(columns, np.cumsum([examples, rows, rows]))
        self.first_row: Ints = np.concatenate([[0], np.cumsum(rows_E, dtype=np.int64)])
        """(E + 1,): the number of rows of all examples before each."""
        self.tokens_R: Ints = tokens_R.astype(np.int64)
        """(R,): tokens of every row."""
        self._at_R: Ints = np.concatenate([[0], np.cumsum(bytes_R, dtype=np.int64)]) + len(MAGIC)
        self._layout_R = layout_R.copy()
        layouts = json.loads(read(size - TRAILER.size - described, described))
        self._layouts: list[Layout] = [tuple(Field(*field) for field in layout) for layout in layouts]

    @classmethod
    def open(cls, path: Path) -> Features:
        """The rows of a file, which stays open.

        Raises:
            OSError: it can't be read.
            ValueError: it is cut off, damaged or of another version.
        """
        file = path.open("rb", buffering=0)
        return cls(_reader(file), os.fstat(file.fileno()).st_size, path)

    @classmethod
    def of_bytes(cls, data: bytes) -> Features:
        """The rows of a file that is held in memory."""
        return cls(lambda start, size: data[start : start + size], len(data), data)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.first_row) - 1

    def count(self, example: int) -> int:
        """How many rows an example has."""
        return int(self.first_row[example + 1] - self.first_row[example])

    def row(self, example: int, number: int) -> Row:
        """One row of an example, without offsets; what is a number a token is an array that can't be written to."""
        first, stop = self.first_row[example : example + 2].tolist()
        assert 0 <= number < stop - first, f"example {example} has no row {number}"
        start, stop = self._at_R[first + number : first + number + 2].tolist()
        return _decoded(self._read(start, stop - start), self._layouts[self._layout_R[first + number]])

    def batch(self, row_B: Ints, pad_id: int) -> Arrays:
        """What :func:`wenmai.data.rows.stack` makes of some rows, in less time, as none is made by itself.

        Args:
            row_B: numbers of at least one row, counted over all examples.
        """
        length_B = self.tokens_R[row_B]
        padding = Padding(length_B)
        layouts: list[Layout] = []
        found: list[list[Any]] = []
        for start, stop, layout, length in zip(
            self._at_R[row_B].tolist(),
            self._at_R[row_B + 1].tolist(),
            self._layout_R[row_B].tolist(),
            length_B.tolist(),
            strict=True,
        ):
            layouts.append(self._layouts[layout])
            found.append(_values(self._read(start, stop - start), layouts[-1], length))
        batch: Arrays = {}
        for fields, values in zip(zip(*layouts, strict=True), zip(*found, strict=True), strict=True):
            part, name = fields[0].part, fields[0].name
            fill = IGNORE if part == "targets" else pad_id if name == "input_ids" else 0
            alike = [field.kind == "same" for field in fields]
            if all(alike):
                batch[name] = padding.constants(values, fill)
                continue
            if any(alike):
                values = tuple(
                    np.full(length, value) if same else value
                    for value, same, length in zip(values, alike, length_B.tolist(), strict=True)
                )
            batch[name] = padding.tokens(values, fill) if part == "inputs" else padding.target(values)
        batch["attention_mask"] = padding.mask()
        return batch

    def rows(self, example: int) -> list[Row]:
        """All rows of an example, without offsets."""
        return [self.row(example, number) for number in range(self.count(example))]

    def __reduce__(self) -> tuple[object, ...]:
        return (Features.open if isinstance(self._origin, Path) else Features.of_bytes), (self._origin,)


def features_in_memory(examples: Iterable[E], featurize: Callable[[E], list[Row]]) -> Features:
    """The rows of a small set, without a file."""
    rows = map(featurize, examples)
    buffer = BytesIO()
    write_features(buffer, map(encode, iter(lambda: list(islice(rows, EXAMPLES_AT_ONCE)), [])))
    return Features.of_bytes(buffer.getvalue())


def _reader(file: Any) -> Callable[[int, int], bytes]:
    """Reads a file anywhere, from any number of forked processes at once.

    Not through a memory map: its pages would count as the process's memory until they are given back, and a look at
    each anew takes longer (1.6 us a row) than a call to the system (0.9 us).
    """
    if hasattr(os, "pread"):
        return lambda start, size: os.pread(file.fileno(), size, start)

    def read(start: int, size: int) -> bytes:  # Windows, where no process shares the open file
        file.seek(start)
        data: bytes = file.read(size)
        return data

    return read


def _checksum(read: Callable[[int, int], bytes], size: int) -> int:
    crc = 0
    for piece in _pieces(size):
        crc = zlib.crc32(read(*piece), crc)
    return crc


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    return ((at, min(READ_AT_ONCE, size - at)) for at in range(0, size, READ_AT_ONCE))
