"""Which tokens are hidden: units of tokens, words or runs of words, drawn without replacement up to a share.

All choices are one: the tokens of a row are parted into units, and units are taken in a drawn order. Everything is
computed for a whole batch at once, from draws that are functions of the rows' keys. Padding and special tokens are
left out from the start: what is drawn and sorted are the units of all rows in one array, row after row.

Shape letters: B rows, T tokens of a padded row, N tokens of content in all rows, U units of all rows,
K of them that come first, M hidden tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wenmai.data.draws import drawn, drawn_at, fractions

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ORDER, COIN, LENGTHS = 1, 2, 3
"""Streams of draws; see :func:`wenmai.data.draws.uniform`."""

INDEX_BITS = 18
DRAWN_BITS = 28
"""Of the bits that order the units of a row: the draw, index of the unit in its row."""
SPREAD = 4.0
"""So many standard deviations more units than the share are looked at first."""


@dataclass(frozen=True)
class Units:
    """The tokens of content of a batch, parted into units.

    Args:
        at_N: the tokens' places in the flattened batch (B * T), ascending.
        first_B: how many tokens of content the rows before each have; one more for all of them.
        start_U: the token, from 0 to N - 1, that begins each unit; None: every token is one.
    """

    at_N: Ints
    first_B: Ints
    start_U: Ints | None = None

    def first_units(self) -> Ints:
        """How many units the rows before each have; one more for all of them."""
        return self.first_B if self.start_U is None else np.searchsorted(self.start_U, self.first_B)


def tokens(content_BT: Mask) -> Units:
    """Each token of content by itself."""
    rows, width = content_BT.shape
    at_N = np.flatnonzero(content_BT)
    return Units(at_N, np.searchsorted(at_N, np.arange(rows + 1) * width))


def words(begins_BT: Mask, content_BT: Mask) -> Units:
    """Units from each token that begins one up to the next.

    Args:
        begins_BT: the tokens that begin a word. What comes first, or first after something else, begins one anyhow.
    """
    alone = tokens(content_BT)
    begins_N = begins_BT.reshape(-1)[alone.at_N]
    begins_N |= _interrupted(alone.at_N)
    begins_N[alone.first_B[:-1][np.diff(alone.first_B) > 0]] = True
    return Units(alone.at_N, alone.first_B, np.flatnonzero(begins_N))


def runs(words: Units, probabilities: Sequence[float], key_B: Ints) -> Units:
    """Runs of consecutive words, whose lengths are drawn; no run goes over what is no content.

    Args:
        words: see :func:`words`.
        probabilities: of 1, 2, 3 ... words.
        key_B: of the rows.
    """
    assert words.start_U is not None
    if not len(words.start_U):
        return words
    first_B = words.first_units()
    count_B = np.diff(first_B)
    limits = np.cumsum(probabilities)[:-1]
    length_U = 1 + np.searchsorted(limits, fractions(drawn(key_B, LENGTHS, count_B)), side="right")
    begin_U = np.cumsum(length_U) - length_U
    # counted from each row's first word
    begin_U -= np.repeat(begin_U[np.minimum(first_B[:-1], len(begin_U) - 1)], count_B)
    begins_U = _interrupted(words.at_N)[words.start_U]
    inside_U = begin_U < np.repeat(count_B, count_B)
    begins_U[(begin_U + np.repeat(first_B[:-1], count_B))[inside_U]] = True
    return Units(words.at_N, words.first_B, words.start_U[begins_U])


def hidden(units: Units, share: float, key_B: Ints) -> Ints:
    """The places in the flattened batch (M,), ascending, of units with ``share`` of each row's content on average.

    Units are taken in a drawn order. The one that would exceed the share is taken with the probability that makes the
    expected number right, so that neither short rows nor long units move the share.

    Args:
        key_B: of the rows.
    """
    count_B = np.diff(units.first_units())
    # most units come too late in the order, so it is made of the others; of short rows these may be too few
    likely_B = share + SPREAD * np.sqrt(share / np.maximum(count_B, 1))
    found_N = _chosen(units, share, key_B, likely_B)
    if found_N is None:
        found_N = _chosen(units, share, key_B, np.ones(len(key_B)))
    assert found_N is not None
    return units.at_N[found_N]


def _chosen(units: Units, share: float, key_B: Ints, part_B: NDArray[np.float64]) -> Mask | None:
    """Which tokens of content are hidden; None if that is not decided by ``part`` of each row's draws."""
    rows = np.arange(len(key_B))
    coin_B = fractions(drawn_at(key_B, COIN, rows, np.zeros_like(rows)))
    wanted_B = share * np.diff(units.first_B)
    order_K, first_B = _drawn_order(units.first_units(), key_B, part_B)
    count_B = np.diff(first_B)
    chosen_N = np.zeros(len(units.at_N), dtype=np.bool_)
    if units.start_U is None:
        # what is left of the share after whole tokens is the probability of one more
        take_B = np.ceil(wanted_B - coin_B).astype(np.int64)
        if (take_B > count_B).any():
            return None
        chosen_N[order_K[_ranges(first_B[:-1], take_B)]] = True
        return chosen_N
    size_K = np.diff(units.start_U, append=len(units.at_N))[order_K]
    end_K1 = np.concatenate([[0], np.cumsum(size_K)])
    if (np.diff(end_K1[first_B]) < wanted_B).any():
        return None
    before_K = end_K1[:-1] - np.repeat(end_K1[first_B[:-1]], count_B)
    # of the unit in which the share ends, the part before that end is the probability
    taken_K = before_K + np.repeat(coin_B, count_B) * size_K < np.repeat(wanted_B, count_B)
    chosen_N[_ranges(units.start_U[order_K[taken_K]], size_K[taken_K])] = True
    return chosen_N


