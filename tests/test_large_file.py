"""A million rows are read, checked and batched in less than a gigabyte, and trained on in less than one and a half."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "large_file.py"


@pytest.mark.slow
def test_a_million_rows_fit_into_little_memory(tmp_path: Path) -> None:
    page = tmp_path / "large-file.json"
    subprocess.run([sys.executable, str(SCRIPT), "--json", str(page)], check=True)
    found = json.loads(page.read_text(encoding="utf-8"))
    peaks = {stage["stage"]: stage["peak_mib"] for stage in found["stages"]}
    assert len(peaks) == 6
    assert all(stage["rows"] == 1_000_000 for stage in found["stages"])
    assert peaks.pop("train") < 1536, found["stages"][-1]
    assert max(peaks.values()) < 1024, peaks
    first, again = found["stages"][3:5]
    assert first["padding"] == again["padding"] < 0.05
    assert again["parts"]["tokenising"] < first["parts"]["tokenising"] / 10
    assert found["stages"][-1]["steps"] == 300
