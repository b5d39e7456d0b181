"""A page as it was read: its words in their places, its fields in colours, an arrow from each key to its value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from wenmai.atomic import write_text
from wenmai.errors import UserError
from wenmai.evaluation.canvas import INK, MUTED, SERIES, drawable, drawing, letters, to_svg
from wenmai.text.boxes import Box, around

Line = Mapping[str, Any]

WIDTH = 7.4
"""Inches."""
MOST_HEIGHT = 12.0
POINTS = 72
LETTER = 0.62
"""Width of a Latin letter, on average, as a share of the size of the font."""
LEAST_SIZE, MOST_SIZE = 1.5, 16.0
"""Of a font, in points."""


def is_page(line: Line) -> bool:
    """Whether a prediction is one of a page."""
    words = line.get("words")
    return isinstance(words, list) and "entities" in line and all("box" in word for word in words)


def page_figure(line: Line) -> Figure:
    """A prediction of document layout, or a line of ``predictions.jsonl``; missed fields of its gold are dashed.

    Raises:
        UserError: no font can draw the words.
    """
    width, height = line["width"], line["height"]
    words, entities = line["words"], line["entities"]
    wanted = (line.get("gold") or {}).get("entities") or ()
    names = sorted({entity["label"] for entity in (*entities, *wanted)})
    colors = {name: SERIES[number % len(SERIES)] for number, name in enumerate(names)}
    inches = min(WIDTH, MOST_HEIGHT * width / height)
    characters = {*"".join(word["text"] for word in words), *"".join(names)}
    with drawing(inches, inches * height / width + 0.4, texts=characters) as (figure, (axes,)):
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
        scale = POINTS * inches / width
        for entity in entities:
            _outline(axes, entity["box"], colors[entity["label"]], solid=True)
        found = {(entity["label"], *entity["words"]) for entity in entities}
        for entity in wanted:
            if (entity["label"], *entity["words"]) not in found:
                box = around(words[number]["box"] for number in entity["words"])
                _outline(axes, box, colors[entity["label"]], solid=False)
        for word in words:
            _write(axes, word["text"], word["box"], scale)
        for link in line.get("links", ()):
            _arrow(axes, entities[link["key"]]["box"], entities[link["value"]]["box"])
        if names:
            handles = [Patch(facecolor=colors[name], label=drawable(name)) for name in names]
            axes.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(4, len(names))
            )
    return figure


def write_page(line: Line, folder: Path, number: int) -> Path:
    """Draws a prediction to ``page-NUMBER.svg`` of a folder, which is made if it is not there.

    Raises:
        UserError: it is no page, no font can draw its words, or the file can't be written.
    """
    if not is_page(line):
        raise UserError(
            "--pages: draws the pages of document_layout; predictions of this model have no boxes"
        )
    path = folder / f"page-{number}.svg"
    write_text(path, to_svg(page_figure(line)))
    return path


def first_pages(lines: Iterable[Line], most: int) -> list[Line]:
    """The first predictions of a file, if they are pages with words."""
    found: list[Line] = []
    for line in lines:
        if len(found) == most or not is_page(line):
            break
        if line["words"]:
            found.append(line)
    return found


def _outline(axes: Axes, box: Sequence[float], color: str, *, solid: bool) -> None:
    left, top, right, bottom = box
    place, size = (left, top), (right - left, bottom - top)
    if solid:
        axes.add_patch(Rectangle(place, *size, facecolor=color, edgecolor="none", alpha=0.25))
    axes.add_patch(
        Rectangle(
            place, *size, facecolor="none", edgecolor=color, linewidth=0.9, linestyle="-" if solid else "--"
        )
    )


def _write(axes: Axes, text: str, box: Sequence[float], scale: float) -> None:
    """A word as large as its box allows."""
    left, top, right, bottom = box
    shown = "".join(character if character.isprintable() else " " for character in text)
    if not shown.strip():
        return
    fits = min((bottom - top) * scale * 0.85, (right - left) * scale / (LETTER * letters(shown)))
    axes.text(
        (left + right) / 2,
        (top + bottom) / 2,
        shown,
        ha="center",
        va="center",
        size=min(MOST_SIZE, max(LEAST_SIZE, fits)),
        color=INK,
    )


def _arrow(axes: Axes, key: Box, value: Box) -> None:
    """From the side of the key that faces the value."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = key, value
    if u0 >= x1 or u1 <= x0:
        begin, end = (x1 if u0 >= x1 else x0, (y0 + y1) / 2), (u0 if u0 >= x1 else u1, (v0 + v1) / 2)
    else:
        below = v0 >= y0
        begin, end = ((x0 + x1) / 2, y1 if below else y0), ((u0 + u1) / 2, v0 if below else v1)
    axes.add_patch(
        FancyArrowPatch(
            begin, end, arrowstyle="-|>", mutation_scale=7, linewidth=0.8, color=MUTED, shrinkA=0, shrinkB=0
        )
    )
