"""How the command line shows things to people: progress bars on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from wenmai.check.findings import Finding, Report
from wenmai.progress import SILENT, Progress, Step

_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_BAR = "▏▎▍▌▋▊▉█"
SHOWN_LABELS = 40
SHOWN_PLACES = 5


def progress_on(console: Console) -> Progress:
    """Bars with rate and time left if the console is a terminal, silence if it is a file or a pipe."""
    return _TerminalProgress(console) if console.is_terminal else SILENT


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        done = f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total is not None else "")
        rate = f" · {speed:,.1f}/s" if speed else ""
        return Text(f"{done} {task.fields['unit']}{rate}{task.fields['shown']}")


class _TerminalStep:
    def __init__(self, bars: Bars, task_id: object):
        self._bars, self._id = bars, task_id

    def advance(self, n: int = 1, **shown: object) -> None:
        text = "".join(f" · {name} {value}" for name, value in shown.items())
        self._bars.update(self._id, advance=n, **({"shown": text} if shown else {}))  # type: ignore[arg-type]


class _TerminalProgress:
    """One line a piece of work; pieces inside each other stand below each other."""

    def __init__(self, console: Console):
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._open = 0

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[Step]:
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task_id = self._bars.add_task(name, total=total, unit=unit, shown="")
        try:
            yield _TerminalStep(self._bars, task_id)
        finally:
            self._bars.remove_task(task_id)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()


def metrics_table(metrics: Mapping[str, object]) -> Table:
    """Metrics with their 95 % intervals; the primary one is marked."""
    table = Table("metric", "value", "95 % interval", box=box.SIMPLE)
    for name, value in metrics.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        interval = metrics.get(f"{name}_interval")
        between = ""
        if isinstance(interval, Sequence) and len(interval) == 2:
            between = f"{interval[0]:.4f} to {interval[1]:.4f}"
        shown = str(value) if isinstance(value, int) else f"{value:.4f}"
        style = "bold" if name == metrics.get("primary_metric") else None
        table.add_row(name, shown, between, style=style)
    return table


def report_panels(report: Report) -> RenderableType:
    """What the doctor found: counts, lengths, and every finding with its places and remedy."""
    parts: list[RenderableType] = [_splits_table(report)]
    # several tasks have splits of their own, with other labels and other texts
    for _, splits in groupby(report.splits, key=lambda split: split.name.rpartition("/")[0]):
        own = Report(list(splits))
        if any(split.labels for split in own.splits):
            parts.append(_labels_table(own))
        if any(split.lengths for split in own.splits):
            parts.append(_lengths_table(own))
    parts += [_finding_text(finding) for finding in report.findings]
    counts = report.counts()
    verdict = ", ".join(
        f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in counts
    )
    parts.append(Text(verdict, style="bold red" if counts["error"] else "bold green"))
    return Group(*parts)


def _splits_table(report: Report) -> Table:
    table = Table(
        "split", "examples", "unlabelled", "characters (median)", "longest", "unknown tokens", "in several windows",
        box=box.SIMPLE,
    )  # fmt: skip
    for split in report.splits:
        unknown = f"{split.unknown_tokens / split.tokens:.2%}" if split.tokens else ""
        windows = f"{split.windowed / split.tokenized:.1%}" if split.tokenized else ""
        counts = (split.examples, split.unlabelled, split.median_length, split.longest)
        table.add_row(split.name, *(f"{count:,}" for count in counts), unknown, windows)
    return table


def _labels_table(report: Report) -> Table:
    table = Table("label", *(split.name for split in report.splits), "", box=box.SIMPLE)
    train = report.splits[0].labels
    names = list(dict.fromkeys(label for split in report.splits for label in split.labels))
    most = max(train.values(), default=1)
    for name in names[:SHOWN_LABELS]:
        counts = [f"{split.labels.get(name, 0):,}" for split in report.splits]
        table.add_row(Text(name), *counts, histogram_bar(train.get(name, 0) / most))
    if len(names) > SHOWN_LABELS:
        table.add_row(f"and {len(names) - SHOWN_LABELS} more", *[""] * len(report.splits), "")
    return table


def _lengths_table(report: Report) -> Table:
    table = Table("characters", *(split.name for split in report.splits), "", box=box.SIMPLE)
    train = report.splits[0]
    starts = list(train.lengths)
    for start, stop in zip(starts, [*starts[1:], None], strict=True):
        counts = [f"{split.lengths.get(start, 0):,}" for split in report.splits]
        bar = histogram_bar(train.lengths[start] / max(1, train.examples))
        table.add_row(f"{start}-{stop - 1}" if stop else f"{start}+", *counts, bar)
    return table


def _finding_text(finding: Finding) -> Text:
    # whoever reads a long line wraps it better than we could: a terminal, a pager, an editor
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"{finding.severity} ", style=_COLOURS[finding.severity])
    text.append(finding.message + (f": {finding.count:,}" if finding.count > 1 else "") + "\n")
    for place in finding.places[:SHOWN_PLACES]:
        text.append(f"    {place}\n", style="dim")
    if finding.count > SHOWN_PLACES:
        text.append(f"    and {finding.count - SHOWN_PLACES:,} more\n", style="dim")
    return text.append(f"  -> {finding.remedy}\n")


def histogram_bar(share: float, width: int = 20) -> str:
    """A bar of eighths of characters; ``share`` of 1 fills the width."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + (_BAR[eighths % 8 - 1] if eighths % 8 else "")
