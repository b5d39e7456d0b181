"""Tables of several runs: two compared, one a seed, the trials of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SURE = 0.05
"""P-values below stand out."""
LONGEST_TEXT = 60
MOST_LABELS = 40


def comparison(report: Mapping[str, Any]) -> RenderableType:
    """What :func:`~wenmai.evaluation.compare.compare` found."""
    first, second = report["first"], report["second"]
    parts: list[RenderableType] = [
        _line(f"1: {_side(first)}"),
        _line(f"2: {_side(second)}"),
        _line(
            f"{report['examples']:,} examples of {report['split']}. Differences are 2 minus 1, with 95 % intervals and "
            "p-values of the paired bootstrap over the examples."
        ),
        _metrics(report),
        _slices(report),
    ]
    if report["slices"]:
        parts.append(
            _line(
                "Many slices are many chances to be wrong: p (Holm) is raised for their number. Judge slices by it."
            )
        )
    if report["answers"] is not None:
        parts += _answers(report["answers"])
    return Group(*parts)


def seeds(found: Mapping[str, Any]) -> RenderableType:
    """Mean, deviation and interval of every metric, and its value of each seed."""
    parts: list[RenderableType] = []
    for split, summary in found["summary"].items():
        table = Table(
            "metric",
            "mean ± deviation",
            "95 % interval",
            *(run["run"] for run in found["runs"]),
            box=box.SIMPLE,
        )
        for i, (name, values) in enumerate(summary.items()):
            deviation = "" if values["deviation"] is None else f" ± {values['deviation']:.4f}"
            each = [f"{run['metrics'][split][name]:.4f}" for run in found["runs"]]
            interval = _interval(values["interval"])
            table.add_row(
                name, f"{values['mean']:.4f}{deviation}", interval, *each, style=None if i else "bold"
            )
        parts += [_line(f"{split}: {len(found['runs'])} seeds"), table]
    return Group(*parts)


def trials(rows: Sequence[Mapping[str, Any]], best: int, importance: Mapping[str, float]) -> RenderableType:
    """A row a trial, the best one marked, and how much each key mattered."""
    keys = list(rows[0]["values"])
    table = Table("trial", "state", "best on dev", *keys, "seconds", box=box.SIMPLE)
    for row in rows:
        values = [_short(row["values"][key]) for key in keys]
        value = f"{max(row['evaluations']):.4f}" if row["evaluations"] else ""
        style = "bold" if row["number"] == best else None
        table.add_row(str(row["number"]), row["state"], value, *values, f"{row['seconds']:.0f}", style=style)
    parts: list[RenderableType] = [table]
    failures: dict[str, list[str]] = {}
    for row in rows:
        if row["error"]:
            failures.setdefault(" ".join(row["error"].split()), []).append(str(row["number"]))
    parts += [_line(f"failed: {', '.join(numbers)}: {error}") for error, numbers in failures.items()]
    if importance:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importance.items())
        parts.append(_line(f"What set good trials apart (PED-ANOVA): {shares}"))
    return Group(*parts)


def _metrics(report: Mapping[str, Any]) -> Table:
    rows = report["metrics"]
    with_seeds = any("seeds_p_value" in row for row in rows.values())
    table = Table("metric", "1", "2", "difference", "95 % interval", "p", box=box.SIMPLE)
    if with_seeds:
        table.add_column("p (seeds)")
    for name, row in rows.items():
        cells: list[str | Text] = [
            _value(row["first"], row.get("first_deviation")),
            _value(row["second"], row.get("second_deviation")),
            f"{row['difference']:+.4f}",
            _interval(row["interval"]),
            _p(row["p_value"]),
        ]
        if with_seeds:
            cells.append(_p(row["seeds_p_value"]))
        table.add_row(name, *cells, style="bold" if name == report["primary_metric"] else None)
    return table


def _slices(report: Mapping[str, Any]) -> RenderableType:
    table = Table("slice", "n", "1", "2", "difference", "95 % interval", "p", "p (Holm)", box=box.SIMPLE)
    for kind, rows in report["slices"].items():
        for i, (name, row) in enumerate(rows.items()):
            if i == MOST_LABELS:
                table.add_row(Text(f"{kind}: {len(rows) - i} more, see --json"))
                break
            size = row.get("examples", row.get("support"))
            table.add_row(
                Text(f"{kind.replace('_', ' ')} {name}"),
                "" if size is None else f"{size:,}",
                f"{row['first']:.4f}",
                f"{row['second']:.4f}",
                f"{row['difference']:+.4f}",
                _interval(row["interval"]),
                _p(row["p_value"]),
                _p(row["p_holm"]),
                style="bold" if row["p_holm"] < SURE else None,
            )
    return table if table.row_count else Text()


def _answers(answers: Mapping[str, Any]) -> list[RenderableType]:
    lines = [
        f"right in both {answers['both']:,}, only in 1 {answers['only_first']:,}, only in 2 "
        f"{answers['only_second']:,}, in neither {answers['neither']:,}"
    ]
    for kind, title in (("only_first", "Only 1 is right"), ("only_second", "Only 2 is right")):
        named = answers["examples"][kind]
        if named:
            lines += ["", f"{title}:"]
        for example in named:
            place = f"line {example['line']}" + (f", id {example['id']}" if example["id"] is not None else "")
            text = " | ".join(text for _, text in example["texts"])
            lines += [f"  {place}: {_cut(text)}"]
            lines += [f"    gold {example['gold']} · 1: {example['first']} · 2: {example['second']}"]
    return [_line(line) for line in lines]


def _side(side: Mapping[str, Any]) -> str:
    return f"{side['name']} ({len(side['runs'])} seeds)" if len(side["runs"]) > 1 else str(side["name"])


def _value(value: float, deviation: float | None) -> str:
    return f"{value:.4f}" if deviation is None else f"{value:.4f} ± {deviation:.4f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _p(p_value: float | None) -> Text:
    if p_value is None:
        return Text("")
    return Text("< 0.001" if p_value < 0.001 else f"{p_value:.3f}", style="green" if p_value < SURE else "")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_TEXT else flat[:LONGEST_TEXT] + "…"


def _line(text: str) -> Text:
    # whoever reads a long line wraps it better than we could
    return Text(text, no_wrap=True, overflow="ignore")
