"""The figures of a run: pure functions from logged and measured numbers to matplotlib figures.

Every bar bears its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wenmai.evaluation.canvas import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    WHISKER,
    drawable,
    drawing,
    grid,
    letters,
    shades,
)

MOST_LABELS = 40
MOST_CLASSES = 25

Values = Mapping[str, Any]
Event = Mapping[str, Any]


def learning_curves(logs: Mapping[str, Sequence[Event]]) -> Figure:
    """Training loss and the metric on the dev set against optimizer steps; the step that was kept is marked.

    A single evaluation is no curve: its value is told over the loss, and so is that there was none.

    Args:
        logs: name of a run -> the events of its ``log.jsonl``.
    """
    curves = has_dev_curve(logs)
    with drawing(9.4, 2.9, texts=logs, columns=2 if curves else 1) as (figure, (left, *others)):
        for number, (name, events) in enumerate(logs.items()):
            color = SERIES[(2 + number) % len(SERIES)]
            trained = [
                event for event in events if event["event"] == "train" and _is_number(event.get("loss"))
            ]
            steps, losses = [event["step"] for event in trained], [event["loss"] for event in trained]
            # a single point has no line
            left.plot(
                steps, losses, color=color, alpha=0.3, linewidth=0.8, marker="o" if len(steps) == 1 else ""
            )
            left.plot(steps, _smoothed(losses), color=color, linewidth=1.6, label=drawable(name))
            for right in others:
                _dev_metrics(right, name, _evaluations(events), color, alone=len(logs) == 1)
        left.set(title="Training loss", xlabel="optimizer step")
        left.set_ylim(bottom=0)
        if len(logs) > 1:
            left.legend(loc="upper right")
        if not curves:
            left.set_title(_single_evaluation(logs), loc="right", color=MUTED, fontsize=9)
        for right in others:
            right.set(xlabel="optimizer step")
        for axes in (left, *others):
            # there are no halves of steps
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
            grid(axes)
    return figure


def has_dev_curve(logs: Mapping[str, Sequence[Event]]) -> bool:
    """Whether evaluations on a dev set can be set beside each other: those of a run, or of several runs."""
    return sum(len(_evaluations(events)) for events in logs.values()) > (1 if len(logs) == 1 else 0)


def _evaluations(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "eval"]


def _single_evaluation(logs: Mapping[str, Sequence[Event]]) -> str:
    """What there is to say of a dev set that was scored once at most."""
    for events in logs.values():
        for event in _evaluations(events):
            primary = event["primary_metric"]
            value = event["metrics"].get(primary)
            shown = f"{value:.3f}" if _is_number(value) else "not a number"
            return f"Dev set: {primary} {shown} at step {event['step']:,}, evaluated once"
    return "Dev set: never evaluated"


def _dev_metrics(axes: Axes, name: str, measured: Sequence[Event], color: str, *, alone: bool) -> None:
    """One line for the primary metric; a run that stands alone also shows what F1 is made of."""
    if not measured:
        return
    primary = measured[0]["primary_metric"]
    lines = {primary: color}
    if alone and primary == "f1":
        lines = {"precision": SERIES[0], "recall": SERIES[1], "f1": SERIES[2]}
    for metric, shade in lines.items():
        points = [(e["step"], e["metrics"][metric]) for e in measured if _is_number(e["metrics"].get(metric))]
        if points:
            steps, values = zip(*points, strict=True)
            label = metric if alone else drawable(name)
            axes.plot(steps, values, color=shade, linewidth=1.6, marker="o", markersize=3, label=label)
    axes.set_title(f"Dev set: {primary}")
    best = [event for event in measured if event.get("best") and _is_number(event["metrics"].get(primary))]
    if best:
        step, value = best[-1]["step"], best[-1]["metrics"][primary]
        axes.plot([step], [value], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=color)
        if alone:
            axes.set_title(f"Dev set: best {primary} {value:.3f} at step {step:,}")
    if len(lines) > 1 or not alone:
        axes.legend(loc="lower right")


def bars_by_slice(
    slices: Mapping[str, Values],
    *,
    metrics: Sequence[str] = ("precision", "recall", "f1"),
    xlabel: str = "characters in the text",
) -> Figure:
    """A group of bars a slice: one a metric with its value over it, the number of examples under the group.

    Args:
        slices: name -> its ``examples`` and metrics, with ``<metric>_interval`` where there is one.
        metrics: in the order of the bars.
    """
    with drawing(9.4, 3.1, texts=[xlabel, *slices, *metrics]) as (figure, (axes,)):
        groups = np.arange(len(slices))
        width = min(0.8 / len(metrics), 0.27)
        fontsize = min(
            7.5, 135 / max(1, len(slices) * len(metrics))
        )  # points that five digits over a bar may take
        for number, metric in enumerate(metrics):
            at = groups + (number - (len(metrics) - 1) / 2) * width
            color = SERIES[number % len(SERIES)] if len(metrics) > 1 else SERIES[2]
            _bars(axes, at, metric, list(slices.values()), width=width * 0.92, color=color, fontsize=fontsize)
        names = [f"{drawable(name)}\nn = {_size(values):,.0f}" for name, values in slices.items()]
        axes.set_xticks(groups, names)
        axes.set_xlim(-0.6, max(len(slices), 3) - 0.4)
        axes.set(xlabel=xlabel, ylabel="" if len(metrics) > 1 else metrics[0])
        if axes.dataLim.ymin >= 0 and axes.dataLim.ymax <= 1:
            axes.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
        axes.tick_params(axis="x", length=0)
        grid(axes)
        if len(metrics) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(metrics))
    return figure


def _size(values: Values) -> float:
    """What a slice is a slice of: examples, or gold spans."""
    return float(values.get("examples", values.get("support")) or 0)


def _bars(
    axes: Axes,
    at: np.ndarray[Any, Any],
    metric: str,
    values: Sequence[Values],
    *,
    width: float,
    color: str,
    fontsize: float,
) -> None:
    """Bars with their values over them, and a whisker where an interval is known."""
    for x, group in zip(at, values, strict=True):
        height = group.get(metric)
        if not _is_number(height):
            continue
        axes.bar(x, height, width=width, color=color, label=metric if x == at[0] else None)
        top = max(height, 0.0)
        if interval := group.get(f"{metric}_interval"):
            top = max(top, interval[1])
            axes.plot([x, x], interval, color=WHISKER, linewidth=0.9)
        axes.annotate(
            f"{height:.3f}", (x, top), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
            fontsize=fontsize, color=INK,
        )  # fmt: skip


def label_bars(labels: Mapping[str, Values], *, metric: str = "f1", ylabel: str = "") -> Figure:
    """One horizontal bar a label, the most frequent label first, with its value and its support.

    A label that never occurs can't be found, and so has no bar; if none occurs, all have one.

    Args:
        labels: label, or slice, -> its metrics, ``support`` or ``examples``, and intervals; the first 40 are drawn.
    """
    occurring = [item for item in labels.items() if _size(item[1])] or labels.items()
    chosen = sorted(occurring, key=lambda item: -_size(item[1]))[:MOST_LABELS]
    names = [drawable(name) for name, _ in chosen]
    with drawing(9.4, 0.9 + 0.27 * len(chosen), texts=names) as (figure, (axes,)):
        for y, (_, values) in enumerate(chosen):
            value = float(values.get(metric) or 0.0)
            axes.barh(y, value, height=0.66, color=SERIES[2])
            end = value
            if interval := values.get(f"{metric}_interval"):
                end = max(value, interval[1])
                axes.plot([interval[0], end], [y, y], color=WHISKER, linewidth=0.9)
            axes.annotate(
                f"{value:.3f}",
                (end, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
            axes.annotate(
                f"n = {_size(values):,.0f}", (1.0, y), xycoords=("axes fraction", "data"),
                xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.set_yticks(range(len(chosen)), names)
        axes.set(xlim=(0, 1.1), xticks=np.linspace(0, 1, 6), ylim=(len(chosen) - 0.4, -0.6), xlabel=metric)
        axes.set_ylabel(ylabel)
        axes.tick_params(axis="y", length=0)
        grid(axes, axis="x")
    return figure


def confusion_heatmap(confusion: Mapping[str, Any]) -> Figure:
    """Gold labels down, predicted labels across; numbers are counts, shades are shares of the row.

    Args:
        confusion: ``labels`` and ``counts`` (gold, predicted); the 25 most frequent labels are drawn, and none that
            neither occurs nor was predicted.
    """
    counts = np.asarray(confusion["counts"], dtype=np.float64)
    met = counts.sum(axis=0) + counts.sum(axis=1)
    chosen = np.argsort(-met, kind="stable")[: min(MOST_CLASSES, np.count_nonzero(met) or len(met))]
    chosen.sort()
    counts = counts[np.ix_(chosen, chosen)]
    names = [drawable(confusion["labels"][index]) for index in chosen]
    side = 0.36 * len(names) + (0.5 if len(names) > 6 else 1.4)
    with drawing(side + 1.8, side + 0.9, texts=names) as (figure, (axes,)):
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
        axes.pcolormesh(shares, cmap=shades(), vmin=0, vmax=1, edgecolors=PAPER, linewidth=1)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    column + 0.5, row + 0.5, f"{count:,.0f}", ha="center", va="center",
                    fontsize=8 if count < 1000 else 6.5,
                    color="#ffffff" if shares[row, column] > 0.5 else "#10151a",
                )  # fmt: skip
        centres = np.arange(len(names)) + 0.5
        long = max(map(letters, names)) > 5
        axes.set_xticks(
            centres,
            names,
            rotation=45 if long else 0,
            ha="right" if long else "center",
            rotation_mode="anchor",
        )
        axes.set_yticks(centres, names)
        axes.set(xlabel="predicted", ylabel="gold", ylim=(len(names), 0), aspect="equal")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def calibration_plot(calibration: Mapping[str, Any]) -> Figure:
    """How often predictions of a confidence are right (above), and how many have that confidence (below).

    Args:
        calibration: ``bins`` with ``low``, ``high``, ``count``, ``confidence`` and ``accuracy``; ``ece``.
    """
    with drawing(4.6, 4.2, texts=[], rows=2, height_ratios=(3, 1)) as (figure, (upper, lower)):
        bins = [part for part in calibration["bins"] if part["count"]]
        upper.plot(
            [0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated"
        )
        upper.plot(
            [part["confidence"] for part in bins], [part["accuracy"] for part in bins],
            color=SERIES[2], linewidth=1.6, marker="o", markersize=4, label="this model", clip_on=False,
        )  # fmt: skip
        for part in calibration["bins"]:
            lower.bar(
                (part["low"] + part["high"]) / 2,
                part["count"],
                width=(part["high"] - part["low"]) * 0.9,
                color=SERIES[0],
            )
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
        upper.legend(loc="upper left")
        lower.set(xlabel="confidence", ylabel="predictions")
        grid(upper)
        grid(lower)
    return figure


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over 4 % of the values, corrected for its start (Kingma and Ba 2015)."""
    weight = 1 - 1 / (1 + len(values) / 25)
    mean, out = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**count))
    return out


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
