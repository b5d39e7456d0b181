"""Figures of what was seen inside a model: the ``inspection.json`` of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wenmai.evaluation.canvas import PAPER, drawing, letters, shades

MOST_MODULES = 60
OUTER_SHARE, INNER_SHARE = 1e-5, 5e-3
"""The axis begins and ends where a module has more than the first share of its values in an octave; towards zero, the
octaves with less than the second one in every module are drawn together with zero."""
MOST_TICKS = 5
NAME_LETTERS = 40


def histogram_heatmap(inspection: Mapping[str, Any], part: Literal["outputs", "gradients"]) -> Figure:
    """Where each module's values lie: a row a module, on an axis from large negative to large positive numbers.

    Args:
        inspection: its ``modules`` with a ``histogram`` each, and ``histogram_octaves``; the first 60 are drawn.
        part: whose values.
    """
    shown = [record for record in inspection["modules"] if sum(record[part]["histogram"])][:MOST_MODULES]
    counts_MB = np.array([record[part]["histogram"] for record in shown], dtype=np.float64)
    shares_MC, nearest = _around_zero(counts_MB / counts_MB.sum(axis=1, keepdims=True))
    names = [short_name(record["name"]) for record in shown]
    with drawing(9.4, 0.9 + 0.2 * len(names), texts=names) as (figure, (axes,)):
        _shaded(axes, _of_the_most(shares_MC))
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        ticks = _ticks(shares_MC.shape[1] // 2, lowest=inspection["histogram_octaves"][0] + nearest - 1)
        axes.set_xticks(list(ticks.values()), list(ticks), fontsize=7.5)
        axes.set(xlabel="value" if part == "outputs" else "gradient")
        _bare(axes, len(names))
    return figure


def _around_zero(shares_MB: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """The octaves that are drawn, as many on either side of zero, and the number (from 1) of the innermost."""
    middle = shares_MB.shape[1] // 2
    away = np.abs(np.arange(shares_MB.shape[1]) - middle)
    most_B = shares_MB.max(axis=0)
    reach = int(away[most_B > OUTER_SHARE].max(initial=1))
    nearest = int(away[(most_B > INNER_SHARE) & (away > 0)].min(initial=reach))
    zero_M1 = shares_MB[:, away < nearest].sum(axis=1, keepdims=True)
    negative, positive = (
        shares_MB[:, middle - reach : middle - nearest + 1],
        shares_MB[:, middle + nearest : middle + reach + 1],
    )
    return np.hstack([negative, zero_M1, positive]), nearest


def _ticks(side: int, *, lowest: int) -> dict[str, float]:
    """Powers of ten on an axis of ``side`` octaves, zero, and ``side`` octaves, which are one unit wide each.

    Args:
        lowest: the octaves on the right of zero begin at two to this power.
    """
    first = math.ceil(lowest * math.log10(2))
    powers = range(first, math.floor((lowest + side) * math.log10(2)) + 1)
    ticks = {"0": side + 0.5}
    for power in powers:
        if power % math.ceil(len(powers) / MOST_TICKS) == 0:
            label = f"{10.0**power:g}" if -4 <= power <= 5 else f"1e{power}"
            from_lowest = power * math.log2(10) - lowest
            ticks |= {label: side + 1 + from_lowest, f"-{label}": side - from_lowest}
    return ticks


def attention_heatmap(attention: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """How widely each head looks: its entropy as a share of the most that the rows' lengths allow.

    Args:
        attention: ``share``, layers of heads.
    """
    layers = attention["share"]
    most = max(map(len, layers))
    shares_LA = np.array([[*heads, *[np.nan] * (most - len(heads))] for heads in layers])
    with drawing(1.6 + 0.42 * most, 1.0 + 0.32 * len(layers), texts=[]) as (figure, (axes,)):
        _shaded(axes, np.ma.masked_invalid(shares_LA))
        for (layer, head), share in np.ndenumerate(shares_LA):
            if np.isfinite(share):
                axes.text(
                    head + 0.5, layer + 0.5, f"{share:.2f}", ha="center", va="center", fontsize=7.5,
                    color="#ffffff" if share > 0.5 else "#10151a",
                )  # fmt: skip
        axes.set_xticks(np.arange(most) + 0.5, [str(head) for head in range(most)])
        axes.set_yticks(np.arange(len(layers)) + 0.5, [str(layer) for layer in range(len(layers))])
        axes.set(xlabel="head", ylabel="layer")
        _bare(axes, len(layers))
    return figure


def short_name(name: str) -> str:
    """A module's name without what all in the backbone have in common; of a long one the end, which differs."""
    for prefix in ("backbone.", "model.", "encoder."):
        name = name.removeprefix(prefix)
    while letters(name) > NAME_LETTERS:
        name = "…" + name.lstrip("…")[1:]
    return name


def _of_the_most(shares_MC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row in shares of its fullest bin; empty bins are left blank, which also keeps the drawing small."""
    scaled: NDArray[np.float64] = np.ma.masked_equal(shares_MC / shares_MC.max(axis=1, keepdims=True), 0)
    return scaled


def _shaded(axes: Axes, values: NDArray[np.float64]) -> None:
    axes.pcolormesh(values, cmap=shades(), vmin=0, vmax=1, edgecolors=PAPER, linewidth=0.5)


def _bare(axes: Axes, rows: int) -> None:
    """Rows from the top down, and neither ticks nor frame."""
    axes.set_ylim(rows, 0)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