def _drawn_order(first_B: Ints, key_B: Ints, part_B: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """The first units in the drawn order of each row, and how many the rows before each have of them.

    Args:
        first_B: how many units the rows before each have.
        part_B: the units are those whose draw is below.
    """
    count_B = np.diff(first_B)
    assert int(count_B.max(initial=0)) < 1 << INDEX_BITS, "too long a row"
    low = 64 - DRAWN_BITS
    limit_B = np.minimum(part_B * (1 << DRAWN_BITS), (1 << DRAWN_BITS) - 1).astype(np.uint64)
    limit_B = limit_B << np.uint64(low) | np.uint64((1 << low) - 1)
    word_U = drawn(key_B, ORDER, count_B)
    unit_K = np.flatnonzero(word_U <= np.repeat(limit_B, count_B))
    first_kept_B = np.searchsorted(unit_K, first_B)
    kept_B = np.diff(first_kept_B)
    # all keys of a row differ, and numbers are sorted faster than their places
    key_K = word_U[unit_K] >> np.uint64(low) << np.uint64(INDEX_BITS)
    key_K |= (unit_K - np.repeat(first_B[:-1], kept_B)).astype(np.uint64)
    inside_BK = np.arange(int(kept_B.max(initial=0))) < kept_B[:, None]
    key_BK = np.full(inside_BK.shape, np.iinfo(np.uint64).max)
    key_BK[inside_BK] = key_K
    key_BK.sort(axis=1)
    index_K = key_BK[inside_BK] & np.uint64((1 << INDEX_BITS) - 1)
    return index_K.astype(np.int64) + np.repeat(first_B[:-1], kept_B), first_kept_B


def _interrupted(at_N: Ints) -> Mask:
    """Which tokens do not follow the one before."""
    found_N = np.ones(len(at_N), dtype=np.bool_)
    np.not_equal(at_N[1:], at_N[:-1] + 1, out=found_N[1:])
    return found_N


def _ranges(start_K: Ints, length_K: Ints) -> Ints:
    """``start, start + 1 ...``, each so many numbers, one after another."""
    shift_K = start_K - (np.cumsum(length_K) - length_K)
    return np.repeat(shift_K, length_K) + np.arange(int(length_K.sum()))
