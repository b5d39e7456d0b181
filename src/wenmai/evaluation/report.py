"""One self-contained HTML page from run folders: scores, curves, slices, confusion, errors in their texts.

The page is drawn from files that training and evaluation left behind; nothing is computed anew, so it can be
deleted and drawn again at any time. It loads nothing: styles, script, figures and data are all inside.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template

from wenmai.atomic import write_bytes, write_text
from wenmai.errors import UserError
from wenmai.evaluation import sections
from wenmai.evaluation.canvas import to_png, to_svg
from wenmai.evaluation.cases import choose, read_predictions
from wenmai.evaluation.figures import figures_of
from wenmai.evaluation.runs import Evaluation, Run, read_run
from wenmai.evaluation.slices import LENGTH_EDGES


def write_report(runs: Sequence[Path], output: Path) -> Path:
    """Draws the page of one run, or of several side by side.

    Args:
        runs: run folders; parts that a run doesn't have are left out, with the command that makes them.
        output: the HTML file.

    Returns:
        ``output``.

    Raises:
        UserError: a folder is no run, its files are damaged, or the page can't be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder")
    found = _named_apart([read_run(Path(folder)) for folder in runs])
    sets = [_cases(run, run.shown, several=len(found) > 1) for run in found if run.shown]
    title = " · ".join(run.name for run in found)
    body = [sections.header(found)]
    if len(found) > 1:
        body.append(sections.comparison(found))
    body += [sections.run_section(run, i, alone=len(found) == 1) for i, run in enumerate(found)]
    body.append(_page("browser.html") if sets else sections.no_examples(found[0]))
    body.append(sections.footer())
    page = Template(_page("report.html")).substitute(
        title=html.escape(title),
        style=_page("report.css"),
        script=_page("report.js"),
        body="\n".join(body),
        data=_embedded(sets),
    )
    write_text(output, page)
    return output


def save_figures(run: Path, folder: Path) -> list[Path]:
    """Every figure of a run as PNG and SVG in a folder, which is made if it is not there; its other files stay.

    Raises:
        UserError: the folder is no run, no font can draw its labels, or the figures can't be written.
    """
    drawn: dict[Path, bytes] = {}
    for name, draw in figures_of(read_run(Path(run))).items():
        figure = draw()
        drawn[Path(folder) / f"{name}.png"] = to_png(figure)
        drawn[Path(folder) / f"{name}.svg"] = to_svg(figure).encode("utf-8")
    for path, content in drawn.items():
        write_bytes(path, content)
    return list(drawn)


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs whose folders have the same name are told apart by their paths."""
    times = Counter(run.name for run in runs)
    return [replace(run, name=str(run.folder)) if times[run.name] > 1 else run for run in runs]


def _cases(run: Run, shown: Evaluation, *, several: bool) -> dict[str, object]:
    edges = shown.metrics.get("length_edges", LENGTH_EDGES)
    chosen = choose(read_predictions(shown.predictions), edges)
    return {"name": f"{run.name} · {shown.split}" if several else shown.split, **chosen}


def _embedded(value: object) -> str:
    """JSON that can't end its script element, whatever the texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode("utf-8", "replace").decode("utf-8")


def _page(name: str) -> str:
    return (files("wenmai.evaluation") / "page" / name).read_text(encoding="utf-8")
