"""Decoding of tag sequences: the best path, what it is sure of, and which steps are legal. numpy, no torch.

The transition matrix has one layout everywhere, (L + 2, L) for L tags:

* ``transitions[i, j]`` for i < L: the score of tag j right after tag i
* ``transitions[L, j]``: the score of a sequence that starts with tag j
* ``transitions[L + 1, j]``: the score of a sequence that stops after tag j

A path y of T tags scores ``start[y0] + Σ logits[t, yt] + Σ transitions[yt-1, yt] + stop[yT-1]``; its
probability is exp(score) over the sum of exp(score) of all L^T paths (Lafferty, McCallum & Pereira 2001).
``allowed`` is a boolean matrix of the same layout. Everything is computed in float64, so that long texts add
up without loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORBIDDEN = -1e4
"""Score of a forbidden step inside a model: finite, so that half precision, gradients and sums survive it,
and low enough that its probability is exactly 0."""

Floats = NDArray[np.float64]
Allowed = NDArray[np.bool_]
"""Which steps are legal, (L + 2, L), in the layout of the transitions."""


def hard_transitions(allowed: Allowed) -> Floats:
    """Transitions that know only what is legal: 0 for allowed steps, -inf for the others."""
    return np.where(allowed, 0.0, -np.inf)


def viterbi(logits_TL: ArrayLike, transitions: ArrayLike) -> tuple[list[int], float]:
    """The path of the highest score (Viterbi 1967); of equals, the one with the lower tag ids at the end.

    Args:
        logits_TL: score of every tag at every token; T may be 0.
        transitions: (L + 2, L), see the top of the file; forbidden steps as -inf or :data:`FORBIDDEN`.

    Returns:
        the tags and their score; -inf if no path is legal.
    """
    logits, steps, start, stop = _parts(logits_TL, transitions)
    if not len(logits):
        return [], 0.0
    # best[j]: score of the best path over the tokens so far that ends in tag j
    best = start + logits[0]
    came_from = np.zeros(logits.shape, dtype=np.int64)
    everywhere = np.arange(logits.shape[1])
    for t in range(1, len(logits)):
        candidates = best[:, None] + steps
        came_from[t] = candidates.argmax(axis=0)
        best = candidates[came_from[t], everywhere] + logits[t]
    best = best + stop
    path = [int(best.argmax())]
    for t in range(len(logits) - 1, 0, -1):
        path.append(int(came_from[t, path[-1]]))
    return path[::-1], float(best.max())


def best_tags(logits_TL: ArrayLike, allowed: Allowed) -> list[int]:
    """The legal path of the highest sum of logits: decoding for heads that score every token by itself.

    Args:
        logits_TL: score of every tag at every token; T may be 0.
        allowed: booleans (L + 2, L), see the top of the file. At least one path must be legal.
    """
    return viterbi(logits_TL, hard_transitions(allowed))[0]


def forward_backward(logits_TL: ArrayLike, transitions: ArrayLike) -> tuple[Floats, Floats, float]:
    """Log sums over all paths that begin, and that go on, at each tag of each token.

    Args:
        logits_TL: at least one token.
        transitions: (L + 2, L), see the top of the file. At least one path must be legal.

    Returns:
        alpha (T, L), log sum of exp(score) of all beginnings that end in tag j at token t, its logit
        included; beta (T, L), the same for all endings after it, its logit not included; and the log sum over
        all paths.
    """
    logits, steps, start, stop = _parts(logits_TL, transitions)
    alpha, beta = np.empty_like(logits), np.empty_like(logits)
    alpha[0] = start + logits[0]
    for t in range(1, len(logits)):
        alpha[t] = _log_sum_exp(alpha[t - 1][:, None] + steps, axis=0) + logits[t]
    beta[-1] = stop
    for t in range(len(logits) - 2, -1, -1):
        beta[t] = _log_sum_exp(steps + (logits[t + 1] + beta[t + 1])[None, :], axis=1)
    return alpha, beta, float(_log_sum_exp(alpha[-1] + stop, axis=0))


def tag_probabilities(logits_TL: ArrayLike) -> Floats:
    """(T, L): the softmax of every token by itself."""
    logits = np.asarray(logits_TL, dtype=np.float64)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def sequence_marginals(logits_TL: ArrayLike, transitions: ArrayLike) -> Floats:
    """(T, L): the probability of each tag at each token, summed over all paths. Each row sums to 1."""
    logits = np.asarray(logits_TL, dtype=np.float64)
    if not len(logits):
        return logits
    alpha, beta, total = forward_backward(logits, transitions)
    marginals: Floats = np.exp(alpha + beta - total)
    return marginals


def segment_probabilities(
    logits_TL: ArrayLike, transitions: ArrayLike, path: Sequence[int], segments: Sequence[tuple[int, int]]
) -> list[float]:
    """The probability that all tags of a segment are as on the path, whatever stands around it.

    The confidence of an entity (Culotta & McCallum 2004). With :func:`hard_transitions` it serves heads
    without transition scores too: the distribution over legal paths.

    Args:
        logits_TL: score of every tag at every token.
        transitions: (L + 2, L), see the top of the file.
        path: T tags.
        segments: tokens ``[first, stop)``, none empty.
    """
    if not segments:
        return []
    logits, steps, _, _ = _parts(logits_TL, transitions)
    alpha, beta, total = forward_backward(logits, transitions)
    tags, at = np.asarray(path), np.arange(len(path))
    # along[t]: score of the path's step into token t with its logit; token 0 is entered through alpha only
    along = logits[at, tags]
    along[1:] += steps[tags[:-1], tags[1:]]
    sure = []
    for first, stop in segments:
        last = stop - 1
        score = alpha[first, tags[first]] + along[first + 1 : stop].sum() + beta[last, tags[last]]
        sure.append(float(np.exp(score - total)))
    return sure


def _parts(logits_TL: ArrayLike, transitions: ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
    """Logits, steps (L, L), start (L,) and stop (L,) as float64."""
    matrix = np.asarray(transitions, dtype=np.float64)
    return np.asarray(logits_TL, dtype=np.float64), matrix[:-2], matrix[-2], matrix[-1]


def _log_sum_exp(values: Floats, axis: int) -> Floats:
    highest = values.max(axis=axis, keepdims=True)
    # a tag that nothing leads to: -inf minus -inf would be NaN
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        total: Floats = np.log(np.exp(values - highest).sum(axis=axis)) + highest.squeeze(axis)
    return total
