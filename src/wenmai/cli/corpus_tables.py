"""Reports on a corpus as tables."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wenmai.terminal import histogram_bar

SHOWN_SOURCES = 40
_WHAT = ("documents", "characters", "bytes")


def report_tables(report: dict[str, Any]) -> RenderableType:
    """What came in and went out, and what was left out, why."""
    total = report["total"]
    sides = _table("", "in", "out", "kept")
    for what in _WHAT:
        came, went = total[f"{what}_in"], total[f"{what}_out"]
        sides.add_row(what, f"{came:,}", f"{went:,}", f"{went / came:.1%}" if came else "")
    tables: list[RenderableType] = [sides]
    for key, title in (("dropped", "left out because"), ("changed", "mended"), ("contaminated_by", "met in")):
        if key in total:
            tables.append(_tally(total[key], title, total["documents_in"]))
    if len(report["sources"]) > 1:
        by_source = _table("source", "documents in", "out", "kept")
        for name, counts in list(report["sources"].items())[:SHOWN_SOURCES]:
            came, went = counts["documents_in"], counts["documents_out"]
            by_source.add_row(Text(name), f"{came:,}", f"{went:,}", f"{went / came:.1%}" if came else "")
        tables.append(by_source)
    return Group(*tables)


def mixture_table(report: dict[str, Any]) -> RenderableType:
    """Share and epochs of each source."""
    table = _table("source", "weight", "epochs", "documents in", "out", "characters in", "out")
    for name, counts in report["sources"].items():
        numbers = (counts[f"{what}_{side}"] for what in ("documents", "characters") for side in ("in", "out"))
        table.add_row(
            Text(name), f"{counts['weight']:.1%}", f"{counts['epochs']:.3f}", *(f"{n:,}" for n in numbers)
        )
    return table


def statistics_tables(found: dict[str, Any]) -> RenderableType:
    """Sizes by source, lengths, scripts, repetitions."""
    sizes = _table("source", "documents", "characters", "bytes", "unreadable")
    rows = [*list(found["sources"].items())[:SHOWN_SOURCES], ("total", found["total"])]
    for name, counts in rows if len(rows) > 2 else rows[-1:]:
        sizes.add_row(Text(name), *(f"{counts.get(key, 0):,}" for key in (*_WHAT, "unreadable")))
    total = found["total"]
    lengths = _table("characters", "documents", "")
    starts = list(total["lengths"])
    for start, stop in zip(starts, [*starts[1:], None], strict=True):
        count = total["lengths"][start]
        share = count / max(1, total["documents"])
        lengths.add_row(
            f"{start}-{int(stop) - 1}" if stop else f"{start}+", f"{count:,}", histogram_bar(share)
        )
    scripts = _tally({k: n for k, n in total["scripts"].items() if n}, "script", total["characters"])
    again = f"{found['duplicates']:,} documents ({found['duplicates'] / max(1, total['documents']):.1%}) came before"
    frequent = (
        f"{found['distinct_characters']:,} different characters; most frequent: {''.join(found['frequent'])}"
    )
    return Group(sizes, lengths, scripts, Text(f"{again}\n{frequent}"))


def _tally(counts: dict[str, int], title: str, whole: int) -> Table:
    table = _table(title, "", "share")
    for name, count in counts.items():
        table.add_row(Text(name), f"{count:,}", f"{count / max(1, whole):.2%}")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i and column else "left")
    return table
