"""The parts of the report's page as HTML; what a run lacks is left out, with the command that makes it."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from wenmai.evaluation.figures import figures_of, inline
from wenmai.evaluation.inside import MOST_MODULES
from wenmai.evaluation.plots import MOST_CLASSES, MOST_LABELS, has_dev_curve, learning_curves
from wenmai.evaluation.runs import Evaluation, Run
from wenmai.version import __version__

HEADLINES = 6
"""Metrics that stand in large type at the top; the table of splits has all."""
UNITS = {
    "dependency_parsing": ("word", "words"),
    "relation_extraction": ("triple", "triples"),
    "slot_filling": ("slot", "slots"),
}
"""What a task finds in a text, one and several; ``entity`` where it is not here."""


PAGE_NOTE = (
    "Fields that were found, in the colour of their label; dashed: missed. Arrows lead from keys to values."
)


def header(runs: Sequence[Run]) -> str:
    """The title, and for a single run its most important numbers."""
    tasks = sorted({name for run in runs for name in _tasks(run)})
    parts = [f"<header><h1>{_text(' · '.join(run.name for run in runs))}</h1>"]
    kind = _text(", ".join(tasks)) if tasks else "run"
    if len(runs) > 1 or runs[0].shown is None:
        return "".join([*parts, f'<p class="meta">{kind} · wenmai</p></header>'])
    shown = runs[0].shown
    parts.append(
        f'<p class="meta">{kind} · scored on {shown.metrics["examples"]:,} examples of '
        f"<b>{_text(shown.split)}</b>{_text(_named(shown))}</p>"
    )
    parts.append('<dl class="headline">')
    for name in shown.names[:HEADLINES]:
        primary = ' class="primary"' if name == shown.primary else ""
        parts.append(f"<div{primary}><dt>{_text(name)}</dt><dd>{_number(shown.metrics, name)}</dd></div>")
    parts.append("</dl>")
    parts.append(
        '<p class="note">Ranges are 95 % bootstrap intervals over the examples: what another test set of '
        "the same kind and size could well have shown.</p>"
    )
    if lost := shown.metrics.get("unexpressible"):
        parts.append(
            f'<p class="note">{lost:,} {"label" if lost == 1 else "labels"} of the data '
            f"{'is' if lost == 1 else 'are'} beyond the model: its tokens or its head can't express what is meant.</p>"
        )
    return "".join([*parts, "</header>"])


def _tasks(run: Run) -> list[str]:
    """What a run learned."""
    several = [f"{name} ({part['task']['name']})" for name, part in run.settings.get("tasks", {}).items()]
    return [str(run.settings["task"]["name"])] if "task" in run.settings else several


def comparison(runs: Sequence[Run]) -> str:
    """All runs side by side, a row each; the best primary metric stands out."""
    shown = [(run, run.shown) for run in runs if run.shown]
    names = list(dict.fromkeys(name for _, evaluation in shown for name in evaluation.names))
    head = ["run", "split", "examples", *names]
    rows = []
    for run, evaluation in shown:
        cells = [_text(evaluation.split), f"{evaluation.metrics['examples']:,}"]
        marked = [(cell, False) for cell in cells]
        for name in names:
            rivals = [other.metrics.get(name) for _, other in shown if other.primary == name]
            best = len(rivals) > 1 and evaluation.metrics.get(name) == max(
                value for value in rivals if value is not None
            )
            marked.append((_number(evaluation.metrics, name), best))
        rows.append(
            f"<tr><th scope=row>{_text(run.name)}</th>{''.join(_cell(*cell) for cell in marked)}</tr>"
        )
    missing = "".join(_missing(run) for run in runs if run.shown is None)
    curves = _curves_together(runs)
    return f"<section><h2>Comparison</h2>{_table(head, rows)}{missing}{curves}</section>"


def _curves_together(runs: Sequence[Run]) -> str:
    """The learning curves of all runs in one figure, where they strive for the same metric."""
    logs = {run.name: run.log for run in runs if run.log}
    primary = {
        event.get("primary_metric") for log in logs.values() for event in log if event["event"] == "eval"
    }
    if len(logs) < 2 or len(primary) > 1:
        return ""
    drawing = inline(partial(learning_curves, logs), name="all", description="learning curves of all runs")
    return _figure(drawing, "The rings mark the steps whose models were kept.")


def run_section(run: Run, number: int, *, alone: bool) -> str:
    """Everything about one run except its examples."""
    prefix = f"run{number}"
    figures = {
        name: inline(draw, name=f"{prefix}-{name}", description=f"{name.replace('_', ' ')} of {run.name}")
        for name, draw in figures_of(run).items()
    }
    parts = [] if alone else [f'<h2 id="{prefix}">{_text(run.name)}</h2>']
    level = "h2" if alone else "h3"
    parts.append(f"<section><{level}>Training</{level}>{_training(run, figures)}</section>")
    if run.inspection is not None:
        parts.append(
            f"<section><{level}>Inside the model</{level}>{_inside(run.inspection, figures)}</section>"
        )
    if run.shown is None:
        parts.append(f"<section><{level}>Scores</{level}>{_missing(run)}</section>")
        return "\n".join(parts)
    evaluation = run.shown
    lengths = _lengths(evaluation, figures)
    parts.append(f"<section><{level}>By length of the text</{level}>{lengths}</section>")
    others = [name for name in figures if name.startswith("by_") and name != "by_length"]
    for title, note, names in _other_cuts(evaluation, others):
        drawn = "".join(_figure(figures[name], note) for name in names)
        parts.append(f"<section><{level}>{title}</{level}>{drawn}</section>")
    if evaluation.metrics.get("labels"):
        parts.append(f"<section><{level}>By label</{level}>{_labels(evaluation, figures)}</section>")
    if pages := [name for name in figures if name.startswith("page_")]:
        drawn = "".join(_figure(figures[name], PAGE_NOTE) for name in pages)
        parts.append(f"<section><{level}>The first pages</{level}>{drawn}</section>")
    if "confusion" in figures or "calibration" in figures:
        parts.append(
            f"<section><{level}>Confusion and confidence</{level}>{_mistakes(evaluation, figures)}</section>"
        )
    parts.append(f"<section><{level}>All metrics</{level}>{_splits(run)}</section>")
    return "\n".join(parts)


def _lengths(evaluation: Evaluation, figures: Mapping[str, str]) -> str:
    if "by_length" in figures:
        return _figure(
            figures["by_length"], "The thin lines are 95 % intervals; n is the number of examples."
        )
    only = "".join(f": {name} characters" for name in evaluation.metrics.get("slices", {}).get("length", {}))
    remedy = "<code>wenmai evaluate</code> cuts elsewhere with <code>--slices 0,10,20</code>"
    return f'<p class="note">All texts are in one slice{_text(only)}; {remedy}.</p>'


def _other_cuts(evaluation: Evaluation, figures: Sequence[str]) -> Iterable[tuple[str, str, list[str]]]:
    """Heading, note and figures of the cuts that are the task's own: of spans, and of whole examples."""
    slices = evaluation.metrics["slices"]
    spans = [
        name
        for name in figures
        if all("support" in group for group in slices[name.removeprefix("by_")].values())
    ]
    examples = [name for name in figures if name not in spans]
    if spans:
        unit, several = UNITS.get(evaluation.metrics.get("task", ""), ("entity", "entities"))
        note = f"n is the number of gold {several}; a predicted one counts in its own group."
        yield f"By {unit}", note, spans
    if examples:
        yield (
            "By kind of example",
            "The thin lines are 95 % intervals; n is the number of examples.",
            examples,
        )


