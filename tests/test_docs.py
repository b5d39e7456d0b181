"""The task on docs/adding-a-task.md is one that works: it trains, is saved, predicts and is scored as it stands."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, BAD, GOOD, write_jsonl
from wenmai.cli import main
from wenmai.errors import UserError
from wenmai.inference.predictor import load
from wenmai.tasks import TASKS
from wenmai.tasks.task import Task

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "adding-a-task.md").read_text(encoding="utf-8")


@pytest.fixture
def rating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Task[Any, Any]]:
    """The page's task, in ``TASKS`` for the time of a test."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "text_rating.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("text_rating", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "text_rating", module)
    spec.loader.exec_module(module)
    task: type[Task[Any, Any]] = module.TextRating
    monkeypatch.setitem(TASKS, task.name, task)
    return task


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a run on ratings that a word of the text decides."""
    rated = [
        {"text": f"{'这家店' * times}{word}。", "rating": rating}
        for times in range(1, 6)
        for words, rating in ((GOOD, 0.9), (BAD, 0.1))
        for word in words
    ]
    train = str(write_jsonl(tmp_path / "train.jsonl", rated[12:]))
    dev = str(write_jsonl(tmp_path / "dev.jsonl", rated[:12]))
    tree = {
        "task": {"name": "text_rating", "max_length": 32},
        "backbone": {"model": str(tiny_backbone_folder(tmp_path / "backbone", texts=ALL_TEXTS))},
        "data": {"train": train, "dev": dev},
        "train": {"epochs": 10, "learning_rate": 3e-3, "examples_per_step": 8, "warmup_steps": 0.1},
        "device": "cpu",
        "trackers": [],
        "output": str(tmp_path / "run"),
    }
    path = tmp_path / "rating.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def test_the_task_on_the_page_lives(
    rating: type[Task[Any, Any]], config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", rating.name]) == 0
    assert f"name: {rating.name}" in capsys.readouterr().out
    assert main(["check", str(config)]) == 0
    assert main(["train", str(config)]) == 0
    run = tmp_path / "run"
    assert (run / "report.html").is_file()
    scores = json.loads((run / "evaluation" / "dev" / "metrics.json").read_text(encoding="utf-8"))
    # two gold values against twelve predicted ones can't correlate better than 0.870
    assert scores["primary_metric"] == "spearman" and scores["spearman"] > 0.8

    predictor = load(run)
    good, bad, empty, long = predictor(["这家店非常满意。", "这家店非常失望。", "", "这家店很好，" * 50])
    assert good["rating"] > bad["rating"]  # the best by rank correlation, whatever the distance
    assert empty["text"] == "" and 0 < long["rating"] < 2
    with pytest.raises(UserError, match="predicts for a text"):
        predictor([7])
    capsys.readouterr()
    (tmp_path / "a.txt").write_text("这家店难吃。\n", encoding="utf-8")
    assert main(["predict", str(run), str(tmp_path / "a.txt")]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "这家店难吃。"


def test_the_page_names_what_there_is() -> None:
    """Paths, and names of the contract in code spans."""
    root = DOCS.parent
    paths = re.findall(r"`((?:src|tests|recipes|docs)/[\w/.]*)`", PAGE)
    assert len(paths) >= 4 and all((root / path).exists() for path in paths)
    code = "".join(path.read_text(encoding="utf-8") for path in (root / "src").rglob("*.py"))
    names = re.findall(r"`(?:\w+\.)?([a-z]+_[a-z_]+)`", PAGE)
    assert len(names) >= 4 and all(re.search(rf"\b{name}\b", code) for name in names)


def test_the_index_names_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == {
        path.name for path in DOCS.glob("*.md") if path.name != "index.md"
    }
    assert set(re.findall(r"\]\((tasks/[\w-]+\.md)\)", index)) == {
        path.relative_to(DOCS).as_posix() for path in (DOCS / "tasks").glob("*.md")
    }


UNDER_ANOTHER_NAME = {"masked_lm": "fill_mask"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_page(name: str) -> None:
    """With a record, its keys, its measure, what comes back, and commands whose recipe is there."""
    page = (DOCS / "tasks" / f"{UNDER_ANOTHER_NAME.get(name, name)}.md").read_text(encoding="utf-8")
    assert f"wenmai train recipes/{name}.yaml" in page
    assert "wenmai predict" in page and "rediction" in page and '{"' in page and "configuration.md" in page
    for linked in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", page):
        assert (DOCS / "tasks" / linked).exists(), linked
