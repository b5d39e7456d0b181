"""Similar words that stand in for hidden ones, as in the correction of MacBERT (Cui et al. 2020).

MacBERT takes them from the package synonyms, which loads its vectors from the net. Here they come from a file of the
user's, and else token by token from what is at hand in every run: the nearest neighbours of a token among the
backbone's own word embeddings. For single Chinese characters these are characters of like use.

Shape letters: V vocabulary, H its dimensions, K neighbours, M hidden tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import DataError, Problem, UserError

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Vectors = NDArray[np.float32]
Pieces = tuple[int, ...]

NEIGHBOURS = 8
"""How many similar tokens one is drawn from: MacBERT leaves it open; farther ones are hardly alike."""
AT_ONCE = 512
"""Rows of the table of similarities that are computed together."""


class SimilarWords:
    """What may replace a word, drawn by numbers that the caller brings.

    Args:
        neighbour_VK: ids of similar tokens, -1 where there is none; None: of no token any is known.
        known: words as ids, with their similar words, of as many tokens.
    """

    def __init__(self, neighbour_VK: NDArray[np.int32] | None, known: Mapping[Pieces, Sequence[Pieces]]):
        self._neighbour_VK = neighbour_VK
        self._known = {word: np.array(similar, dtype=np.int64) for word, similar in known.items()}

    @classmethod
    def of(cls, tokenizer: Tokenizer, vectors_VH: Vectors | None, file: Path | None) -> Self:
        """From word embeddings, which are not kept, and a file of lines ``word<TAB>similar similar ...``.

        Raises:
            UserError: the file can't be read, or holds nothing that this tokenizer could use.
            DataError: lines of the file are of another form.
        """
        neighbour_VK = None if vectors_VH is None else nearest(vectors_VH, tokenizer.ordinary_ids)
        return cls(neighbour_VK, {} if file is None else read_similar_words(file, tokenizer))

    def replaced(self, ids_M: Ints, first_W: Ints, number_M: Words, otherwise_M: Ints) -> Ints:
        """A similar token, or the token of a similar word, for each.

        Args:
            ids_M: tokens of consecutive words.
            first_W: where each word begins, ascending from 0.
            number_M: a drawn number below 2**32 for each token; a word as a whole goes by that of its first.
            otherwise_M: what replaces a token that nothing similar is known of.
        """
        made_M = otherwise_M.copy()
        if self._neighbour_VK is not None:
            drawn_M = ((number_M * np.uint64(self._neighbour_VK.shape[1])) >> np.uint64(32)).astype(np.int64)
            similar_M = self._neighbour_VK[ids_M, drawn_M]
            made_M[similar_M >= 0] = similar_M[similar_M >= 0]
        if self._known:
            tokens, borders = ids_M.tolist(), [*first_W.tolist(), len(ids_M)]
            for start, stop in pairwise(borders):
                similar = self._known.get(tuple(tokens[start:stop]))
                if similar is not None:
                    made_M[start:stop] = similar[int(number_M[start]) * len(similar) >> 32]
        return made_M


def nearest(vectors_VH: Vectors, ordinary: Ints, count: int = NEIGHBOURS) -> NDArray[np.int32]:
    """The tokens with the highest cosine to each, itself left out, ids ascending; -1 for tokens that aren't ordinary.

    Args:
        ordinary: the ids that count, ascending.
        count: K; fewer if there are not so many others.
    """
    count = min(count, len(ordinary) - 1)
    table_VK = np.full((len(vectors_VH), max(count, 1)), -1, dtype=np.int32)
    if count < 1:
        return table_VK
    unit_NH = vectors_VH[ordinary].astype(np.float32)
    unit_NH /= np.maximum(np.linalg.norm(unit_NH, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    for at in range(0, len(ordinary), AT_ONCE):
        cosine_BN = unit_NH[at : at + AT_ONCE] @ unit_NH.T
        rows = len(cosine_BN)
        cosine_BN[np.arange(rows), np.arange(at, at + rows)] = -np.inf
        best_BK = np.argpartition(cosine_BN, -count, axis=1)[:, -count:]
        table_VK[ordinary[at : at + rows]] = np.sort(ordinary[best_BK], axis=1)
    return table_VK


def read_similar_words(file: Path, tokenizer: Tokenizer) -> dict[Pieces, list[Pieces]]:
    """Words and similar ones as ids. Similar words of another number of tokens are left out: nothing may move."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"task.similar_words: {file} can't be read as UTF-8 text: {error}") from error
    problems: list[Problem] = []
    found: dict[Pieces, list[Pieces]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, tab, rest = line.partition("\t")
        if not tab or not word.strip() or not rest.split():
            problems.append(
                Problem(
                    f"{file}:{number}",
                    f"{line!r}: expected a word, a tab, and similar words with spaces between",
                )
            )
            continue
        pieces = tuple(tokenizer.encode(word.strip()).ids)
        similar = [tuple(tokenizer.encode(other).ids) for other in rest.split()]
        fitting = [ids for ids in similar if len(ids) == len(pieces) and ids != pieces]
        if fitting:
            found.setdefault(pieces, []).extend(fitting)
    if problems:
        raise DataError("task.similar_words can't be used:", problems)
    if not found:
        raise UserError(
            f"task.similar_words: {file} names no similar word with as many tokens as its word: add some that have"
        )
    return found
