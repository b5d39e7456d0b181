"""The best projective tree: no two arcs cross when they are drawn above the sentence.

Shape letters: W words of a sentence. Scores and heads are laid out as in :mod:`wenmai.heads.biaffine`: the diagonal is
the root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def projective_heads(scores_WW: NDArray[np.floating]) -> NDArray[np.int64]:
    """The highest-scoring projective tree with exactly one root (Eisner 1996), in time W³.

    Spans of words are joined from short to long. In the recursion ``right[i, j]`` is the best tree over the words i
    to j that hangs on i, ``left[i, j]`` the one that hangs on j, and ``to_right[i, j]``, ``to_left[i, j]`` are those
    in which the arc between i and j stands already and the words between are shared out between them. All spans of one
    width are computed at once. The root is added last: of every word, what hangs on it to both sides.

    Args:
        scores_WW: score of (dependent, head); on the diagonal the score of being the root.

    Returns:
        (W,): the head of each word, from 0; the root's is its own number.
    """
    scores = scores_WW.astype(np.float64)
    words = len(scores)
    if not words:
        return np.zeros(0, dtype=np.int64)
    right, left, to_right, to_left = (np.zeros((words, words)) for _ in range(4))
    # where a span was cut in two for its best score
    cut_right, cut_left, cut_arc = (np.zeros((words, words), dtype=np.int64) for _ in range(3))
    for width in range(1, words):
        i_S = np.arange(words - width)
        j_S = i_S + width
        i_S1, j_S1 = i_S[:, None], j_S[:, None]
        at_SK = i_S1 + np.arange(width)
        halves_SK = right[i_S1, at_SK] + left[at_SK + 1, j_S1]
        best_S = halves_SK.argmax(axis=1)
        cut_arc[i_S, j_S] = i_S + best_S
        inner_S = halves_SK[i_S, best_S]
        to_right[i_S, j_S] = inner_S + scores[j_S, i_S]
        to_left[i_S, j_S] = inner_S + scores[i_S, j_S]

        whole_SK = to_right[i_S1, at_SK + 1] + right[at_SK + 1, j_S1]
        best_S = whole_SK.argmax(axis=1)
        cut_right[i_S, j_S] = i_S + best_S + 1
        right[i_S, j_S] = whole_SK[i_S, best_S]
        whole_SK = left[i_S1, at_SK] + to_left[at_SK, j_S1]
        best_S = whole_SK.argmax(axis=1)
        cut_left[i_S, j_S] = i_S + best_S
        left[i_S, j_S] = whole_SK[i_S, best_S]

    root = int((left[0] + right[:, -1] + scores.diagonal()).argmax())
    heads = np.full(words, root, dtype=np.int64)
    spans = [("left", 0, root), ("right", root, words - 1)]
    while spans:
        kind, i, j = spans.pop()
        if i == j:
            continue
        if kind == "right":
            cut = int(cut_right[i, j])
            heads[cut] = i
            spans.append(("right", cut, j))
            i, j = i, cut
        else:
            cut = int(cut_left[i, j])
            heads[cut] = j
            spans.append(("left", i, cut))
            i, j = cut, j
        middle = int(cut_arc[i, j])
        spans += [("right", i, middle), ("left", middle + 1, j)]
    return heads
