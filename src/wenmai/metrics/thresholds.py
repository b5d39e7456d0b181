"""The border at which a decision gains most.

Shape letters: N examples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def best_threshold(score_N: ArrayLike, above_N: ArrayLike, below_N: ArrayLike) -> float:
    """The threshold t that makes the sum of ``above`` where score > t and ``below`` elsewhere largest.

    Of equally good ones 0 if it is one of them, else the lowest; it lies midway between two scores, or 1 beyond all.

    Args:
        score_N: what is compared with the threshold.
        above_N, below_N: what each example is worth on either side.
    """
    score, above, below = (np.asarray(values, dtype=np.float64) for values in (score_N, above_N, below_N))
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    if not len(ordered):
        return 0.0
    # taken[i]: the i lowest scores count as below
    taken = np.append(0.0, np.cumsum((below - above)[order]))
    middle = (ordered[:-1] + ordered[1:]) / 2
    border = np.concatenate([[ordered[0] - 1.0], middle, [ordered[-1] + 1.0]])
    # equal scores fall on the same side, and so do those whose middle is one of them
    apart = np.concatenate([[True], (ordered[:-1] <= middle) & (middle < ordered[1:]), [True]])
    best = int(np.argmax(np.where(apart, taken, -np.inf)))
    at_zero = taken[int((ordered <= 0.0).sum())]
    return 0.0 if at_zero >= taken[best] else float(border[best])
