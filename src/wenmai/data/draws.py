"""Draws that are functions of a row's key: any process makes the same ones at any time, in a batch of any rows.

Shape letters: B rows, N draws of a row or of all rows, M draws that are picked from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""How far SplitMix64 steps from state to state: 2**64 divided by the golden ratio."""


def row_keys(seed: int, epoch: int | Ints, example_B: Ints, number_B: Ints) -> Ints:
    """A number from 0 to 2**63 - 1 for each row: a hash of seed, epoch, example and row number.

    Each value in turn is added and mixed with SplitMix64 (Steele, Lea and Flood 2014), where any bit of the input
    changes half of the output's.
    """
    key_B = np.zeros(len(example_B), dtype=np.uint64)
    for value in (seed, epoch, example_B, number_B):
        key_B = mixed(key_B + np.asarray(value).astype(np.uint64))
    return (key_B >> np.uint64(1)).astype(np.int64)


def uniform(key_B: Ints, stream: int, count: int) -> NDArray[np.float64]:
    """Numbers (B, N) from 0 up to, not including, 1: for each row the first ``count`` of SplitMix64's sequence.

    Args:
        key_B: of the rows, see :func:`row_keys`.
        stream: draws for different purposes need different ones.
        count: N. The first numbers of a row are the same whatever it is.
    """
    return fractions(drawn(key_B, stream, np.full(len(key_B), count))).reshape(len(key_B), count)


def drawn(key_B: Ints, stream: int, count_B: Ints) -> Words:
    """The first ``count`` 64-bit numbers of each row's sequence, row after row; see :func:`uniform`."""
    total = int(count_B.sum())
    first_B = np.cumsum(count_B) - count_B
    # number n of all is number n - first of its row
    base_B = _states(key_B, stream) - first_B.astype(np.uint64) * GAMMA
    state_N = np.arange(total, dtype=np.uint64)
    state_N *= GAMMA
    state_N += np.repeat(base_B, count_B)
    return _mixed_in_place(state_N)


def drawn_at(key_B: Ints, stream: int, row_M: Ints, number_M: Ints) -> Words:
    """Of each row's sequence (see :func:`drawn`) only some numbers, counted from 0."""
    return _mixed_in_place(_states(key_B, stream)[row_M] + number_M.astype(np.uint64) * GAMMA)


def fractions(words: Words) -> NDArray[np.float64]:
    """64-bit numbers as numbers from 0 up to, not including, 1."""
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def mixed(state: Words) -> Words:
    """The number that SplitMix64 gives first from each state."""
    return _mixed_in_place(state.copy())


def _states(key_B: Ints, stream: int) -> Words:
    return mixed(key_B.astype(np.uint64) + np.uint64(stream))


def _mixed_in_place(value: Words) -> Words:
    value += GAMMA
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value
