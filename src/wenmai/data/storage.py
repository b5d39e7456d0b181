"""Records as JSON in an Arrow table that moves from memory to a file when it grows."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wenmai.atomic import unwritable

IN_MEMORY_BYTES = 64 << 20
BATCH_BYTES = 4 << 20
BATCH_RECORDS = 8192
RESIDENT_BYTES = 256 << 20
"""So much of a mapped file may be in memory, about."""
BYTES_AROUND = 1 << 20
"""What the system maps at most, as a rule, when one record is read: the surroundings of its text and its offset."""
NO_LINE = -1

SCHEMA = pa.schema([("record", pa.string()), ("file", pa.int32()), ("line", pa.int64())])


class MappedFile:
    """An Arrow file of :data:`SCHEMA`, mapped into memory; of a file of any size only a part stays resident.

    Whoever reads tells how much; now and then the pages read are given back, which the system would do by
    itself only when memory runs out. To read them again costs a look into the page cache.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(self._map))
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._small = len(self._map) <= RESIDENT_BYTES
        self._touched = 0

    def touched(self, size: int) -> None:
        """So many bytes were read."""
        self._touched += size
        if self._touched > RESIDENT_BYTES and not self._small:
            self._touched = 0
            if hasattr(self._map, "madvise"):  # Windows has no such call
                self._map.madvise(mmap.MADV_DONTNEED)


class StoredRecords:
    """The records of one source, by position.

    Args:
        batches: of :data:`SCHEMA`, in memory, or those of ``mapped``.
        files: paths that the column ``file`` counts.
        mapped: the file that the batches are mapped from.
        temporary: a folder to remove with the last use of the records.
    """

    def __init__(
        self,
        batches: list[pa.RecordBatch],
        files: list[str],
        *,
        mapped: MappedFile | None = None,
        temporary: Path | None = None,
    ):
        self._batches = batches
        self._files = files
        self._mapped = mapped
        self._columns = [batch.columns for batch in batches]
        self._first: list[int] = list(accumulate((batch.num_rows for batch in batches), initial=0))
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, True)

    def __len__(self) -> int:
        return self._first[-1]

    @property
    def memory_mapped(self) -> bool:
        return self._mapped is not None

    def record(self, position: int) -> str:
        batch, row = self._find(position)
        text: str = self._columns[batch][0][row].as_py()
        self._touched(BYTES_AROUND)
        return text

    def records(self, positions: NDArray[np.int64] | None = None) -> Iterator[str]:
        """One record after the other, default: all; quicker than each by itself where positions ascend."""
        if positions is None:
            positions = np.arange(len(self))
        for at in range(0, len(positions), BATCH_RECORDS):
            some = positions[at : at + BATCH_RECORDS]
            batch_N = np.searchsorted(self._first, some, side="right") - 1
            borders = [0, *(np.flatnonzero(np.diff(batch_N)) + 1).tolist(), len(some)]
            for start, stop in pairwise(borders):
                batch = int(batch_N[start])
                texts = self._columns[batch][0].take(pa.array(some[start:stop] - self._first[batch]))
                self._touched(texts.nbytes + BYTES_AROUND)
                yield from texts.to_pylist()

    def origin(self, position: int) -> tuple[str, int | None]:
        """Path and line."""
        batch, row = self._find(position)
        _, files, lines = self._columns[batch]
        line: int = lines[row].as_py()
        return self._files[files[row].as_py()], None if line == NO_LINE else line

    def _find(self, position: int) -> tuple[int, int]:
        """Which batch, and which of its rows."""
        batch = bisect_right(self._first, position) - 1
        return batch, position - self._first[batch]

    def _touched(self, size: int) -> None:
        if self._mapped is not None:
            self._mapped.touched(size)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy in another process maps the same file again; it does not own a temporary folder."""
        if self._mapped is not None:
            return _map, (self._mapped.path, self._files)
        return StoredRecords, (self._batches, self._files)


def _map(path: Path, files: list[str], temporary: Path | None = None) -> StoredRecords:
    mapped = MappedFile(path)
    return StoredRecords(mapped.batches, files, mapped=mapped, temporary=temporary)


class RecordStore:
    """Takes records one at a time: ``with RecordStore(...) as store: store.add(...); stored =
    store.finish()``.

    Args:
        cache: folder for the file; None: a temporary one.
        key: what the records come from. The file of the same source in the same cache is replaced; without a
            key it goes into a temporary folder.
    """

    def __init__(self, cache: Path | None, *, key: str | None):
        self._cache = cache if key is not None else None
        self._name = f"examples-{hashlib.sha256((key or '').encode()).hexdigest()[:16]}.arrow"
        self._files: dict[str, int] = {}
        self._records: list[str] = []
        self._origins: list[tuple[int, int]] = []
        self._bytes = 0
        self._total_bytes = 0
        self._count = 0
        self._batches: list[pa.RecordBatch] = []
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._target: Path | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes what was written if the records are not finished."""
        if self._writer is not None and self._target is not None:
            self._writer.close()
            self._beside(self._target).unlink(missing_ok=True)
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def __len__(self) -> int:
        return self._count

    def add(self, record: str, path: str, line: int | None) -> None:
        self._records.append(record)
        self._origins.append(
            (self._files.setdefault(path, len(self._files)), NO_LINE if line is None else line)
        )
        self._bytes += len(record.encode())
        self._count += 1
        if self._bytes >= BATCH_BYTES or len(self._records) >= BATCH_RECORDS:
            self._flush()

    def finish(self) -> StoredRecords:
        """The records; nothing can be added after."""
        self._flush()
        files = list(self._files)
        if self._writer is None or self._target is None:
            return StoredRecords(self._batches, files)
        try:
            self._writer.close()
            self._beside(self._target).replace(self._target)
        except OSError as error:
            raise unwritable(self._target, error) from error
        self._writer = None
        return _map(self._target, files, self._temporary)

    def _flush(self) -> None:
        if not self._records:
            return
        files, lines = zip(*self._origins, strict=True)
        batch = pa.record_batch([pa.array(self._records, pa.string()), files, lines], schema=SCHEMA)
        self._total_bytes += self._bytes
        self._records, self._origins, self._bytes = [], [], 0
        self._batches.append(batch)
        if self._writer is None and self._total_bytes <= IN_MEMORY_BYTES:
            return
        try:
            writer = self._writer or self._open()
            for waiting in self._batches:
                writer.write_batch(waiting)
        except OSError as error:
            raise unwritable(self._target or Path(self._name), error) from error
        self._batches = []

    def _open(self) -> pa.ipc.RecordBatchFileWriter:
        if self._cache is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="wenmai-"))
        folder = self._cache or self._temporary or Path()
        folder.mkdir(parents=True, exist_ok=True)
        self._target = folder / self._name
        self._writer = pa.ipc.new_file(str(self._beside(self._target)), SCHEMA)
        return self._writer

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f".{path.name}.new")
