"""What a row costs in memory while a large file is read, looked at, divided, measured and planned."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tiny import tiny_backbone_folder
from toy import write_jsonl
from wenmai.check import doctor
from wenmai.config import RunConfig
from wenmai.data import storage
from wenmai.data.batching import Plan, StepSize, measure
from wenmai.data.features import features_in_memory
from wenmai.data.rows import Row

FEW, MANY = 2_000, 6_000


def bytes_a_row(work: Callable[[int], object]) -> float:
    """How much the peak grows with every row: of Python and numpy objects, and of Arrow's."""
    peaks = []
    for rows in (FEW, MANY):
        gc.collect()
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        kept = work(rows)
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before)
        tracemalloc.stop()
        del kept
    return (peaks[1] - peaks[0]) / (MANY - FEW)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store moves to its file soon, so that few rows are enough to see what stays in memory."""
    monkeypatch.setattr(storage, "BATCH_RECORDS", 200)
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(doctor, "TOKENIZED", 50)


def test_a_row_that_is_checked_leaves_hashes_only(tmp_path: Path, small_batches: None) -> None:
    backbone = tiny_backbone_folder(tmp_path / "backbone")

    def check(rows: int) -> object:
        records = [{"text": f"第{i}条" + "很好" * (i % 30), "label": "好坏"[i % 2]} for i in range(rows)]
        write_jsonl(tmp_path / f"{rows}.jsonl", records)
        del records
        tracemalloc.reset_peak()
        tree = {
            "task": {"name": "text_classification"},
            "backbone": {"model": str(backbone)},
            "data": {"train": str(tmp_path / f"{rows}.jsonl"), "split": {"dev": 0.1}},
            "output": str(tmp_path / "run"),
        }
        return doctor.check(RunConfig.model_validate(tree))

    check(100)  # what is imported and cached once is not a row's
    grown = bytes_a_row(check)
    assert grown < 200, f"{grown:.0f} bytes a row"


def test_a_unit_of_an_epoch_costs_numbers_only() -> None:
    row = Row(inputs={"input_ids": [1] * 40})

    def plan(rows: int) -> object:
        units = measure(features_in_memory(range(rows), lambda _: [row]), rows_stay_together=False)
        found = Plan(units, StepSize(tokens=2048), seed=1)
        return found, found.steps(0)

    grown = bytes_a_row(plan)
    assert grown < 160, f"{grown:.0f} bytes a unit"
