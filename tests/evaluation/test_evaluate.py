from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import KNOWN, classification_pairs, ner_pairs
from sklearn.metrics import confusion_matrix, f1_score

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.errors import UserError
from wenmai.evaluation.evaluate import evaluate, evaluate_predictions, prediction_line
from wenmai.tasks.model import Model
from wenmai.tasks.ner import Ner, NerConfig


def test_entities_by_hand() -> None:
    task, examples, predictions = ner_pairs()
    found = evaluate_predictions(task, examples, predictions, known=KNOWN, resamples=50)
    # gold 6, predicted 7, right 4: 王小明, 北京, 北京, 𠮷野家
    assert found["precision"] == pytest.approx(4 / 7)
    assert found["recall"] == pytest.approx(4 / 6)
    assert found["f1"] == found[found["primary_metric"]] == pytest.approx(8 / 13)
    assert found["examples"] == 5
    low, high = found["f1_interval"]
    assert low <= found["f1"] <= high
    assert found["labels"]["地名"] == {
        "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(4 / 5), "support": 2.0,
        "f1_interval": found["labels"]["地名"]["f1_interval"],
    }  # fmt: skip
    lengths = found["slices"]["length"]
    assert {name: part["examples"] for name, part in lengths.items()} == {"0-50": 4, "50-100": 1}
    assert lengths["50-100"]["f1"] == 0.0 and lengths["0-50"]["f1"] == pytest.approx(8 / 10)
    assert "f1_interval" in lengths["0-50"] and "recall_interval" not in lengths["0-50"]
    seen = found["slices"]["seen"]
    assert (seen["seen"]["support"], seen["seen"]["recall"]) == (3.0, 1.0)
    assert (seen["unseen"]["support"], seen["unseen"]["recall"]) == (3.0, pytest.approx(1 / 3))
    assert list(found["slices"]["entity_length"]) == ["2", "3", "5-6"]
    assert np.array(found["confusion"]["counts"]).sum() == 4 + 1 + 1 + 2
    assert sum(part["count"] for part in found["calibration"]["bins"]) == 7
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_classes_agree_with_scikit_learn() -> None:
    task, examples, predictions = classification_pairs()
    found = evaluate_predictions(task, examples, predictions, resamples=10)
    gold, predicted = [e.label for e in examples], [p["label"] for p in predictions]
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found["confusion"] == {
        "labels": task.labels,
        "counts": confusion_matrix(gold, predicted, labels=task.labels).tolist(),
    }
    assert found["slices"]["length"]["50-100"]["accuracy"] == 0.0


def test_labels_with_slashes_keep_their_names() -> None:
    task = Ner(NerConfig(), ["地点/城市"])
    example = task.Example.model_validate(
        {"text": "北京", "entities": [{"start": 0, "end": 2, "label": "地点/城市"}]}
    )
    prediction = {"text": "北京", "entities": [{"start": 0, "end": 2, "label": "地点/城市", "score": 1.0}]}
    found = evaluate_predictions(task, [example], [prediction], resamples=2)
    assert found["labels"]["地点/城市"]["f1"] == 1.0


def test_unlabelled_examples_are_not_counted() -> None:
    task, examples, predictions = ner_pairs()
    found = evaluate_predictions(
        task,
        [*examples, task.as_example("北京")],
        [*predictions, {"text": "北京", "entities": []}],
        resamples=2,
    )
    assert found["examples"] == len(examples)


def test_lines_hold_gold_and_whether_it_was_seen() -> None:
    task, examples, predictions = ner_pairs()
    lines = [prediction_line(task, e, p, known=KNOWN) for e, p in zip(examples, predictions, strict=True)]
    assert lines[0]["gold"] == {
        "entities": [{"start": 0, "end": 3, "label": "人名"}, {"start": 4, "end": 6, "label": "地名"}]
    }
    assert [line.get("seen") for line in lines] == [True, False, False, False, None]
    assert "gold" not in prediction_line(task, task.as_example("北京"), {"text": "北京", "entities": []})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the bundle of an untrained tiny model."""
    task, examples, _ = ner_pairs()
    folder = tmp_path_factory.mktemp("tiny")
    backbone, tokenizer = load_folder(
        tiny_backbone_folder(folder / "backbone", texts=[example.text for example in examples])
    )
    run = folder / "run"
    save_bundle(run / "bundle", task, Model(backbone, task.build_head(backbone)), tokenizer)
    (run / "config.yaml").write_text("output: run\n")
    (run / "known.json").write_text(json.dumps(sorted(KNOWN), ensure_ascii=False))
    return run


def records() -> list[dict[str, Any]]:
    return [example.model_dump(mode="json", exclude_none=True) for example in ner_pairs()[1]]


def test_a_bundle_is_scored_from_a_file(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records()))
    report = evaluate(bundle, data, split="dev", resamples=5)
    results = bundle / "evaluation" / "dev"
    assert json.loads((results / "metrics.json").read_text()) == report
    assert report["examples"] == 5 and report["split"] == "dev" and report["data"] == str(data)
    assert 0 <= report[report["primary_metric"]] <= 1
    assert report["unexpressible"] == 1  # the place inside the university: flat tags hold one of them
    lines = [json.loads(line) for line in (results / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [record["id"] for record in records()]
    for line, record in zip(lines, records(), strict=True):
        assert line["text"] == record["text"] and line["gold"]["entities"] == record["entities"]
        assert all(line["text"][e["start"] : e["end"]] == e["text"] for e in line["entities"])
    assert lines[0]["seen"] is True


def test_the_same_figures_when_run_again(bundle: Path, tmp_path: Path) -> None:
    examples = ner_pairs()[1]
    first = evaluate(bundle, examples, output=tmp_path / "a", resamples=20)
    second = evaluate(bundle, examples, output=tmp_path / "b", resamples=20)
    assert first == second
    assert (tmp_path / "a/evaluation/test/predictions.jsonl").read_bytes() == (
        tmp_path / "b/evaluation/test/predictions.jsonl"
    ).read_bytes()


def test_data_without_labels_is_refused(bundle: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "plain.jsonl"
    unlabelled.write_text('{"text": "北京"}\n')
    with pytest.raises(UserError, match=r"plain\.jsonl:1"):
        evaluate(bundle, unlabelled, output=tmp_path)
    with pytest.raises(UserError, match="has labels to score against"):
        evaluate(bundle, [ner_pairs()[0].as_example("北京")], output=tmp_path)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize("content", ["[1]", "{}", "[", '"x"'])
def test_a_damaged_inventory_is_named(bundle: Path, tmp_path: Path, content: str) -> None:
    known = tmp_path / "known.json"
    known.write_text(content)
    with pytest.raises(UserError, match=r"known\.json"):
        evaluate(bundle, ner_pairs()[1], known=known, output=tmp_path)


@pytest.mark.parametrize("split", ["", "a/b", ".."])
def test_a_split_is_a_plain_name(bundle: Path, tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError, match="plain name"):
        evaluate(bundle, ner_pairs()[1], split=split, output=tmp_path)
