"""Boxes on a page: scaled to thousandths of its size, put together, in words.

A box is ``(left, top, right, bottom)``, counted from the upper left corner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]
ThousandthBox = tuple[int, int, int, int]

THOUSAND = 1000
"""What LayoutLM and its kin measure pages in, across and down (Xu et al. 2020, arXiv:1912.13318)."""


def in_thousandths(box: Box, width: float, height: float) -> ThousandthBox:
    """The box in thousandths of the page, rounded, what reaches beyond the page cut off.

    Args:
        box, width, height: in the same unit, whatever it is; width and height above 0.
    """

    def part(value: float, whole: float) -> int:
        return min(THOUSAND, max(0, round(THOUSAND * value / whole)))

    left, top, right, bottom = box
    return part(left, width), part(top, height), part(right, width), part(bottom, height)


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all of them; at least one."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def plain(box: Sequence[float]) -> list[float]:
    """The box as JSON, whole numbers as such."""
    return [int(value) if float(value).is_integer() else value for value in box]
