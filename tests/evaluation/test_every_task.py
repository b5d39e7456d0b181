"""Every task's predictions can be scored, written, looked at and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fresh import unbiased
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, backbone_of
from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.data.examples import read_examples
from wenmai.evaluation.cases import choose, read_predictions
from wenmai.evaluation.evaluate import evaluate
from wenmai.evaluation.report import write_report
from wenmai.tasks import TASKS
from wenmai.tasks.model import build_model


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("backbone"), texts=ALL_TEXTS)


@pytest.mark.parametrize("name", TOYS)
def test_from_bundle_to_page(name: str, backbone: Path, tmp_path: Path) -> None:
    settings, records = TOYS[name]
    task_type = TASKS[settings["name"]]
    config = task_type.Config.model_validate(settings)
    examples = list(read_examples(records, task_type.Example))[::2]
    task = task_type(config, task_type.collect_labels(config, examples))
    encoder, tokenizer = load_folder(backbone_of(name, backbone))
    model, tokenizer = build_model(task, encoder, tokenizer)
    unbiased(model.head)
    save_bundle(tmp_path / "bundle", task, model, tokenizer)
    report = evaluate(tmp_path / "bundle", examples, output=tmp_path / "run", resamples=5)
    assert isinstance(report[report["primary_metric"]], float)
    assert report["examples"] == len(examples)
    results = tmp_path / "run" / "evaluation" / "test"
    assert json.loads((results / "metrics.json").read_text())["task"] == task.name
    chosen = choose(read_predictions(results / "predictions.jsonl"), (0, 50))
    assert chosen["total"] == len(chosen["cases"]) == len(examples)
    for case, example in zip(sorted(chosen["cases"], key=lambda case: case["line"]), examples, strict=True):
        assert case["texts"][0][1] in [getattr(example, key, None) for key in ("text", "anchor", "context")]
        assert (case["predicted"] is None) == (task.name in ("ner", "dependency_parsing"))
    assert report["primary_metric"] in write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