def no_examples(run: Run) -> str:
    return f'<section id="errors"><h2>Examples, one by one</h2>{_missing(run)}</section>'


def footer() -> str:
    return f"<footer>Drawn by wenmai {__version__} from the files of the run.</footer>"


def _training(run: Run, figures: Mapping[str, str]) -> str:
    parts = []
    if "learning_curves" in figures:
        kept = " The ring marks the step whose model was kept." if has_dev_curve({"": run.log}) else ""
        note = f"Thin: every logged step; bold: moving average.{kept}"
        parts.append(_figure(figures["learning_curves"], note))
    else:
        parts.append(
            '<p class="note">No log of training here: <code>wenmai train CONFIG</code> writes one.</p>'
        )
    settings = [f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in _summary(run)]
    if settings:
        parts.append(f'<dl class="settings">{"".join(settings)}</dl>')
    if run.configuration:
        parts.append(
            f"<details><summary>Whole configuration</summary><pre>{_text(run.configuration)}</pre></details>"
        )
    return "".join(parts)


def _summary(run: Run) -> Iterable[tuple[str, str]]:
    """The settings that people ask for first, and what training took."""
    for section, keys in (
        ("task", ("name", "head", "objective", "max_length")),
        ("backbone", ("model", "architecture", "layers")),
        ("data", ("train", "dev", "test")),
        (
            "train",
            (
                "epochs",
                "tokens_per_step",
                "examples_per_step",
                "learning_rate",
                "head_learning_rate",
                "schedule",
            ),
        ),
    ):
        values = run.settings.get(section) or {}
        for key in keys:
            value = values.get(key)
            if isinstance(value, Mapping):
                value = value.get("path") or value.get("model_type")
            if value is not None:
                yield f"{section}.{key}", str(value)
    if "seed" in run.settings:
        yield "seed", str(run.settings["seed"])
    trained = [event for event in run.log if event["event"] == "train"]
    if trained:
        yield "steps", f"{trained[-1]['step']:,}"
    speeds = [event["tokens_per_second"] for event in trained if event.get("tokens_per_second")]
    if speeds:
        yield "tokens per second", f"{statistics.median(speeds):,.0f} (median)"
    waits = [event["waiting"] for event in trained if "waiting" in event]
    if waits:
        yield "waiting for data", f"{statistics.fmean(waits):.1%} of the time"


