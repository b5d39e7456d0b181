"""What all figures share: colours, style, a font that holds their characters, and how they become SVG and PNG.

Colours are told apart by readers with any colour vision (Okabe and Ito 2008) and differ in lightness too. Text is drawn
as outlines of a font that is known to hold its characters.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text

from wenmai.evaluation.fonts import font_families

INK, MUTED, GRID, WHISKER, PAPER = "#1b1f24", "#5f6873", "#dde1e6", "#929ba6", "#fefefe"
SERIES = ("#56a4d8", "#e69f00", "#14507f", "#d55e00", "#009e73", "#b05a8f")
"""Light blue, orange, dark blue, vermilion, green, purple: the order in which series take them."""
SHADES = ("#eef3f7", "#15507f")
"""From none to all, in heat maps."""
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "none",
    "savefig.dpi": 200,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "svg.fonttype": "path",
    "svg.hashsalt": "wenmai",
}


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document; the same numbers give the same document."""
    out = io.StringIO()
    with style(_texts(figure)):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG image on white."""
    out = io.BytesIO()
    with style(_texts(figure)):
        figure.savefig(out, format="png")
    return out.getvalue()


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@contextmanager
def drawing(
    width: float, height: float, *, texts: Iterable[str], columns: int = 1, rows: int = 1, **layout: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """An empty figure of a size in inches, to be filled inside the block: style and font end with it.

    Raises:
        UserError: no font can draw the texts.
    """
    with style(map(drawable, texts)):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex="col", gridspec_kw=layout)
        yield figure, list(axes.flat)
        figure.draw_without_rendering()  # makes the tick labels, which would take the style of whoever saves
        figure.set_layout_engine("none")  # or every save would move things a little


def style(texts: Iterable[str]) -> AbstractContextManager[None]:
    """The settings of matplotlib under which these texts are drawn."""
    settings: Any = {**STYLE, "font.family": font_families(texts)}
    return matplotlib.rc_context(settings)


def grid(axes: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Lines behind the values, in place of an axis and its ticks."""
    axes.grid(axis=axis, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["left" if axis == "y" else "bottom"].set_visible(False)
    axes.tick_params(axis=axis, length=0)


def letters(text: str) -> int:
    """Width in Latin letters: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def shades() -> LinearSegmentedColormap:
    """The colours of heat maps."""
    return LinearSegmentedColormap.from_list("shades", SHADES)


def drawable(label: str, most: int = 28) -> str:
    """The label on one line, without invisible characters, shortened to ``most`` Latin letters."""
    shown = "".join(char if char.isprintable() else " " for char in str(label))
    if letters(shown) <= most:
        return shown
    while letters(shown) > most - 1:
        shown = shown[:-1]
    return shown + "…"
