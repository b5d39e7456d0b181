"""Numbers about tensors: by hand, and the same whether they come at once or in parts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wenmai.training.inspection import BINS, LOWEST, OCTAVES, Attention, Histogram, Spread, Units, Values


def occupied(histogram: Histogram) -> dict[int, int]:
    """Bin -> count; positive bins from 1, for 2^-24, negative ones below, 0 for nothing."""
    return {i - OCTAVES: n for i, n in enumerate(histogram.to_json()) if n}


def test_bins_are_octaves_with_a_sign() -> None:
    histogram = Histogram()
    histogram.add(torch.tensor([0.0, 1.0, 1.99, 2.0, -1.0, -0.75, 2.0**-24, 2.0**-25, -1e9, 1e-40]))
    one = 1 - LOWEST  # the bin of [1, 2)
    assert occupied(histogram) == {0: 3, one: 2, one + 1: 1, -one: 1, -(one - 1): 1, 1: 1, -OCTAVES: 1}
    assert len(histogram.to_json()) == BINS == 81


def test_spread_by_hand() -> None:
    values = Values()
    values.add(torch.tensor([[1.0, 2.0], [0.0, -3.0]]))
    values.add(torch.tensor([math.nan, math.inf, 5.0]))
    assert values.spread.to_json() == {
        "values": 5,
        "mean": 1.0,
        "std": pytest.approx(math.sqrt((0 + 1 + 1 + 16 + 16) / 5)),
        "min": -3.0,
        "max": 5.0,
        "zero_share": 0.2,
        "non_finite": 2,
        "norm": pytest.approx(math.sqrt(39)),
    }
    assert sum(values.histogram.to_json()) == 5


def test_nothing_has_no_mean() -> None:
    values = Values()
    values.add(torch.tensor([math.nan]))
    assert values.spread.to_json() == {
        **dict.fromkeys(["mean", "std", "min", "max", "zero_share", "norm"]),
        "values": 0,
        "non_finite": 1,
    }


@given(st.lists(st.floats(width=32), max_size=30), st.integers(0, 30))
def test_parts_add_up_to_the_whole(numbers: list[float], cut: int) -> None:
    whole, left, right = Values(), Values(), Values()
    tensor = torch.tensor(numbers)
    whole.add(tensor)
    left.add(tensor[:cut])
    right.add(tensor[cut:])
    left.merge(right)
    assert left.histogram.to_json() == whole.histogram.to_json()
    expected, found = whole.spread.to_json(), left.spread.to_json()
    for key in ("values", "min", "max", "zero_share", "non_finite"):
        assert found[key] == expected[key]
    assert found["norm"] == (None if expected["norm"] is None else pytest.approx(expected["norm"]))


def test_an_empty_spread_merges_into_any() -> None:
    spread = Spread.of(torch.tensor([1.0, 3.0]))
    spread.merge(Spread())
    assert (spread.count, spread.low, spread.high) == (2, 1.0, 3.0)


@pytest.mark.parametrize(
    ("kind", "rows", "dead"),
    [
        ("relu", [[0.0, 0.0, 0.1], [0.0, 1e-9, 0.0]], [0]),
        ("soft", [[0.004, -0.16, 0.0], [-0.0049, 0.0, 0.006]], [0]),
        ("tanh", [[1.0, -0.995, 0.5], [0.991, 0.2, 1.0]], [0]),
        ("sigmoid", [[0.001, 0.5, 0.999], [0.999, 0.0, 0.02]], [0]),
    ],
)
def test_dead_units_by_hand(kind: str, rows: list[list[float]], dead: list[int]) -> None:
    units = Units(kind)  # type: ignore[arg-type]
    for row in rows:  # a unit is alive if any batch saw it so
        units.add(torch.tensor([[row]]))
    assert units.dead == dead
    said = units.to_json()
    assert (said["units"], said["tokens"], said["dead"], said["dead_units"]) == (3, 2, 1, dead)
    assert said["median_active_share"] == 0.5


def attention(rows: list[tuple[int, Tensor]], width: int, heads: int = 1) -> Attention:
    """Rows of so many real tokens, each of which looks as the tensor says."""
    probabilities = torch.zeros(len(rows), heads, width, width)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (length, looks) in enumerate(rows):
        probabilities[i, :, :, :length] = looks
        mask[i, :length] = 1
    found = Attention()
    found.add(probabilities, mask)
    return found


def test_uniform_attention_has_the_logarithm_of_the_length() -> None:
    found = attention([(7, torch.full((7,), 1 / 7))], width=9, heads=2).to_json()
    assert found["entropy"] == pytest.approx([math.log(7)] * 2)
    assert found["share"] == pytest.approx([1.0, 1.0])


def test_a_head_that_looks_at_one_token_has_none() -> None:
    assert attention([(4, torch.tensor([0.0, 1.0, 0.0, 0.0]))], width=4).to_json() == {
        "entropy": [0.0],
        "share": [0.0],
    }


def test_entropies_are_means_over_real_tokens() -> None:
    """Two of 4 tokens alike: log 2, half of log 4. A row of one token has no choice, so no share."""
    rows = [(4, torch.tensor([0.5, 0.5, 0.0, 0.0])), (1, torch.ones(1)), (2, torch.full((2,), 0.5))]
    found = attention(rows, width=4).to_json()
    assert found["entropy"] == pytest.approx([(4 * math.log(2) + 0 + 2 * math.log(2)) / 7])
    assert found["share"] == pytest.approx([(4 * 0.5 + 2 * 1.0) / 6])
    parts = Attention()
    for row in rows:
        probabilities = torch.zeros(1, 1, row[0], row[0])
        probabilities[:] = row[1]
        parts.add(probabilities, torch.ones(1, row[0]))
    assert parts.to_json()["entropy"] == pytest.approx(found["entropy"])
    assert parts.to_json()["share"] == pytest.approx(found["share"])
