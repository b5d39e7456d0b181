"""Which tokens are hidden: units of tokens, words or runs of words, drawn without replacement up to a share.

All choices are one: the tokens of a row are parted into units, and units are taken in a drawn order. Everything is
computed for a whole batch at once, from draws that are functions of the rows' keys.

Shape letters: B rows, T tokens, W words, U units of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wenmai.data.draws import uniform

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ORDER, COIN, LENGTHS = 1, 2, 3
"""Streams of draws; see :func:`wenmai.data.draws.uniform`."""


def numbered(begins_BT: Mask, content_BT: Mask) -> Ints:
    """Numbers from 0 for the words of each row, at tokens of content; elsewhere something from -1 on.

    Args:
        begins_BT: the tokens that begin a word. What comes first, or first after something else, begins one anyhow.
    """
    return np.cumsum((begins_BT | _first_of_a_stretch(content_BT)) & content_BT, axis=1) - 1


def runs(word_BT: Ints, content_BT: Mask, probabilities: Sequence[float], key_B: Ints) -> Ints:
    """Numbers for runs of consecutive words, whose lengths are drawn; no run goes over what is no content.

    Args:
        word_BT: see :func:`numbered`.
        probabilities: of 1, 2, 3 ... words.
        key_B: of the rows.
    """
    words = int(word_BT.max(initial=0)) + 1
    limits = np.cumsum(probabilities)[:-1]
    length_BW = 1 + np.searchsorted(limits, uniform(key_B, LENGTHS, words), side="right")
    begin_BW = np.cumsum(length_BW, axis=1) - length_BW
    begins_BW = np.zeros(begin_BW.shape, dtype=np.bool_)
    row_N, run_N = np.nonzero(begin_BW < words)
    begins_BW[row_N, begin_BW[row_N, run_N]] = True
    row_N, at_N = np.nonzero(_first_of_a_stretch(content_BT))
    begins_BW[row_N, word_BT[row_N, at_N]] = True
    return np.take_along_axis(np.cumsum(begins_BW, axis=1) - 1, np.maximum(word_BT, 0), axis=1)


def chosen(unit_BT: Ints, content_BT: Mask, share: float, key_B: Ints) -> Mask:
    """Units of each row with ``share`` of its content on average.

    Units are taken in a drawn order. The one that would exceed the share is taken with the probability that makes the
    expected number right, so that neither short rows nor long units move the share.

    Args:
        unit_BT: which unit each token belongs to, from 0, at tokens of content.
        key_B: of the rows.
    """
    rows, units = len(unit_BT), int(unit_BT.max(initial=0)) + 1
    place_BT = unit_BT + units * np.arange(rows)[:, None]
    size_BU = np.bincount(place_BT[content_BT], minlength=rows * units).reshape(rows, units)
    drawn_BU = np.where(size_BU > 0, uniform(key_B, ORDER, units), 2.0)  # what no token belongs to comes last
    order_BU = np.argsort(drawn_BU, axis=1)
    ordered_BU = np.take_along_axis(size_BU, order_BU, axis=1)
    ends_BU = np.cumsum(ordered_BU, axis=1)
    wanted_B1 = share * content_BT.sum(axis=1, keepdims=True)
    # of the unit in which the share ends, the part before that end is the probability
    part_BU = (wanted_B1 - (ends_BU - ordered_BU)) / np.maximum(ordered_BU, 1)
    taken_BU = part_BU > np.where(part_BU < 1, uniform(key_B, COIN, 1), 0.0)
    of_unit_BU = np.zeros_like(taken_BU)
    np.put_along_axis(of_unit_BU, order_BU, taken_BU, axis=1)
    return np.take_along_axis(of_unit_BU, np.maximum(unit_BT, 0), axis=1) & content_BT


def _first_of_a_stretch(content_BT: Mask) -> Mask:
    before_BT = np.zeros_like(content_BT)
    before_BT[:, 1:] = content_BT[:, :-1]
    return content_BT & ~before_BT
