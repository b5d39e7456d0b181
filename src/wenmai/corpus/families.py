"""Which of many documents belong together, from keys on the disk: memory for a slice of the keys at a time.

Of a document nothing stays in memory but the number of the first of its family, 8 bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wenmai.corpus.minhash import Signatures, estimated
from wenmai.corpus.ngrams import Hashes

Rows = npt.NDArray[np.int64]
"""Numbers of documents, from 0, in input order."""

SLICE = 1 << 22
"""Keys that are sorted at once: about 200 MB while it lasts."""
_PAIRS = 1 << 14
_ROUNDS = 16
"""In a group with one key, so many documents are compared with all others; more are never needed but by bad keys."""


class Families:
    """A forest over the documents; the root of each tree is its first document."""

    def __init__(self, count: int) -> None:
        self.first: Rows = np.arange(count, dtype=np.int64)

    def join(self, left: Rows, right: Rows) -> None:
        """Makes one family of the families of each pair."""
        while len(left):
            left, right = self.first[left], self.first[right]
            apart = left != right
            left, right = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
            # of a root with several pairs only the lowest is followed: the others come again
            np.minimum.at(self.first, right, left)
            self._flatten()

    def _flatten(self) -> None:
        while ((further := self.first[self.first]) != self.first).any():
            self.first = further


def groups(keys: Hashes, rows: Rows) -> tuple[Rows, Rows]:
    """Pairs of the first document with a key and each further one, in input order."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    first = rows[np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))]
    return first[~new], rows[~new]


def join_equal(families: Families, slices: Callable[[], Iterator[tuple[Hashes, Rows]]], count: int) -> None:
    """Joins documents with equal keys.

    Args:
        slices: all keys with their documents, piece by piece; called once for each part of the keys.
    """
    for keys, rows in _parts(slices, count):
        families.join(*groups(keys, rows))


def join_similar(
    families: Families,
    slices: Callable[[], Iterator[tuple[Hashes, Rows]]],
    count: int,
    rows_of: Callable[[Rows], Signatures],
    threshold: float,
) -> int:
    """Joins documents with equal keys whose signatures are similar enough.

    Args:
        rows_of: signatures of documents.

    Returns:
        how many pairs were compared.
    """
    compared = 0
    for keys, rows in _parts(slices, count):
        for _ in range(_ROUNDS):
            left, right = groups(keys, rows)
            apart = families.first[left] != families.first[right]
            left, right = left[apart], right[apart]
            if not len(left):
                break
            compared += len(left)
            alike = np.concatenate(
                [
                    estimated(rows_of(left[at : at + _PAIRS]), rows_of(right[at : at + _PAIRS])) >= threshold
                    for at in range(0, len(left), _PAIRS)
                ]
            )
            families.join(left[alike], right[alike])
            # those unlike the first of their group are compared with each other
            chosen = np.isin(rows, right[~alike])
            keys, rows = keys[chosen], rows[chosen]
    return compared


def _parts(slices: Callable[[], Iterator[tuple[Hashes, Rows]]], count: int) -> Iterator[tuple[Hashes, Rows]]:
    """The keys by their upper bits, so that equal ones come together and no part is too large for memory."""
    bits = max(0, int(np.ceil(np.log2(max(1, count) / SLICE))))
    for part in range(1 << bits):
        found = []
        for keys, rows in slices():
            chosen = slice(None) if bits == 0 else (keys >> np.uint64(64 - bits)) == part
            found.append((keys[chosen], rows[chosen]))
        yield np.concatenate([keys for keys, _ in found]), np.concatenate([rows for _, rows in found])


class OnDisk:
    """Signatures of all documents in one file, read row by row without staying in memory."""

    def __init__(self, path: Path, permutations: int):
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows: Signatures = np.frombuffer(self._map, np.uint16).reshape(-1, permutations)

    def __call__(self, rows: Rows) -> Signatures:
        found = np.array(self._rows[rows])
        if hasattr(mmap, "MADV_DONTNEED"):
            # pages of a mapped file count as resident until somebody else needs them
            self._map.madvise(mmap.MADV_DONTNEED)
        return found


def starts_of(counts: Sequence[int]) -> Rows:
    """Number of the first document of each part, and of one behind the last."""
    return np.cumsum([0, *counts]).astype(np.int64)
