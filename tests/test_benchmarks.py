"""The benchmarks of the training engine run, and print the JSON that other tools read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def page_of(script: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a benchmark writes with ``--json`` and what it prints."""
    path = folder / "page.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--json", str(path), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


def test_every_script_opens() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert {"tasks", "few_labels", "adversarial"} <= {*names}
    subprocess.run(
        [sys.executable, "-c", "".join(f"import {name}\n" for name in names)], cwd=BENCHMARKS, check=True
    )


def test_characters_and_masks(tmp_path: Path) -> None:
    page, printed = page_of("correctness.py", tmp_path, "--quick", "--checks", "characters", "masking")
    assert {key for row in page["rows"] for key in row} == {"row", "ours", "trainer", "ours_exact"}
    assert all(row["ours_exact"] for row in page["rows"]), printed
    lost = [row for row in page["rows"] if row["row"].startswith("characters")]
    assert lost and all(row["ours"] == 0 < row["trainer"] for row in lost)
    assert page["versions"].keys() >= {"wenmai", "torch", "transformers"}
    assert all(row["row"] in printed for row in page["rows"])


@pytest.mark.slow
def test_gradients_and_resuming(tmp_path: Path) -> None:
    page, printed = page_of("correctness.py", tmp_path, "--quick", "--checks", "gradients", "resuming")
    assert all(row["ours_exact"] for row in page["rows"]), printed
    ratios = {row["row"]: row for row in page["rows"] if "norm ratio" in row["row"]}
    # the measurement sees what is wrong where something is
    assert any(row["trainer"] > 3.5 for row in ratios.values()), printed
    resumed = [row for row in page["rows"] if row["row"].startswith("largest weight difference")]
    assert any(row["trainer"] > 0 for row in resumed) and any(row["trainer"] == 0 for row in resumed)
    again = subprocess.run(
        [sys.executable, str(BENCHMARKS / "correctness.py"), "--read", str(tmp_path / "page.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == printed


@pytest.mark.slow
def test_throughput(tmp_path: Path) -> None:
    peers = ["trainer_default", "trainer_grouped", *(["bert4torch"] if find_spec("bert4torch") else [])]
    page, printed = page_of("train_throughput.py", tmp_path, "--quick", "--runners", "ours", *peers)
    assert list(page["ratios"]) == peers
    for peer in peers:
        found = page["ratios"][peer]["tiny"]
        assert found["low"] <= found["ratio"] <= found["high"] and found["rounds"] == 1
        assert page["losses"]["tiny"][peer]["same_start"], printed
    runs = {run["runner"]: run for run in page["runs"]}
    assert len({run["tokens"] for run in runs.values()}) == len({run["steps"] for run in runs.values()}) == 1
    assert runs["trainer_grouped"]["padding"] < runs["trainer_default"]["padding"]
    assert abs(runs["ours"]["padding"] - runs["trainer_grouped"]["padding"]) < 0.02
    assert 0 < page["rows"][0]["share_of_peak"] < 1
    assert "held-out loss" in printed


@pytest.mark.slow
def test_long_documents(shared_data: Path, tmp_path: Path) -> None:
    page, printed = page_of("long_documents.py", tmp_path, "--quick")
    assert [check["method"] for check in page["checks"]] == ["copy", "random", "hierarchical"]
    assert all(
        check["largest_difference"] <= 1e-6 and check["finite"] and check["read_tokens"] == 4096
        for check in page["checks"]
    )
    assert {row["arm"] for row in page["rows"]} == {"head", "hierarchical"}
    assert all(one["test_examples"] + one["train_examples"] == page["documents"] for one in page["runs"])
    assert "| hierarchical |" in printed


@pytest.mark.slow
def test_language_models(tmp_path: Path) -> None:
    page, printed = page_of("language_models.py", tmp_path, "--quick")
    assert {row["task"] for row in page["rows"]} == {"causal_lm", "masked_lm"}
    (causal,) = (one for one in page["runs"] if one["task"] == "causal_lm")
    # transformers, with our weights, finds our perplexity
    assert causal["ours_by_transformers"] == pytest.approx(causal["ours"], rel=1e-4)
    assert all(row["task"] in printed for row in page["rows"])


@pytest.mark.slow
def test_zero_shot(shared_data: Path, tmp_path: Path) -> None:
    page, printed = page_of("zero_shot.py", tmp_path, "--quick")
    assert {(row["recipe"], row["calibrated"]) for row in page["rows"]} == {
        (recipe, way)
        for recipe in ("eprstmt", "tnews")
        for way in ("as they are", "without a text", "over unlabelled texts")
    }
    for row in page["rows"]:
        low, high = row["interval"]
        assert low <= row["accuracy"] <= high and row["test_examples"] <= 41
    assert "majority" in printed


@pytest.mark.slow
def test_few_labels(shared_data: Path, tmp_path: Path) -> None:
    page, printed = page_of("few_labels.py", tmp_path, "--quick")
    assert {row["method"] for row in page["rows"]} == set(page["methods"])
    learned = {one["method"]: one["trainable"] / one["parameters"] for one in page["runs"]}
    assert learned["fine-tuning"] == learned["PET"] == learned["SetFit"] == 1
    assert 0 < learned["prompt tuning"] < learned["P-tuning v2"] < learned["LoRA"] < 0.1
    assert all(one["train_examples"] == 16 for one in page["runs"])
    assert all(f"| {method} |" in printed for method in page["methods"])
    again, _ = page_of("few_labels.py", tmp_path, "--quick")
    assert again["runs"] == page["runs"], "runs that the file holds are not repeated"


@pytest.mark.slow
def test_tasks(shared_data: Path, tmp_path: Path) -> None:
    arguments = ("--quick", "--corpora", "weibo_ner", "atis")
    page, printed = page_of("tasks.py", tmp_path, *arguments)
    assert {row["corpus"] for row in page["rows"]} == {"weibo_ner", "atis"}
    assert all(0 < row["baseline"]["value"] < 1 for row in page["rows"])
    assert all(one["examples"] == 30 and one["passes"] > 0 for one in page["runs"])
    assert "| slot_filling | atis | sentence_accuracy |" in printed
    again, _ = page_of("tasks.py", tmp_path, *arguments)
    assert again["runs"] == page["runs"], "what is done is not done again"


@pytest.mark.slow
def test_task_peers(shared_data: Path, tmp_path: Path) -> None:
    contests = ["questions", "tags", *(["spans", "triples"] if find_spec("bert4torch") else [])]
    page, printed = page_of("task_peers.py", tmp_path, "--quick", "--contests", *contests)
    assert {row["contest"] for row in page["rows"]} == {*contests}
    for contest in contests:
        sides = [row for row in page["rows"] if row["contest"] == contest]
        assert len(sides) > 1 and len({row["examples"] for row in sides}) == 1
        assert all(row["side"] in printed for row in sides)
