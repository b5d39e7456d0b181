from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from wenmai.evaluation import plots
from wenmai.evaluation.canvas import to_png, to_svg

SLICES = {
    "0-50": {"examples": 1200, "precision": 0.9, "recall": 0.8, "f1": 0.847, "f1_interval": [0.8, 0.9]},
    "50-100": {"examples": 7, "precision": 0.5, "recall": 0.25, "f1": 0.333, "f1_interval": [0.1, 0.6]},
}
LABELS = {
    "人名": {"f1": 0.5, "support": 3.0},
    "组织机构" * 9: {"f1": 0.25, "support": 40.0, "f1_interval": [0.1, 0.4]},
    "$x_1$": {"f1": 0.0, "support": 1.0},
    "没有": {"f1": 0.0, "support": 0.0},
}
BINS = [
    {"low": i / 4, "high": (i + 1) / 4, "count": i * 10, "confidence": i / 4 + 0.1, "accuracy": i / 4}
    for i in range(4)
]
LOG = [
    *({"event": "train", "step": step, "loss": 1 / step} for step in range(1, 30)),
    {"event": "eval", "step": 15, "metrics": {"f1": 0.5}, "primary_metric": "f1", "best": True},
    {"event": "eval", "step": 29, "metrics": {"f1": 0.4}, "primary_metric": "f1", "best": False},
]
FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: plots.learning_curves({"甲": LOG, "乙": LOG}),
    "slices": lambda: plots.bars_by_slice(SLICES, xlabel="文本长度"),
    "labels": lambda: plots.label_bars(LABELS),
    "confusion": lambda: plots.confusion_heatmap(
        {"labels": ["好评", "差\u3000评"], "counts": [[5, 1], [2, 1234]]}
    ),
    "calibration": lambda: plots.calibration_plot({"ece": 0.1, "bins": BINS}),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.fixture(autouse=True)
def _no_hollow_boxes() -> Iterator[None]:
    """matplotlib warns when a glyph is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_all_its_glyphs(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    assert to_png(figure).startswith(b"\x89PNG")
    svg = to_svg(figure)
    assert "<text" not in svg and "font-family" not in svg  # outlines: the page needs no font
    assert svg == to_svg(FIGURES[name]())


def test_the_warning_that_the_others_rely_on_is_raised() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "人名", fontfamily="DejaVu Sans")
    with pytest.raises(UserWarning, match="Glyph"), matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(Path("/dev/null"), format="png")


def test_bars_bear_their_values_and_groups_their_sizes() -> None:
    figure = plots.bars_by_slice(SLICES)
    drawn = texts(figure)
    for value in ("0.900", "0.800", "0.847", "0.500", "0.250", "0.333"):
        assert drawn.count(value) == 1
    assert "0-50\nn = 1,200" in drawn and "50-100\nn = 7" in drawn
    heights = sorted(round(bar.get_height(), 3) for bar in figure.axes[0].patches)
    assert heights == [0.25, 0.333, 0.5, 0.8, 0.847, 0.9]


def test_bars_of_nothing_stand_on_the_same_axis() -> None:
    figure = plots.bars_by_slice({"0-50": {"f1": 0.0, "examples": 3}}, metrics=["f1"])
    assert figure.axes[0].get_ylim() == (0.0, 1.12)


def test_a_single_logged_step_is_seen() -> None:
    (left,) = plots.learning_curves({"run": LOG[:1]}).axes
    assert [line.get_marker() for line in left.lines] == ["o", "None"]
    low, high = left.get_xlim()
    assert [tick for tick in left.get_xticks() if low <= tick <= high] == [1]


def test_an_only_evaluation_is_told_and_not_drawn() -> None:
    once = plots.learning_curves({"run": LOG[:-1]})
    assert len(once.axes) == 1
    assert "Dev set: f1 0.500 at step 15, evaluated once" in texts(once)
    never = plots.learning_curves({"run": LOG[:-2]})
    assert len(never.axes) == 1 and "Dev set: never evaluated" in texts(never)
    # of several runs the points can be set beside each other
    assert len(plots.learning_curves({"甲": LOG[:-1], "乙": LOG[:-2]}).axes) == 2


def test_values_stand_over_their_bars() -> None:
    figure = plots.bars_by_slice(SLICES)
    axes = figure.axes[0]
    bars = {f"{bar.get_height():.3f}": bar for bar in axes.patches}
    for note in axes.texts:
        bar = bars[note.get_text()]
        x, y = note.xy
        assert x == pytest.approx(bar.get_x() + bar.get_width() / 2)
        assert y >= bar.get_height()


def test_labels_come_by_support_and_are_shortened_but_never_math() -> None:
    figure = plots.label_bars(LABELS)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0].startswith("组织机构") and names[0].endswith("…") and names[1:] == ["人名", "$x_1$"]
    assert {"n = 40", "n = 3", "n = 1"} <= set(texts(figure)) and "n = 0" not in texts(figure)
    none = plots.label_bars({"没有": LABELS["没有"]})
    assert "n = 0" in texts(none)


def test_slices_are_drawn_as_labels_are_with_their_sizes() -> None:
    figure = plots.label_bars(SLICES, ylabel="characters")
    assert {"n = 1,200", "n = 7", "0.847", "characters"} <= {*texts(figure), figure.axes[0].get_ylabel()}


def test_heat_map_keeps_the_most_frequent_labels_in_their_order() -> None:
    counts = [[0] * 30 for _ in range(30)]
    for i in range(30):
        counts[i][i] = 30 - i
    figure = plots.confusion_heatmap({"labels": [f"类{i}" for i in range(30)], "counts": counts})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"类{i}" for i in range(plots.MOST_CLASSES)]


def test_heat_map_leaves_out_what_was_never_met() -> None:
    found = {"labels": ["甲", "乙", "丙"], "counts": [[5, 0, 1], [0, 0, 0], [0, 0, 0]]}
    names = [label.get_text() for label in plots.confusion_heatmap(found).axes[0].get_yticklabels()]
    assert names == ["甲", "丙"]
    nothing = plots.confusion_heatmap({"labels": ["甲", "乙"], "counts": [[0, 0], [0, 0]]})
    assert len(nothing.axes[0].get_yticklabels()) == 2


def test_best_step_is_named_and_ringed() -> None:
    figure = plots.learning_curves({"run": LOG})
    assert "Dev set: best f1 0.500 at step 15" in texts(figure)
    rings = [line for line in figure.axes[1].lines if line.get_markerfacecolor() == "none"]
    assert [list(ring.get_xydata()[0]) for ring in rings] == [[15.0, 0.5]]


def test_style_stays_inside() -> None:
    before = dict(matplotlib.rcParams)
    to_svg(plots.bars_by_slice(SLICES))
    assert dict(matplotlib.rcParams) == before
