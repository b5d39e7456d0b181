"""Hashes of all runs of n characters of a text at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def ngram_hashes(points: npt.NDArray[np.uint32], n: int) -> Hashes:
    """A 64-bit hash of every run of n code points.

    Args:
        points: shape (characters,).

    Returns:
        shape (characters - n + 1,), empty if there are fewer than n.
    """
    length = len(points) - n + 1
    if length < 1:
        return np.empty(0, np.uint64)
    wide = points.astype(np.uint64) + np.uint64(1)
    hashes = wide[:length].copy()
    for i in range(1, n):
        hashes *= _MULTIPLIER
        hashes += wide[i : i + length]
    return mixed(hashes)


def mixed(hashes: Hashes) -> Hashes:
    """Spreads the differences over all bits (splitmix64; Steele, Lea and Flood 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX[1]
    return hashes ^ (hashes >> np.uint64(31))
