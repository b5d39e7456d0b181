"""The nearest vectors block by block against looking at all of them at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wenmai.search import nearest as module
from wenmai.search.nearest import nearest


def brute_force(
    queries: np.ndarray,
    searched: np.ndarray,
    count: int,
    below: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
) -> list[list[int]]:
    found = []
    for query, limit, kind in zip(queries, below, kinds[0], strict=True):
        allowed = [
            (-float(query @ other), i)
            for i, other in enumerate(searched)
            if query @ other < limit and kinds[1][i] != kind
        ]
        found.append([i for _, i in sorted(allowed)[:count]])
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 3, 20])
def test_it_is_brute_force_with_ties_kinds_and_limits(
    seed: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 5)
    monkeypatch.setattr(module, "SEARCHED_AT_ONCE", 7)
    rng = np.random.default_rng(seed)
    # small whole numbers: many ties, and sums that are exact in any order
    queries = rng.integers(-2, 3, (12, 3)).astype(np.float32)
    searched = rng.integers(-2, 3, (31, 3)).astype(np.float32)
    below = rng.integers(-3, 9, 12).astype(np.float32)
    kinds = rng.integers(0, 4, 12), rng.integers(-1, 4, 31)
    found = nearest(queries, searched, count, below_Q=below, kinds_Q=kinds[0], kinds_N=kinds[1])
    expected = brute_force(queries, searched, count, below, kinds)
    assert any(len(row) < count for row in expected) or count < 20
    for row, similarity, query, wanted in zip(*found, queries, expected, strict=True):
        assert row[row >= 0].tolist() == wanted
        assert (row[len(wanted) :] == -1).all() and np.isneginf(similarity[len(wanted) :]).all()
        np.testing.assert_array_equal(similarity[: len(wanted)], searched[wanted] @ query)


def test_vectors_may_lie_in_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    searched = rng.normal(size=(50, 4)).astype(np.float32)
    searched.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float32, "r", shape=(50, 4))
    found = nearest(searched[:3], mapped, 2)
    assert found.index_QK[:, 0].tolist() == [int(np.argmax(searched @ query)) for query in searched[:3]]
    assert nearest(searched[:0], mapped, 2).index_QK.shape == (0, 2)
