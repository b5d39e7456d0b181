"""The best tree of any form, crossing arcs included.

Shape letters: W words of a sentence. Scores and heads are laid out as in :mod:`wenmai.heads.biaffine`: the diagonal is
the root.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Contraction(NamedTuple):
    """A cycle of nodes that became one node, the last of a smaller graph.

    Args:
        rest: the nodes outside the cycle, in the order that they have in the smaller graph.
        heads: the best head of every node of the larger graph.
        enters: for each of the rest, the node of the cycle that it would best be the head of.
        leaves: for each of the rest, the node of the cycle that would be its best head.
    """

    rest: NDArray[np.int64]
    heads: NDArray[np.int64]
    enters: NDArray[np.int64]
    leaves: NDArray[np.int64]


def tree_heads(scores_WW: NDArray[np.floating]) -> NDArray[np.int64]:
    """The highest-scoring tree with exactly one root (Chu and Liu 1965, Edmonds 1967).

    Mostly the best heads are a tree already. If not, cycles are contracted to a node, one after the other, and opened
    again where the rest of the tree enters them best. That there is one root only is a matter of scores: being the
    root costs more than all that other arcs could gain (Stanojević and Cohen 2021, "A root of the problem"), so no
    tree with two of them is ever best.

    Args:
        scores_WW: score of (dependent, head); on the diagonal the score of being the root.

    Returns:
        (W,): the head of each word, from 0; the root's is its own number.
    """
    words = len(scores_WW)
    if not words:
        return np.zeros(0, dtype=np.int64)
    scores = scores_WW.astype(np.float64)
    price = 1.0 + words * float(scores.max() - scores.min())
    # node 0 is the root above all words
    graph = np.full((words + 1, words + 1), -np.inf)
    graph[1:, 0] = scores.diagonal() - price
    np.fill_diagonal(scores, -np.inf)
    graph[1:, 1:] = scores
    heads_W: NDArray[np.int64] = _arborescence(graph)[1:] - 1
    root = int(heads_W.argmin())
    heads_W[root] = root
    return heads_W


def _arborescence(graph_NN: NDArray[np.float64]) -> NDArray[np.int64]:
    """The best head of every node (0 for node 0), so that all lead to node 0."""
    contractions: list[_Contraction] = []
    while True:
        heads: NDArray[np.int64] = graph_NN.argmax(axis=1)
        heads[0] = 0
        cycle = _cycle(heads)
        if cycle is None:
            break
        rest = np.setdiff1d(np.arange(len(heads)), cycle)
        # what it gains or costs to enter the cycle at a node instead of going round
        gain_CN = graph_NN[cycle] - graph_NN[cycle, heads[cycle]][:, None]
        into_CR, out_RC = gain_CN[:, rest], graph_NN[np.ix_(rest, cycle)]
        enters, leaves = into_CR.argmax(axis=0), out_RC.argmax(axis=1)
        contractions.append(_Contraction(rest, heads, cycle[enters], cycle[leaves]))
        smaller = np.full((len(rest) + 1, len(rest) + 1), -np.inf)
        smaller[:-1, :-1] = graph_NN[np.ix_(rest, rest)]
        smaller[-1, :-1] = into_CR.max(axis=0)
        smaller[:-1, -1] = out_RC.max(axis=1)
        smaller[0] = -np.inf
        graph_NN = smaller
    for rest, larger, enters, leaves in reversed(contractions):
        opened = larger.copy()
        inside, number = heads[:-1], len(rest)
        opened[rest] = np.where(inside == number, leaves, rest[np.minimum(inside, number - 1)])
        entry = int(heads[-1])
        opened[enters[entry]] = rest[entry]
        heads = opened
    return heads


def _cycle(heads: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The nodes of one cycle; None if all nodes lead to node 0."""
    seen_from = np.zeros(len(heads), dtype=np.int64)
    above = heads.tolist()
    for start in range(1, len(above)):
        node = start
        while node and not seen_from[node]:
            seen_from[node] = start
            node = above[node]
        if node and seen_from[node] == start:
            cycle = [node]
            while (node := above[node]) != cycle[0]:
                cycle.append(node)
            return np.array(cycle, dtype=np.int64)
    return None
