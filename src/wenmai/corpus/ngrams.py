"""Hashes of all runs of n characters of a text at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def growing_hashes(points: npt.NDArray[np.uint32], lengths: Sequence[int]) -> Iterator[tuple[int, Hashes]]:
    """The hashes of :func:`ngram_hashes` for several lengths, for little more than the longest costs alone.

    Args:
        lengths: growing.

    Yields:
        each length with its hashes.
    """
    wide = points.astype(np.uint64) + np.uint64(1)
    hashes, so_far = np.zeros(len(wide) + 1, np.uint64), 0
    for n in lengths:
        for i in range(so_far, min(n, len(wide))):
            hashes = hashes[:-1] * _MULTIPLIER + wide[i:]
        so_far = n
        yield n, mixed(hashes) if n <= len(wide) else np.empty(0, np.uint64)


def ngram_hashes(points: npt.NDArray[np.uint32], n: int) -> Hashes:
    """A 64-bit hash of every run of n code points.

    Args:
        points: shape (characters,).

    Returns:
        shape (characters - n + 1,), empty if there are fewer than n.
    """
    ((_, hashes),) = growing_hashes(points, [n])
    return hashes


def mixed(hashes: Hashes) -> Hashes:
    """Spreads the differences over all bits (splitmix64; Steele, Lea and Flood 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX[1]
    return hashes ^ (hashes >> np.uint64(31))