def _labels(evaluation: Evaluation, figures: Mapping[str, str]) -> str:
    labels = evaluation.metrics["labels"]
    ordered = sorted(labels.items(), key=lambda item: -(item[1].get("support") or 0))
    note = "The thin lines are 95 % intervals; n is the number of gold instances."
    if len(labels) > MOST_LABELS or not all(values.get("support") for values in labels.values()):
        note += f" Labels without any, and all but the {MOST_LABELS} most frequent, are in the table only."
    rows = [
        f"<tr><th scope=row>{_text(name)}</th>"
        + "".join(_cell(_number(values, metric)) for metric in ("precision", "recall", "f1"))
        + _cell(f"{values.get('support', 0):,.0f}")
        + "</tr>"
        for name, values in ordered
    ]
    table = _table(["label", "precision", "recall", "f1", "support"], rows)
    return f"{_figure(figures['labels'], note)}<details><summary>As a table</summary>{table}</details>"


def _mistakes(evaluation: Evaluation, figures: Mapping[str, str]) -> str:
    parts = ['<div class="pair">']
    if "confusion" in figures:
        note = "Gold labels down, predicted labels across. Numbers are counts, shades are shares of the row."
        if len(evaluation.metrics["confusion"]["labels"]) > MOST_CLASSES:
            note += f" Only the {MOST_CLASSES} most frequent labels are drawn."
        parts.append(_figure(figures["confusion"], note))
    if "calibration" in figures:
        found = evaluation.metrics["calibration"]
        note = (
            f"Expected calibration error {found['ece']:.3f}, Brier score {found['brier']:.3f}. Below the "
            "dashed line the model is surer than it is right."
        )
        parts.append(_figure(figures["calibration"], note))
    return "".join([*parts, "</div>"])


