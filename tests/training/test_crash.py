"""Training processes that are struck down at random moments, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_resume import with_data

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.config import save_config
from wenmai.training.verification import compared

DRIVER = Path(__file__).with_name("crashing.py")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

RUNS: dict[str, dict[str, Any]] = {
    "ner-crf": {"ema_decay": 0.9},
    "masked-lm": {"examples_per_micro_batch": 3, "num_workers": 1},
    "classification": {"adversarial": {"method": "fgm"}, "swa_start": 0.3},
    "embedding": {"examples_per_micro_batch": 3, "early_stopping_patience": 1000},
}
"""Toy sets and what is switched on; the runs take turns until there were enough strikes."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def crash(folder: Path, name: str, settings: dict[str, Any], steps: int, seed: int, backbone: Path) -> int:
    """One run in peace and one under fire; returns the number of strikes."""
    train = {
        "max_steps": steps,
        "epochs": 10_000,
        "eval_steps": steps // 4,
        "save_steps": 3,
        "logging_steps": 5,
        **settings,
    }
    files = {}
    for kind in ("peace", "fire"):
        config = toy_config(folder / kind, name, backbone, **train)
        shutil.copy(folder / kind / "data.jsonl", folder / "data.jsonl")
        files[kind] = folder / f"{kind}.yaml"
        save_config(with_data(config, str(folder / "data.jsonl")), files[kind])
    report = subprocess.run(
        [sys.executable, str(DRIVER), str(files["peace"]), str(files["fire"]), str(seed)],
        env=ONE_THREAD,
        check=True,
        capture_output=True,
    )
    found = json.loads(report.stdout)
    assert found["wrong"] == [], found
    run = folder / "fire" / "run"
    same = compared(folder / "peace" / "run", run)
    assert {"weights", "optimizer", "best model", "log"} <= same.keys()
    assert all(same.values()), (name, found, same)
    assert not [path for path in run.rglob("*") if path.name.endswith((".new", ".old", ".tmp"))]
    return sum(found["struck"].values())


def test_a_few_strikes(tmp_path: Path, backbone: Path) -> None:
    assert crash(tmp_path, "ner-crf", RUNS["ner-crf"], 200, 1, backbone) >= 1


@pytest.mark.slow
def test_fifty_strikes(tmp_path: Path, backbone: Path) -> None:
    strikes = seed = 0
    while strikes < 50:
        for name, settings in RUNS.items():
            seed += 1
            strikes += crash(tmp_path / str(seed), name, settings, 900, seed, backbone)
