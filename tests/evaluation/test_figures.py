"""Which figures a run has."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from wenmai.evaluation import plots
from wenmai.evaluation.figures import MOST_BARS, figures_of, metrics_of
from wenmai.evaluation.runs import Evaluation, Run

PARTS = {
    f"{kind}{part}": 0.5 for kind in ("", "surface_", "macro_") for part in ("precision", "recall", "f1")
}


@pytest.mark.parametrize(
    ("primary", "values", "bars"),
    [
        ("f1", PARTS, ("precision", "recall", "f1")),
        ("surface_f1", PARTS, ("surface_precision", "surface_recall", "surface_f1")),
        ("macro_f1", PARTS, ("macro_precision", "macro_recall", "macro_f1")),
        ("surface_f1", {"precision": 1.0, "recall": 1.0, "f1": 1.0}, ("precision", "recall", "f1")),
        ("accuracy", {"accuracy": 1.0, "macro_f1": 1.0}, ("accuracy", "macro_f1")),
        ("las", {"las": 1.0, "word_f1": 1.0}, ("las",)),
    ],
)
def test_bars_are_of_what_the_run_is_judged_by(
    primary: str, values: dict[str, float], bars: tuple[str, ...]
) -> None:
    assert metrics_of({"0-50": values}, primary) == bars


def test_many_groups_are_drawn_below_each_other(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").touch()

    def drawn(number: int) -> Any:
        groups = {f"r{i}": {"precision": 0.1, "recall": 0.2, "f1": 0.3, "support": 4} for i in range(number)}
        metrics = {"primary_metric": "las", "slices": {"relation": groups}}
        run = Run("run", Path("run"), {}, [], [Evaluation("test", metrics, tmp_path / "predictions.jsonl")])
        figure = figures_of(run)["by_relation"]
        assert isinstance(figure, partial)
        return figure.func

    assert drawn(MOST_BARS // 3) is plots.bars_by_slice
    assert drawn(MOST_BARS // 3 + 1) is plots.label_bars


def test_a_slice_that_holds_all_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").touch()
    groups = {"0-50": {"accuracy": 0.5, "examples": 4}}
    metrics = {"primary_metric": "accuracy", "slices": {"length": groups, "choices": {"7": groups["0-50"]}}}
    run = Run("run", Path("run"), {}, [], [Evaluation("test", metrics, tmp_path / "predictions.jsonl")])
    assert figures_of(run) == {}
