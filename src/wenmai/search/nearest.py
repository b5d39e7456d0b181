"""The exact nearest vectors, block by block: memory is that of one block of similarities, whatever is searched.

Shape letters: Q queries, N vectors that are searched, D width, K found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

QUERIES_AT_ONCE, SEARCHED_AT_ONCE = 1024, 8192

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Found(NamedTuple):
    """The nearest of each query, the nearest first; of equally near ones the first.

    Args:
        index_QK: which vectors; -1 where fewer than K may be found.
        similarity_QK: dot products; -inf there.
    """

    index_QK: Ints
    similarity_QK: Floats


def nearest(
    queries_QD: Floats,
    searched_ND: Floats,
    count: int,
    *,
    below_Q: Floats | None = None,
    kinds_Q: Ints | None = None,
    kinds_N: Ints | None = None,
) -> Found:
    """For each query the ``count`` vectors of the largest dot product: no approximation, by all N of them.

    Args:
        queries_QD, searched_ND: arrays, or arrays mapped from files; only blocks of them are looked at.
        count: K.
        below_Q: only vectors less similar than this may be found.
        kinds_Q, kinds_N: a query never finds a vector of its own kind.
    """
    parts = []
    for start in range(0, len(queries_QD), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        parts.append(
            _nearest_of_block(
                np.asarray(queries_QD[some]),
                searched_ND,
                count,
                None if below_Q is None else below_Q[some],
                None if kinds_Q is None else kinds_Q[some],
                kinds_N,
            )
        )
    if not parts:
        return Found(np.zeros((0, count), np.int64), np.zeros((0, count), np.float32))
    return Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _nearest_of_block(
    queries_QD: Floats,
    searched_ND: Floats,
    count: int,
    below_Q: Floats | None,
    kinds_Q: Ints | None,
    kinds_N: Ints | None,
) -> Found:
    queries = len(queries_QD)
    best = Found(np.full((queries, count), -1), np.full((queries, count), -np.inf, np.float32))
    for start in range(0, len(searched_ND), SEARCHED_AT_ONCE):
        block_ND = np.asarray(searched_ND[start : start + SEARCHED_AT_ONCE])
        similarity_QN = queries_QD @ block_ND.T
        if below_Q is not None:
            similarity_QN[similarity_QN >= below_Q[:, None]] = -np.inf
        if kinds_Q is not None and kinds_N is not None:
            similarity_QN[kinds_Q[:, None] == kinds_N[start : start + len(block_ND)]] = -np.inf
        index_QN = np.broadcast_to(np.arange(start, start + len(block_ND)), similarity_QN.shape)
        best = _best(
            np.concatenate([best.index_QK, index_QN], axis=1),
            np.concatenate([best.similarity_QK, similarity_QN], axis=1),
            count,
        )
    return Found(np.where(np.isneginf(best.similarity_QK), -1, best.index_QK), best.similarity_QK)


def _best(index_QN: Ints, similarity_QN: Floats, count: int) -> Found:
    """The ``count`` most similar of each row, in order; columns of equal similarity keep theirs."""
    chosen_QK = np.argpartition(-similarity_QN, count - 1, axis=1)[:, :count]
    border_Q = np.take_along_axis(similarity_QN, chosen_QK, axis=1).min(axis=1)
    tied_Q = (similarity_QN >= border_Q[:, None]).sum(axis=1) > count
    for query in np.flatnonzero(tied_Q & ~np.isneginf(border_Q)).tolist():
        # the partition took any of those at the border
        chosen_QK[query] = np.argsort(-similarity_QN[query], kind="stable")[:count]
    chosen_QK.sort(axis=1)
    similarity_QK = np.take_along_axis(similarity_QN, chosen_QK, axis=1)
    order_QK = np.argsort(-similarity_QK, axis=1, kind="stable")
    index_QK = np.take_along_axis(index_QN, chosen_QK, axis=1)
    return Found(
        np.take_along_axis(index_QK, order_QK, axis=1), np.take_along_axis(similarity_QK, order_QK, axis=1)
    )
