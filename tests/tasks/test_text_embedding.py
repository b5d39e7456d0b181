"""Text embeddings: which records serve which objective, how they become rows, how pairs are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, embedding_records, scored_pair_records, toy_config, write_jsonl
from wenmai.backbones.load import load_folder
from wenmai.config import load_config
from wenmai.data.split import load_splits
from wenmai.errors import ConfigError, DataError
from wenmai.evaluation.evaluate import evaluate_predictions
from wenmai.heads.contrastive import ANCHOR, HARD_NEGATIVE, POSITIVE
from wenmai.tasks.embedding_example import TextEmbeddingConfig, TextEmbeddingExample
from wenmai.tasks.text_embedding import TextEmbedding
from wenmai.training.setup import prepare

TRIPLE = TextEmbeddingExample(anchor="北京", positive="上海", negatives=("手机", "电影"))
BARE = TextEmbeddingExample(anchor="北京", positive="上海")
HIGH = TextEmbeddingExample(text="北京", text_pair="上海", score=1.0)
LOW = TextEmbeddingExample(text="北京", text_pair="手机", score=0.25)
PLAIN = TextEmbeddingExample(text="北京")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def task(**config: Any) -> TextEmbedding:
    return TextEmbedding(TextEmbeddingConfig.model_validate(config), [])


def test_an_anchor_has_no_other_pair() -> None:
    with pytest.raises(ValidationError, match="needs either 'anchor' and 'positive'"):
        TextEmbeddingExample(anchor="北京", positive="上海", text_pair="手机")


def test_a_long_text_fills_its_row(folder: Path) -> None:
    tokenizer = load_folder(folder)[1]
    for characters in (13, 14, 15, 28, 40):
        example = TextEmbeddingExample(text="北" * characters)
        (row,) = task(max_length=16).featurize(example, tokenizer)
        assert row.content == (1, 1 + min(characters, 14))
        lost = task(max_length=16).lost_labels(example, tokenizer)
        cut_off = max(0, characters - 14)
        assert lost == ([f"{cut_off} of {characters} tokens of a text are cut off"] if cut_off else [])


@pytest.mark.parametrize(
    ("config", "example", "targets"),
    [
        ({}, TRIPLE, {"role": [ANCHOR, POSITIVE, HARD_NEGATIVE, HARD_NEGATIVE]}),
        ({}, HIGH, {"role": [ANCHOR, POSITIVE]}),
        ({}, LOW, {"role": [ANCHOR, HARD_NEGATIVE]}),
        ({"positive_score": 0.25}, LOW, {"role": [ANCHOR, POSITIVE]}),
        ({"objective": "triplet"}, TRIPLE, {"role": [ANCHOR, POSITIVE, HARD_NEGATIVE, HARD_NEGATIVE]}),
        ({"objective": "cosent"}, LOW, {"role": [ANCHOR, POSITIVE], "score": [0.25, 0.25]}),
        (
            {"objective": "cosine", "score_range": [-1, 4]},
            LOW,
            {"role": [ANCHOR, POSITIVE], "score": [0.25, 0.25]},
        ),
        ({"objective": "cosine"}, HIGH, {"role": [ANCHOR, POSITIVE], "score": [1.0, 1.0]}),
        ({"objective": "simcse"}, PLAIN, {"role": [ANCHOR, POSITIVE], "part": [0, 0]}),
        (
            {"objective": "simcse"},
            LOW,
            {"role": [ANCHOR, POSITIVE, ANCHOR, POSITIVE], "part": [0, 0, 1, 1]},
        ),
    ],
)
def test_rows_of_a_training_example(
    config: dict[str, Any], example: TextEmbeddingExample, targets: dict[str, list[Any]], folder: Path
) -> None:
    tokenizer = load_folder(folder)[1]
    built = task(**config)
    rows = built.training_rows(example, tokenizer)
    assert {key: [row.targets[key] for row in rows] for key in rows[0].targets} == targets
    # prediction looks at every text once
    assert [row.inputs["input_ids"] for row in built.featurize(example, tokenizer)] == [
        row.inputs["input_ids"] for row in rows[:: 2 if "part" in targets else 1]
    ]


@pytest.mark.parametrize(
    ("config", "example", "said"),
    [
        ({}, PLAIN, "has no positive: task.objective: infonce"),
        ({"objective": "triplet"}, BARE, "has no 'negatives'.*mine-negatives"),
        ({"objective": "triplet"}, HIGH, "has no 'negatives'"),
        ({"objective": "cosent"}, TRIPLE, "has no 'score': task.objective: cosent"),
        ({"objective": "cosine"}, PLAIN, "has no 'score': task.objective: cosine"),
        ({"objective": "cosine", "score_range": [0, 0.5]}, HIGH, r"score 1 is outside .*\[0, 0.5\]"),
        *[({"objective": "simcse"}, example, None) for example in (TRIPLE, HIGH, PLAIN)],
        *[({}, example, None) for example in (TRIPLE, BARE, HIGH, LOW)],
    ],
)
def test_what_an_objective_can_not_learn_from(
    config: dict[str, Any], example: TextEmbeddingExample, said: str | None
) -> None:
    problems = task(**config).training_problems(example)
    assert len(problems) == (said is not None)
    if said is not None:
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(problems[0])


def test_what_can_not_be_scored() -> None:
    assert task(evaluate_on="pairs").label_problems(TRIPLE)[0].startswith("has no 'score'")
    assert task(objective="triplet").label_problems(HIGH)[0].startswith("has no 'anchor'")
    assert not task(objective="simcse").label_problems(HIGH) and not task().label_problems(TRIPLE)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"widths": [8, 8]}, "different whole numbers"),
        ({"widths": [8, 0]}, "different whole numbers"),
        ({"widths": [8, 4], "width_weights": [1.0]}, "1 numbers for 2 widths"),
        ({"widths": [8], "width_weights": [0.0]}, "above 0"),
        ({"score_range": [5, 0]}, "the lower score first"),
        ({"threshold": 0.5}, "needs evaluate_on: pairs"),
    ],
)
def test_keys_that_contradict_each_other(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        task(**config)


def test_plain_texts_train_and_pairs_are_dev(folder: Path, tmp_path: Path) -> None:
    config = toy_config(tmp_path, "embedding-simcse", folder)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in ("北京", "上海", "北京")])
    train = config.data.train.model_copy(update={"path": str(tmp_path / "texts.jsonl")})
    data = config.data.model_copy(update={"train": train})
    assert len(load_splits(data, TextEmbeddingExample, cache=None, output=None)["train"]) == 3
    with pytest.raises(DataError, match="has no labels"):
        load_splits(data.model_copy(update={"dev": train}), TextEmbeddingExample, cache=None, output=None)
    refused = config.model_copy(
        update={"data": data, "task": TextEmbeddingConfig(objective="cosent", max_length=64)}
    )
    with pytest.raises(DataError, match=r"texts.jsonl:1: has no 'score'"):
        prepare(refused)


def test_the_same_text_under_two_draws_of_dropout(folder: Path, tmp_path: Path) -> None:
    work = prepare(toy_config(tmp_path, "embedding-simcse", folder))
    units = work.plan.steps(0)[0]
    epochs = [work.maker(units, 0), work.maker(units, 0), work.maker(units, 1)]
    batch = epochs[0]
    assert len(torch.unique(batch["key"])) == len(batch["key"]) == 4 * len(units)
    assert torch.equal(batch["key"], epochs[1]["key"]) and not (batch["key"] == epochs[2]["key"]).any()
    model = work.model.train()
    with torch.no_grad():
        vectors = model(batch, "train")["embedding"]
        again = model(epochs[1], "train")["embedding"]
    same = torch.equal(batch["input_ids"][0::2], batch["input_ids"][1::2])
    assert same and torch.equal(vectors, again)
    cosines = (vectors[0::2] * vectors[1::2]).sum(dim=1)
    assert (cosines < 0.9999).all() and (cosines > 0).all()


def test_without_dropout_simcse_is_refused(folder: Path, tmp_path: Path) -> None:
    config = toy_config(tmp_path, "embedding-simcse", folder)
    without = config.model_copy(update={"backbone": config.backbone.model_copy(update={"dropout": 0.0})})
    with pytest.raises(ConfigError, match=r"task.objective: simcse .* set backbone.dropout: 0.1"):
        prepare(without)


@pytest.mark.parametrize("key", ["widths", "width"])
def test_a_width_that_the_backbone_has_not_is_refused(key: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"task.{key}: 64 given, .* have 32 numbers"):
        task(**{key: [64] if key == "widths" else 64}).build_head(load_folder(folder)[0])


def predicted(similarities: list[float]) -> list[dict[str, Any]]:
    return [{"text": "", "text_pair": "", "similarity": similarity} for similarity in similarities]


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_told_apart_at_the_threshold_of_dev(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, 60)
    near = np.round(gold * 0.2 + rng.normal(size=60) * 0.3, 2).tolist()
    examples = [TextEmbeddingExample(text="", text_pair="", score=float(value)) for value in gold]
    built = task(evaluate_on="pairs")
    assert "accuracy" not in built.score(examples, predicted(near)).values()
    settled = built.settle(examples, predicted(near))
    values = built.score(examples, settled).values()
    together = [prediction["together"] for prediction in settled]
    borders = [-9.0, *near]
    assert (
        values["accuracy"]
        == max(accuracy_score(gold, np.array(near) > border) for border in borders)
        == pytest.approx(accuracy_score(gold, together))
    )
    assert values["f1"] == pytest.approx(f1_score(gold, together))
    assert values["average_precision"] == pytest.approx(average_precision_score(gold, near))
    assert values["spearman"] == pytest.approx(spearmanr(gold, near).statistic)
    # kept for the bundle, and used on other pairs
    copy = TextEmbedding(TextEmbeddingConfig.model_validate(built.meta()["config"]), [])
    assert copy.threshold == built.threshold is not None
    assert copy.score(examples, predicted(near)).values() == values
    fixed = task(evaluate_on="pairs", threshold=0.5)
    assert fixed.settle(examples, predicted(near)) == predicted(near) and fixed.threshold == 0.5


def test_scores_of_graded_pairs_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    gold, near = rng.integers(0, 6, 40), rng.normal(size=40).tolist()
    examples = [TextEmbeddingExample(text="", text_pair="", score=float(value)) for value in gold]
    values = task(objective="simcse").score(examples, predicted(near)).values()
    assert values["spearman"] == pytest.approx(spearmanr(gold, near).statistic)


@pytest.mark.parametrize("evaluate_on", ["retrieval", "similarity", "pairs"])
def test_narrower_vectors_are_scored_apart(evaluate_on: str) -> None:
    records = embedding_records() if evaluate_on == "retrieval" else scored_pair_records()
    examples = [TextEmbeddingExample.model_validate(record) for record in records]
    names = ("anchor", "positive") if evaluate_on == "retrieval" else ("text", "text_pair")
    built = task(evaluate_on=evaluate_on, widths=[8, 2, 4], width=4)

    def predictions(width: int) -> list[dict[str, Any]]:
        vectors = np.random.default_rng(1).normal(size=(len(examples), 2, 4))[..., :width]
        return [
            {
                **{name: getattr(example, name) for name in names},
                **{f"{name}_embedding": vector.tolist() for name, vector in zip(names, pair, strict=True)},
                "similarity": float(pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])),
            }
            for example, pair in zip(examples, vectors, strict=True)
        ]

    report = evaluate_predictions(built, examples, predictions(4), resamples=2)
    assert set(report["slices"]["width"]) == {"2", "4"}  # of 8 numbers nothing is left in the prediction
    primary = built.primary_metric
    assert report["slices"]["width"]["4"][primary] == pytest.approx(report[primary])
    expected = built.score(examples, predictions(2)).values()[primary]
    assert report["slices"]["width"]["2"][primary] == pytest.approx(expected)


def test_a_trained_run_keeps_threshold_and_width(folder: Path, tmp_path: Path) -> None:
    from wenmai.evaluation.evaluate import evaluate
    from wenmai.inference.predictor import load
    from wenmai.training.trainer import train

    config = toy_config(tmp_path, "embedding-simcse", folder, epochs=1)
    wanted = {**config.task.model_dump(), "objective": "cosine", "widths": [32, 8], "width": 8}
    config = config.model_copy(update={"task": TextEmbeddingConfig.model_validate(wanted)})
    run = train(config)
    report = evaluate(run, tmp_path / "data.jsonl", split="dev", resamples=2)
    assert report["primary_metric"] == "average_precision" and 0 <= report["accuracy"] <= 1
    predictor = load(run)
    found = predictor(("王小明在北京", "北京"))
    assert len(found["text_embedding"]) == 8 and isinstance(found["together"], bool)
    manifest = json.loads((run / "bundle" / "wenmai.json").read_text(encoding="utf-8"))
    assert manifest["task"]["config"]["threshold"] == predictor.task.threshold is not None
    assert load_config(run / "config.yaml").task.threshold is None
