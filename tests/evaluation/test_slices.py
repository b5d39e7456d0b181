from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenmai.errors import UserError
from wenmai.evaluation.slices import by_length, in_order, slice_names


def test_lower_edge_belongs_to_the_slice_and_empty_slices_are_left_out() -> None:
    assert by_length([0, 49, 50, 99, 150, 5000, 200], (0, 50, 100, 150, 200)) == {
        "0-50": [0, 1],
        "50-100": [2, 3],
        "150-200": [4],
        "200+": [5, 6],
    }


@given(st.lists(st.integers(0, 400)), st.sets(st.integers(1, 300)))
def test_every_example_is_in_one_slice(lengths: list[int], inner: set[int]) -> None:
    edges = [0, *sorted(inner)]
    slices = by_length(lengths, edges)
    assert sorted(index for indices in slices.values() for index in indices) == list(range(len(lengths)))
    for name, indices in slices.items():
        low, _, high = name.rstrip("+").partition("-")
        assert all(int(low) <= lengths[i] and (not high or lengths[i] < int(high)) for i in indices)


@pytest.mark.parametrize("edges", [(), (10, 20), (0, 50, 50), (0, 30, 20)])
def test_useless_edges_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="start at 0 and grow"):
        slice_names(edges)


def test_groups_stand_in_the_order_of_their_numbers() -> None:
    assert sorted(["11+", "unseen", "2", "5-6", "1", "seen"], key=in_order) == [
        "1", "2", "5-6", "11+", "seen", "unseen",
    ]  # fmt: skip
