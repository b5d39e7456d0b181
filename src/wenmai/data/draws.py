"""Draws that are functions of a row's key: any process makes the same ones at any time, in a batch of any rows.

Shape letters: B rows, N draws of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""How far SplitMix64 steps from state to state: 2**64 divided by the golden ratio."""


def row_keys(seed: int, epoch: int, example_B: Ints, number_B: Ints) -> Ints:
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
    state_B = mixed(key_B.astype(np.uint64) + np.uint64(stream))
    word_BN = mixed(state_B[:, None] + np.arange(count, dtype=np.uint64) * GAMMA)
    return np.asarray((word_BN >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def mixed(state: Words) -> Words:
    """The number that SplitMix64 gives first from each state."""
    value = state + GAMMA
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