def _inside(inspection: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Where activations and gradients lie, how widely attention looks, which units never fire."""
    records = inspection["modules"]
    parts = [
        f'<p class="note">Seen on {inspection["examples"]:,} examples of {_text(inspection["data"])} '
        f"({inspection['tokens']:,} tokens), without dropout.</p>"
    ]
    if broken := [record["name"] for record in records if record["outputs"]["non_finite"]]:
        parts.append(f'<p class="alarm">Infinite or no numbers at all in {_text(", ".join(broken))}.</p>')
    more = (
        f" The first {MOST_MODULES} of {len(records)} modules are drawn."
        if len(records) > MOST_MODULES
        else ""
    )
    for name, note in (
        (
            "activations",
            "What each module gives, a column for each power of two. The darker, the more of its values lie there.",
        ),
        ("gradients", "The gradient of the loss at each module's output, in the same way."),
    ):
        if name in figures:
            parts.append(_figure(figures[name], note + more))
    if "attention" in figures:
        note = (
            "Attention: the entropy of each head, on average over the tokens, as a share of the most there can be. "
            "1 looks at all tokens alike, 0 at a single one."
        )
        parts.append(_figure(figures["attention"], note))
    parts.append(_dead_units([record for record in records if record["units"]]))
    columns = ("mean", "std", "min", "max", "zero_share", "non_finite")
    rows = [
        f"<tr><th scope=row>{_text(record['name'])}</th>"
        + "".join(_cell(_short(record["outputs"][name])) for name in columns)
        + _cell(_short(_mean(step["output_gradient_norm"] for step in record["steps"])))
        + _cell(_short(_mean(step["weight_gradient_norm"] for step in record["steps"])))
        + "</tr>"
        for record in records
    ]
    names = ["module", "mean", "std", "min", "max", "zeros", "non-finite", "gradient", "gradient of weights"]
    parts.append(f"<details><summary>As a table</summary>{_table(names, rows)}</details>")
    return "".join(parts)


def _dead_units(records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each activation function that has dead units."""
    dead = [record for record in records if record["units"]["dead"]]
    total = sum(record["units"]["units"] for record in records)
    if not dead:
        none = f"None of the {total:,} units of {len(records)} activation functions is dead."
        return f'<p class="note">{none}</p>' if records else ""
    rows = []
    for record in dead:
        units = record["units"]
        numbers = ", ".join(map(str, units["dead_units"]))
        if units["dead"] > len(units["dead_units"]):
            numbers += " …"
        cells = [
            f"{units['units']:,}",
            f"{units['dead']:,}",
            f"{units['dead'] / units['units']:.1%}",
            numbers,
        ]
        rows.append(f"<tr><th scope=row>{_text(record['name'])}</th>{''.join(map(_cell, cells))}</tr>")
    note = (
        '<p class="note">Dead units: not active on a single token (a relu never above 0, a gelu or its like never '
        "beyond 0.005 either way, a tanh always beyond 0.99).</p>"
    )
    return note + _table(["activation function", "units", "dead", "share", "which"], rows)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _short(value: float | None) -> str:
    """Three digits, whatever the size."""
    return "–" if value is None else f"{value:.3g}"


def _splits(run: Run) -> str:
    names = list(dict.fromkeys(name for evaluation in run.evaluations for name in evaluation.names))
    rows = [
        f"<tr><th scope=row>{_text(evaluation.split)}</th>"
        + _cell(f"{evaluation.metrics['examples']:,}")
        + "".join(_cell(_number(evaluation.metrics, name)) for name in names)
        + "</tr>"
        for evaluation in run.evaluations
    ]
    return _table(["split", "examples", *names], rows)


def _missing(run: Run) -> str:
    return (
        f'<p class="note">{_text(run.name)} has not been evaluated: '
        f"<code>wenmai evaluate {_text(str(run.folder))} DATA</code> scores it on labelled data.</p>"
    )


def _named(evaluation: Evaluation) -> str:
    data = evaluation.metrics.get("data")
    return f" ({data})" if data else ""


def _number(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return "–"
    interval = values.get(f"{name}_interval")
    bounds = f'<span class="interval">{interval[0]:.3f}–{interval[1]:.3f}</span>' if interval else ""
    return f"{value:.3f}{bounds}"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th scope=col>{_text(name)}</th>" for name in head)
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll" tabindex=0><table>{body}</table></div>'


def _cell(content: str, best: bool = False) -> str:
    return f'<td class="best">{content}</td>' if best else f"<td>{content}</td>"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def _text(value: str) -> str:
    return html.escape(value)
