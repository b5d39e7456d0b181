"""Signatures from which the similarity of two documents can be estimated, and keys that similar documents share.

Shingles are runs of n characters of the text without punctuation, spaces, capitals and width, which suits Chinese:
there are no words to get wrong. MinHash (Broder 1997) estimates their Jaccard similarity; rensa computes it. Locality
sensitive hashing (Indyk and Motwani 1998): with b bands of r values each, two documents of similarity s share a key
with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wenmai.corpus.ngrams import Hashes, code_points, mixed, ngram_hashes
from wenmai.errors import UserError

Signatures = npt.NDArray[np.uint16]
"""Shape (documents, permutations): the lower halves of rensa's values, which differ by chance once in 65,536."""

_RECALL = 0.95
_SEED = 1


def shingles(bare: str, n: int) -> Hashes:
    """Hashes of all runs of n characters; a shorter text is one run.

    Args:
        bare: see :func:`wenmai.corpus.dedup.bare`.
    """
    points = code_points(bare)
    return ngram_hashes(points, min(n, max(1, len(points))))


def signatures(shingled: Sequence[Hashes], permutations: int) -> Signatures:
    """One row a document.

    Raises:
        UserError: the package rensa is missing.
    """
    ends = np.cumsum([0, *map(len, shingled)]).astype(np.uint64)
    matrix = _rensa().RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(shingled), ends, permutations, _SEED
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(shingled), permutations).astype(np.uint16)


def jaccard(left: Hashes, right: Hashes) -> float:
    """The similarity that signatures estimate: shared shingles among all."""
    shared = len(np.intersect1d(left, right))
    return shared / max(1, len(np.unique(left)) + len(np.unique(right)) - shared)


def estimated(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Estimated similarity of pairs, shape (pairs,)."""
    return np.asarray((left == right).mean(axis=1), np.float64)


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Number of bands and values in each: the longest bands with which two documents just at the threshold share a key
    in 95 of 100 cases. Longer bands bring fewer pairs together that are not similar."""
    fitting = [
        (permutations // r, r)
        for r in range(1, permutations + 1)
        if share_a_key(threshold, permutations // r, r) >= _RECALL
    ]
    return fitting[-1] if fitting else (permutations, 1)


def share_a_key(similarity: float, b: int, r: int) -> float:
    """The probability that two documents share the key of at least one band."""
    return float(1 - (1 - similarity**r) ** b)


def band_keys(rows: Signatures, b: int, r: int) -> Hashes:
    """The key of every band of every document, shape (bands, documents)."""
    keys = np.zeros((b, len(rows)), np.uint64)
    for value in range(r):
        # one band beside the other: value i of all bands at once
        keys = mixed(keys + rows[:, value : b * r : r].T.astype(np.uint64) + np.uint64(1))
    return np.ascontiguousarray(keys)


def _rensa() -> Any:
    # its threads would not survive the fork of a process that has used them; processes are ours to count
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    try:
        import rensa
    except ImportError:
        raise UserError('dedup.near needs the package rensa: pip install "wenmai[corpus]"') from None
    return rensa
