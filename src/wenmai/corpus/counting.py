"""What a report counts, for each source and in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wenmai.corpus.documents import Document, Rejection

Counts = dict[str, Any]
"""Numbers, and dictionaries of numbers."""


class Counter:
    """Documents that came, went and stayed, by source."""

    def __init__(self) -> None:
        self.sources: dict[str, Counts] = {}

    def came(self, document: Document) -> None:
        self._add(document.source, "in", document.text)

    def kept(self, document: Document) -> None:
        self._add(document.source, "out", document.text)
        for change in document.changes:
            self._tally(document.source, "changed", change)

    def dropped(self, source: str, rejection: Rejection) -> None:
        self._tally(source, "dropped", rejection.reason)
        if rejection.group:
            self._tally(source, f"{rejection.reason}_by", rejection.group)

    def _add(self, source: str, side: str, text: str) -> None:
        counts = self.sources.setdefault(source, {})
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        for name, n in (("documents", 1), ("characters", len(text)), ("bytes", size)):
            counts[f"{name}_{side}"] = counts.get(f"{name}_{side}", 0) + n

    def _tally(self, source: str, table: str, name: str) -> None:
        tally = self.sources.setdefault(source, {}).setdefault(table, {})
        tally[name] = tally.get(name, 0) + 1


def merged(counts: Iterable[Mapping[str, Any]]) -> Counts:
    """The sums; what stands in one table only counts as 0 in the others. Keys in the order in which they came."""
    total: Counts = {}
    for one in counts:
        for name, value in one.items():
            if isinstance(value, Mapping):
                total[name] = merged([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total


def report_of(parts: Iterable[Mapping[str, Counts]]) -> dict[str, Any]:
    """The report of several counters: ``total``, and ``sources`` by name."""
    sources = merged(parts)
    empty = {f"{name}_{side}": 0 for side in ("in", "out") for name in ("documents", "characters", "bytes")}
    filled = {name: _ordered({**empty, **counts}) for name, counts in sources.items()}
    return {"total": _ordered(merged([empty, *sources.values()])), "sources": filled}


def _ordered(counts: Counts) -> Counts:
    """Reasons by how often they were met, so that the order of the files does not show."""
    return {
        name: dict(sorted(value.items(), key=lambda item: (-item[1], item[0])))
        if isinstance(value, dict)
        else value
        for name, value in counts.items()
    }
