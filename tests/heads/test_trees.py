"""The decoders of trees against all trees there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from wenmai.heads.chu_liu_edmonds import tree_heads
from wenmai.heads.eisner import projective_heads

Decode = Callable[[NDArray[np.floating]], NDArray[np.int64]]


def reaches_root(heads: tuple[int, ...], word: int, root: int) -> bool:
    for _ in heads:
        word = heads[word]
    return word == root


def single_root_trees(words: int) -> Iterator[tuple[int, ...]]:
    for heads in itertools.product(range(words), repeat=words):
        roots = [i for i, head in enumerate(heads) if head == i]
        if len(roots) == 1 and all(reaches_root(heads, i, roots[0]) for i in range(words)):
            yield heads


def is_projective(heads: tuple[int, ...]) -> bool:
    """No two arcs cross, that of the root, which comes from before the first word, included."""
    arcs = [(-1, i) if head == i else (min(i, head), max(i, head)) for i, head in enumerate(heads)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


@cache
def trees(words: int, projective: bool) -> NDArray[np.int64]:
    return np.array([h for h in single_root_trees(words) if not projective or is_projective(h)])


def total(scores_WW: NDArray[np.float64], heads: NDArray[np.int64]) -> float:
    return float(scores_WW[np.arange(len(heads)), heads].sum())


def test_there_are_as_many_trees_as_known() -> None:
    # n^(n-1) labelled rooted trees (Cayley); 1, 2, 7, 30, 143 projective ones (OEIS A006013)
    assert [len(trees(n, False)) for n in range(1, 6)] == [1, 2, 9, 64, 625]
    assert [len(trees(n, True)) for n in range(1, 6)] == [1, 2, 7, 30, 143]


@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_the_best_of_all_trees(words: int, projective: bool) -> None:
    rng = np.random.default_rng(words)
    decode = projective_heads if projective else tree_heads
    possible = trees(words, projective)
    for spread in (1.0, 1e-3, 1e4):
        for _ in range(60):
            scores = (rng.normal(size=(words, words)) * spread).astype(np.float32)
            found = decode(scores)
            assert found.tolist() in possible.tolist()
            best = scores.astype(np.float64)[np.arange(words), possible].sum(axis=1).max()
            assert total(scores.astype(np.float64), found) == pytest.approx(best, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("decode", [projective_heads, tree_heads])
def test_nothing_and_equal_scores(decode: Decode) -> None:
    assert decode(np.zeros((0, 0), dtype=np.float32)).tolist() == []
    heads = tuple(decode(np.zeros((6, 6), dtype=np.float32)).tolist())
    assert heads in set(single_root_trees(6))


def test_only_one_root_however_good_the_others_are() -> None:
    scores = np.full((5, 5), -50.0, dtype=np.float32)
    np.fill_diagonal(scores, 1000.0)
    for decode in (projective_heads, tree_heads):
        heads = decode(scores)
        assert sum(int(head) == i for i, head in enumerate(heads)) == 1


def test_circles_inside_of_circles() -> None:
    """Words that point at each other in pairs, the pairs at each other, and so on: every level is contracted."""
    words = 32
    scores = np.zeros((words, words))
    for i in range(words):
        for j in range(words):
            scores[i, j] = -float((i ^ j).bit_length())
    np.fill_diagonal(scores, -100.0)
    scores[5, 5] = -90.0
    heads = tree_heads(scores)
    assert heads[5] == 5
    assert all(reaches_root(tuple(heads.tolist()), i, 5) for i in range(words))
    # a tree over pairs costs 1 in each, 2 between two of them ...: as a minimum spanning tree (Kruskal)
    assert total(scores, heads) == -90.0 - sum((words >> level) * level for level in range(1, 6))


def test_a_sentence_whose_arcs_cross() -> None:
    """The projective decoder finds the best without the crossing arc, the other one finds it."""
    crossing = np.array([2, 3, 2, 2])
    scores = np.full((4, 4), -1.0)
    scores[np.arange(4), crossing] = 1.0
    assert tree_heads(scores).tolist() == crossing.tolist()
    assert not is_projective(tuple(crossing.tolist()))
    assert is_projective(tuple(projective_heads(scores).tolist()))


@pytest.mark.parametrize("decode", [projective_heads, tree_heads])
def test_long_sentences_are_quick(decode: Decode) -> None:
    heads = decode(np.random.default_rng(0).normal(size=(150, 150)))
    root = next(i for i, head in enumerate(heads) if head == i)
    assert all(reaches_root(tuple(heads.tolist()), i, root) for i in range(150))
