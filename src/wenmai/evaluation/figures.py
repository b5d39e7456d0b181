"""Which figures a run has, and how they stand in a page."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from matplotlib.figure import Figure

from wenmai.errors import UserError
from wenmai.evaluation import canvas, inside, plots
from wenmai.evaluation.cases import read_predictions
from wenmai.evaluation.pages import first_pages, page_figure
from wenmai.evaluation.runs import Run

Draw = Callable[[], Figure]

COLOR_NAMES = {
    canvas.INK: "ink",
    canvas.MUTED: "muted",
    canvas.GRID: "grid",
    canvas.WHISKER: "whisker",
    canvas.PAPER: "paper",
    **{color: f"series-{number}" for number, color in enumerate(canvas.SERIES, start=1)},
}
"""Colours that the page replaces by its own, so that figures follow its light and dark theme."""

WIDE = 8.0
"""Inches from which a figure is scrolled rather than shrunk on a narrow screen."""

INSIDE: dict[str, Literal["outputs", "gradients"]] = {"activations": "outputs", "gradients": "gradients"}
"""Figures of a model's inside, and the part of its inspection that they draw."""

MOST_BARS = 24
"""Beside each other; more would stand too close for their names and values, and are drawn below each other."""

MOST_PAGES = 3
"""Drawn as they look, of predictions about pages."""

AXIS_NAMES = {
    "entity_length": "characters in the entity",
    "number_of_slots": "slots in the text",
    "distance": "characters between the entities",
    "seen": "what the training set has, and the rest",
    "triples": "triples in the text",
    "overlap": "how the text's triples overlap",
    "upos": "part of speech",
    "relation": "relation to the head",
    "choices": "number of choices",
    "answer_length": "characters in the answer",
    "answer_start": "first character of the answer",
    "entity_words": "words in the entity",
    "link": "labels of key and value",
}


def figures_of(run: Run) -> dict[str, Draw]:
    """Name -> what draws it, for everything that the run has numbers for."""
    found: dict[str, Draw] = {}
    if run.log:
        found["learning_curves"] = partial(plots.learning_curves, {run.name: run.log})
    if run.inspection is not None:
        found |= _inside(run.inspection)
    if run.shown is None:
        return found
    metrics = run.shown.metrics
    for cut, groups in metrics.get("slices", {}).items():
        if len(groups) > 1:  # a slice that holds all says what the whole says
            axis = AXIS_NAMES.get(cut, cut.replace("_", " ")) if cut != "length" else "characters in the text"
            bars = metrics_of(groups, run.shown.primary)
            found[f"by_{cut}"] = (
                partial(plots.bars_by_slice, groups, metrics=bars, xlabel=axis)
                if len(groups) * len(bars) <= MOST_BARS
                else partial(plots.label_bars, groups, metric=bars[-1], ylabel=axis)
            )
    if metrics.get("labels"):
        found["labels"] = partial(plots.label_bars, metrics["labels"])
    if metrics.get("confusion"):
        found["confusion"] = partial(plots.confusion_heatmap, metrics["confusion"])
    if any(part["count"] for part in metrics.get("calibration", {}).get("bins", [])):
        found["calibration"] = partial(plots.calibration_plot, metrics["calibration"])
    for number, page in enumerate(first_pages(read_predictions(run.shown.predictions), MOST_PAGES), start=1):
        found[f"page_{number}"] = partial(page_figure, page)
    return found


def _inside(inspection: Mapping[str, Any]) -> dict[str, Draw]:
    found: dict[str, Draw] = {}
    for name, part in INSIDE.items():
        if any(sum(record[part]["histogram"]) for record in inspection["modules"]):
            found[name] = partial(inside.histogram_heatmap, inspection, part)
    if inspection["attention"]["share"]:
        found["attention"] = partial(inside.attention_heatmap, inspection["attention"])
    return found


def metrics_of(groups: Mapping[str, Mapping[str, Any]], primary: str) -> tuple[str, ...]:
    """The bars of each slice: precision, recall and F1 where there are such, else the primary metric.

    Of several kinds of F1 that which is the primary metric, with the precision and recall that it is made of.
    """
    kind = primary.removesuffix("f1") if primary.endswith("f1") else ""
    parts = (f"{kind}precision", f"{kind}recall", f"{kind}f1")
    for wanted in (parts, ("precision", "recall", "f1"), (primary, "macro_f1")):
        if all(name in values for values in groups.values() for name in wanted):
            return wanted
    return (primary,)


def inline(draw: Draw, *, name: str, description: str) -> str:
    """The figure as a piece of HTML, or a line that says why it can't be drawn here.

    Args:
        name: unique in the page.
        description: for readers who can't see it.
    """
    try:
        figure = draw()
        document = canvas.to_svg(figure)
    except UserError as error:
        return f'<p class="note">This figure is missing: {html.escape(str(error))}</p>'
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in COLOR_NAMES.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)
    wide = figure.get_figwidth() > WIDE
    return (
        f'<div class="drawing wide" tabindex="0">{svg}</div>' if wide else f'<div class="drawing">{svg}</div>'
    )
