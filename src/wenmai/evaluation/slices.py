"""Scores by slices of the examples: how quality depends on the length of the text.

Shape letters: N examples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from wenmai.errors import UserError

LENGTH_EDGES = (0, 50, 100, 150, 200)
"""Characters: 0-50, 50-100, 100-150, 150-200 and 200+."""


def slice_names(edges: Sequence[int]) -> list[str]:
    """``(0, 50, 100)`` to ``["0-50", "50-100", "100+"]``: a slice holds its lower edge, not its upper one.

    Raises:
        UserError: the edges don't start at 0 or don't grow.
    """
    if not edges or edges[0] != 0 or any(low >= high for low, high in pairwise(edges)):
        raise UserError(
            f"slices {list(edges)} can't be used: give lengths that start at 0 and grow, like 0,50,100"
        )
    return [f"{low}-{high}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]


def slice_of(length: int, edges: Sequence[int]) -> int:
    """The number of the slice that holds a length."""
    return sum(length >= edge for edge in edges[1:])


def by_length(lengths_N: Sequence[int], edges: Sequence[int] = LENGTH_EDGES) -> dict[str, list[int]]:
    """The indices of the examples in each slice, in order of length; slices without examples are left out.

    Args:
        lengths_N: characters of each example.
        edges: see :func:`slice_names`.
    """
    names = slice_names(edges)
    members: list[list[int]] = [[] for _ in names]
    for index, length in enumerate(lengths_N):
        members[slice_of(length, edges)].append(index)
    return {name: indices for name, indices in zip(names, members, strict=True) if indices}


def in_order(name: str) -> tuple[float, str]:
    """Sort key: groups named by numbers (``2``, ``5-6``, ``11+``) as numbers, then the others by name."""
    digits = re.match(r"\d+", name)
    return (float(digits[0]) if digits else math.inf, name)
