"""The rows of a training set: from the cache if it holds them, else made in parallel and kept for the next run.

The file in the cache is named after all that decides the rows: the records, the task, the tokenizer and this
package's own code. So nothing has to be thrown away by hand, and runs that only differ in learning share one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

from wenmai.atomic import unwritable
from wenmai.data.features import (
    EXAMPLES_AT_ONCE,
    Chunk,
    Features,
    encode,
    features_in_memory,
    write_features,
)
from wenmai.data.rows import Row
from wenmai.processes import in_order, usable_cores
from wenmai.version import __version__

E = TypeVar("E", covariant=True)

SMALL_BYTES = 1 << 20
"""Records of no more bytes are tokenised in about a second: not worth a file, nor processes."""
CACHE_BYTES = 20 << 30
"""When the cache is larger, the files that were not used for longest go."""
MOST_PROCESSES = 16
CHECKED, FEWEST_CHECKED = 16, 2
"""Examples whose rows are made anew to see that a cached file still tells the truth; the fewest if they are large."""
LEFT_OVER_SECONDS = 24 * 3600
"""A half-written file that is so old belongs to a process that was killed."""
DECIDING = ("text", "data", "backbones", "tasks")
"""Parts of this package whose code decides the rows."""


class Examples(Protocol[E]):
    """Examples with the JSON that each is made from, as :class:`wenmai.data.examples.Examples`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> E: ...
    def record(self, index: int) -> str: ...


def build_features(
    examples: Examples[E],
    featurize: Callable[[E], list[Row]],
    *,
    key_parts: Sequence[str],
    folder: Path | None,
    processes: int | None = None,
    at_once: int = EXAMPLES_AT_ONCE,
    advance: Callable[[int], None] = lambda count: None,
) -> Features:
    """The rows of all examples.

    Args:
        featurize: example to rows with targets; must give the same rows each time.
        key_parts: what decides the rows beside the records: task, labels, tokenizer.
        folder: the cache; None: a temporary folder, gone at exit. A cache that can't be written is passed over.
        processes: how many make rows; default: one a usable processor.
        at_once: how many examples one of them takes at a time.
        advance: told how many more examples are done.

    Raises:
        UserError: there is no room for the rows, neither in the cache nor in the temporary folder.
    """
    found: Features | None
    key, size = content_key(examples, key_parts)
    if size <= SMALL_BYTES:
        found = features_in_memory((examples[i] for i in range(len(examples))), featurize)
        advance(len(examples))
        return found

    def make(path: Path) -> Features:
        used = processes or min(MOST_PROCESSES, usable_cores())
        _write(path, _chunks(examples, featurize, used, at_once, advance))
        return Features.open(path)

    def kept(path: Path) -> Features | None:
        return _kept(path, examples, featurize, max(FEWEST_CHECKED, min(CHECKED, at_once)))

    if folder is not None:
        path = folder / f"rows-{key}.bin"
        found = kept(path)
        if found is None:
            with suppress(OSError), _alone(path):
                # another process may have made them while this one waited
                found = kept(path) or make(path)
                trim(folder, keep=path)
        else:
            advance(len(examples))
        if found is not None:
            return found
    temporary = Path(tempfile.mkdtemp(prefix="wenmai-"))
    try:
        found = make(temporary / "rows.bin")
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise unwritable(temporary, error) from error
    weakref.finalize(found, _remove, temporary, os.getpid())
    return found


def content_key(examples: Examples[E], key_parts: Sequence[str]) -> tuple[str, int]:
    """A name for the rows of these records, and how many bytes of text the records are."""
    digest = hashlib.sha256(json.dumps([*key_parts, __version__, _code()]).encode())
    size = 0
    for at in range(0, len(examples), EXAMPLES_AT_ONCE):
        # a record is one line of JSON: line breaks inside it are escaped
        some = range(at, min(at + EXAMPLES_AT_ONCE, len(examples)))
        text = "".join(f"\n{examples.record(i)}" for i in some).encode()
        digest.update(text)
        size += len(text)
    return digest.hexdigest()[:32], size


def trim(folder: Path, *, keep: Path, most: int = CACHE_BYTES) -> None:
    """Removes the files of the cache that were not used for longest, until the rest is small enough.

    Args:
        keep: stays in any case.
        most: bytes of all files.
    """
    now = time.time()
    for half in folder.glob(".rows-*.new"):
        with suppress(OSError):
            if now - half.stat().st_mtime > LEFT_OVER_SECONDS:
                half.unlink()
    found: list[tuple[float, int, Path]] = []
    for path in folder.glob("rows-*.bin"):
        with suppress(OSError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total > most and path != keep:
            with suppress(OSError):
                path.unlink()
                total -= size


def _chunks(
    examples: Examples[E],
    featurize: Callable[[E], list[Row]],
    processes: int,
    at_once: int,
    advance: Callable[[int], None],
) -> Iterator[Chunk]:
    def work(number: int) -> Chunk:
        start = number * at_once
        stop = min(start + at_once, len(examples))
        return encode(featurize(examples[i]) for i in range(start, stop))

    for chunk in in_order(work, -(-len(examples) // at_once), processes):
        yield chunk
        advance(len(chunk.rows_E))


def _write(path: Path, chunks: Iterator[Chunk]) -> None:
    """Beside its place, under a name that no other process uses, then renamed."""
    beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.new")
    try:
        with beside.open("wb") as file, closing(chunks):  # type: ignore[type-var]
            write_features(file, chunks)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _kept(
    path: Path, examples: Examples[E], featurize: Callable[[E], list[Row]], checked: int
) -> Features | None:
    """The rows in the cache, if they are there, whole and as they would be made now."""
    try:
        found = Features.open(path)
    except (OSError, ValueError):
        return None
    for i in range(0, len(examples), -(-len(examples) // checked)):
        now, then = encode([featurize(examples[i])]), encode([found.rows(i)])
        if (now.records, now.layouts) != (then.records, then.layouts):
            return None
    with suppress(OSError):
        os.utime(path)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, no other process makes this file: of several that need it, one works and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    with FileLock(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@cache
def _code() -> str:
    """Of this package's code that decides the rows, which may change without its version."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(path for part in DECIDING for path in (package / part).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _remove(folder: Path, owner: int) -> None:
    """At the end of the process that made it, not of its copies."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
