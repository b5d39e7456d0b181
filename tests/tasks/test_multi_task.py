"""A model of several tasks: learns all of them, is saved and loaded, reads a text once, and gives its parts away."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_life_cycle import ODD_TEXTS, assert_close, record_without_labels
from transformers import AutoModel

import wenmai
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, MULTI, TOYS, multi_task_config
from wenmai.bundle import load_bundle, part_of, save_bundle
from wenmai.cli import main
from wenmai.config import load_config
from wenmai.errors import BundleError, UserError
from wenmai.inference.predictor import Predictor, load
from wenmai.tasks.multi_task import MultiTask, of_task
from wenmai.training.trainer import train

TEXT = "王小明昨天去了北京开会，非常满意"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    backbone = tiny_backbone_folder(folder / "tiny", texts=ALL_TEXTS)
    return train(
        multi_task_config(
            folder,
            backbone,
            epochs=12,
            eval_steps=0.5,
            head_learning_rate=1e-2,
            mixing={"batches_per_step": 2},
        )
    )


@pytest.fixture(scope="module")
def several(run: Path) -> Predictor:
    return load(run)


@pytest.mark.parametrize("name", MULTI)
def test_learns_every_task(name: str, several: Predictor) -> None:
    part = several.part(name)
    records = TOYS[MULTI[name]][1]
    examples = [part.task.Example.model_validate(record) for record in records]
    scores = part.task.score(examples, list(part.predict_examples(examples))).values()
    assert scores[part.task.primary_metric] > 0.95


def test_a_part_answers_as_the_whole(run: Path, several: Predictor) -> None:
    texts = [TEXT, *(record["text"] for record in TOYS["ner-crf"][1][:3])]
    together = several(texts)
    for name in ("entities", "opinions"):
        part = load(run, part=name)
        assert isinstance(part.model.backbone, type(several.model.backbone))
        for alone, found in zip(part(texts), together, strict=True):
            assert_close(of_task(name, found), alone)
    assert [set(found["tasks"]) for found in together] == [{"entities", "opinions"}] * len(texts), (
        "no pair to match"
    )
    pair = several((TEXT, "北京"))
    assert set(pair["tasks"]) == {"pairs"} and pair["text_pair"] == "北京"
    assert_close(of_task("pairs", pair), several.part("pairs")((TEXT, "北京")))


def rows_read(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], Any]
) -> tuple[Any, int, int]:
    """What asking gives, and how many passes and rows the encoder had."""
    backbone, seen = predictor.model.backbone, []
    forward = backbone.forward

    def counted(batch: dict[str, torch.Tensor], *more: Any) -> torch.Tensor:
        seen.append(len(batch["input_ids"]))
        return forward(batch, *more)

    monkeypatch.setattr(backbone, "forward", counted)
    found = ask()
    monkeypatch.undo()
    return found, len(seen), sum(seen)


def test_equal_rows_are_read_once_and_the_answer_says_so(
    several: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, passes, rows = rows_read(several, monkeypatch, lambda: several(TEXT))
    assert (passes, rows) == (1, 1)
    assert (found["rows"], found["rows_alone"]) == (1, 2)
    assert found["text"] == TEXT
    assert all("text" not in part for part in found["tasks"].values())
    long = "王小明昨天去了北京开会，" * 30
    found, _, rows = rows_read(several, monkeypatch, lambda: several(long))
    entities, opinions = (several.part(name).task.featurize(several.part(name).task.as_example(long), several.tokenizer)
                          for name in ("entities", "opinions"))  # fmt: skip
    assert rows == found["rows"] <= found["rows_alone"] == len(entities) + len(opinions)
    assert rows > 1


def test_rows_that_differ_are_read_apart(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that sees characters and one that sees pieces read the same Latin word as different tokens."""
    bundle = load_bundle(run)
    assert isinstance(bundle.task, MultiTask)
    config = bundle.task.config
    entities = config.tasks["entities"].model_copy(update={"tokens": "characters", "max_length": 32})
    task = MultiTask(
        config.model_copy(update={"tasks": {**config.tasks, "entities": entities}}), bundle.task.labels
    )
    predictor = load(run)
    predictor.task = task
    found, _, rows = rows_read(
        predictor, monkeypatch, lambda: predictor(["北京", TEXT + "王小明昨天去了北京，" * 4])
    )
    assert [f["rows"] for f in found] == [1, found[1]["rows_alone"]], "equal, and cut into other windows"
    assert rows == sum(f["rows"] for f in found)


def test_loads_again_and_transformers_opens_it(several: Predictor, tmp_path: Path) -> None:
    save_bundle(tmp_path / "copy", several.task, several.model, several.tokenizer)
    assert load(tmp_path / "copy")([TEXT, "很差"]) == several([TEXT, "很差"])
    assert (
        AutoModel.from_pretrained(tmp_path / "copy").config.hidden_size == several.model.backbone.hidden_size
    )
    assert "entities/地名" in (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")


def test_any_text(several: Predictor) -> None:
    found = several(ODD_TEXTS)
    for text, prediction in zip(ODD_TEXTS, found, strict=True):
        assert prediction["text"] == text
        for span in prediction["tasks"]["entities"]["entities"]:
            assert text[span["start"] : span["end"]] == span["text"] != ""
    # batched with texts of pairs, and with records that have labels
    items = [*ODD_TEXTS[:3], (TEXT, "上海"), {"text": TEXT, "id": 7}]
    mixed = several(items)
    for item, prediction in zip(items, mixed, strict=True):
        assert_close(several([item])[0], prediction)
    assert mixed[-1]["id"] == 7
    with pytest.raises(UserError, match=r"entities: ner predicts for a text.*pairs: text_matching"):
        several([3])


def test_a_part_can_be_saved_as_a_model_of_its_own(several: Predictor, tmp_path: Path) -> None:
    part = part_of(several.bundle, "opinions")
    save_bundle(tmp_path / "opinions", part.task, part.model, part.tokenizer)
    alone = load(tmp_path / "opinions")
    assert alone.task.name == "text_classification"
    assert_close(alone(TEXT), several.part("opinions")(TEXT))
    with pytest.raises(
        BundleError, match=r"has no task 'opinion'; it holds the tasks entities, opinions, pairs"
    ):
        several.part("opinion")
    with pytest.raises(BundleError, match="holds one task, text_classification, without a name"):
        alone.part("opinions")


def test_pipelines_pick_their_part(run: Path, several: Predictor) -> None:
    find = wenmai.pipeline("ner", model=run)
    assert_close(find(TEXT), several.part("entities")(TEXT))
    feel = wenmai.pipeline("sentiment-analysis", model=run, top_k=1)
    assert len(feel("很好")["scores"]) == 1
    assert wenmai.pipeline("feature-extraction", model=run).vectors(["北京"]).shape[0] == 1
    with pytest.raises(UserError, match=r"has no task for pipeline\('dep'\), which needs dependency_parsing"):
        wenmai.pipeline("dep", model=run)


def test_a_use_that_two_parts_fit_must_be_named(several: Predictor, tmp_path: Path) -> None:
    tasks = several.task.tasks
    heads = several.model.head.heads
    twice = MultiTask.of({"a": tasks["opinions"], "b": tasks["opinions"]}, {"a": 1.0, "b": 1.0})
    model = type(several.model)(several.model.backbone, twice.build_head(several.model.backbone))
    model.head.heads["b"].load_state_dict(heads["opinions"].state_dict())
    save_bundle(tmp_path / "twice", twice, model.eval(), several.tokenizer)
    with pytest.raises(
        UserError, match=r"has several tasks for pipeline\('sentiment-analysis'\): a, b; name one"
    ):
        wenmai.pipeline("sentiment-analysis", model=tmp_path / "twice")
    named = wenmai.pipeline("sentiment-analysis", model=tmp_path / "twice", part="b")
    assert_close(named(TEXT), several.part("opinions")(TEXT))


def test_evaluation_is_by_task(run: Path, several: Predictor) -> None:
    data = run.parent / "opinions.jsonl"
    with pytest.raises(UserError, match="holds several tasks, and data is of one: name it with --part"):
        wenmai.evaluate(run, data)
    metrics = wenmai.evaluate(run, data, part="opinions", split="all", resamples=10)
    assert metrics["task"] == "text_classification" and metrics["part"] == "opinions"
    assert (run / "evaluation" / "opinions-all" / "metrics.json").is_file()
    metrics = wenmai.evaluate(run, run.parent / "entities.jsonl", part="entities", resamples=10)
    assert metrics["slices"]["seen"]["seen"]["support"] > 0, "the inventory is the task's own"


def test_command_line(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(run.parent / "config.yaml")
    assert load_config(run / "config.yaml") == load_config(config)
    assert main(["check", config, "--json"]) in (0, 2)
    report = json.loads(capsys.readouterr().out)
    assert [split["name"] for split in report["splits"]][:2] == ["entities/train", "entities/dev"]
    assert any(finding["message"].startswith("opinions: ") for finding in report["findings"])
    assert main(["info", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "multi_task"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{TEXT}\n很差\n".encode())))
    assert main(["predict", str(run)]) == 0
    printed = capsys.readouterr()
    assert [set(json.loads(line)["tasks"]) for line in printed.out.splitlines()] == [
        {"entities", "opinions"}
    ] * 2
    assert "2 items: the encoder read 2 rows for all tasks together, 4 if each had read alone" in printed.err
    data = str(run.parent / "entities.jsonl")
    assert main(["evaluate", str(run), data, "--part", "entities", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["part"] == "entities"
    assert main(["inspect", str(run)]) == 2
    assert "name one with --part" in capsys.readouterr().err
    assert main(["inspect", str(run), "--part", "pairs", "--examples", "4", "--json"]) == 0
    assert main(["compare", str(run), str(run), "--split", "entities-test", "--json"]) == 0
    assert main(["report", str(run)]) == 0


def test_settled_scores_of_a_joined_set(several: Predictor) -> None:
    """Scores are those of the tasks, and subsets of them those of the same examples of the tasks."""
    task = several.task
    assert isinstance(task, MultiTask)
    examples, gold = [], {}
    for name in ("opinions", "entities"):
        own = task.tasks[name]
        records = [own.Example.model_validate(record) for record in TOYS[MULTI[name]][1][:6]]
        gold[name] = own.score(records, list(several.part(name).predict_examples(records)))
        examples += [task.Example.of(name, record) for record in records]
    predictions = list(several.predict_examples(examples))
    scores = task.score(examples, task.settle(examples, predictions))
    values = scores.values()
    for name, own in gold.items():
        for metric, value in own.values().items():
            if not metric.startswith("label/"):
                assert values[f"{name}/{metric}"] == value
    primary = [values["entities/f1"], values["opinions/macro_f1"]]
    assert values["mean"] == pytest.approx(np.mean(primary))
    some = [0, 0, 3, 7, 11, 8]
    part = scores.subset(some).values()
    assert part["opinions/accuracy"] == gold["opinions"].subset([0, 0, 3]).values()["accuracy"]
    assert part["entities/f1"] == gold["entities"].subset([1, 5, 2]).values()["f1"]
    assert record_without_labels(TOYS["classification"][1][0])


def test_what_a_configuration_of_several_tasks_says(tmp_path: Path) -> None:
    from wenmai.config import MixingConfig, PartConfig
    from wenmai.config.pages import keys_of, starter
    from wenmai.config.space import axes
    from wenmai.errors import ConfigError

    def problems(text: str) -> list[str]:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as raised:
            load_config(path)
        return [str(problem).removeprefix(f"{path}: ") for problem in raised.value.problems]

    rest = "backbone: {model: x}\noutput: runs/x\n"
    found = problems(
        "tasks:\n  a:\n    task: {name: nerr}\n    data: {train: a.jsonl}\n"
        "  b:\n    task: {name: ner, haed: crf}\n    data: {train: b.jsonl, dve: c}\n    wieght: 2\n"
        "  c: {task: {name: ner}}\n  d: 3\n  e: {task: {name: ner}, data: {train: x}, weight: 0}\n"
        "mixing: {temperature: 0}\n" + rest
    )
    assert any(
        line.startswith("tasks.a.task.name: unknown task 'nerr'; did you mean 'ner'?") for line in found
    )
    assert any(line.startswith("tasks.b.task.haed: unknown key; did you mean 'head'?") for line in found)
    assert any(line.startswith("tasks.b.data.dve: unknown key; did you mean 'dev'?") for line in found)
    assert any(line.startswith("tasks.b.wieght: unknown key; did you mean 'weight'?") for line in found)
    assert any(line.startswith("tasks.c.data: missing") for line in found)
    assert any(line.startswith("tasks.d: expected a section") for line in found)
    assert any(line.startswith("tasks.e.weight: must be greater than 0") for line in found)
    assert any(line.startswith("mixing.temperature: must be greater than 0") for line in found)
    one = "{task: {name: ner}, data: {train: x, split: {dev: 0.1}, dev: y}}"
    assert any(
        "tasks.a.data.dev and tasks.a.data.split.dev exclude" in line
        for line in problems(f"tasks: {{a: {one}}}\n{rest}")
    )
    good = "{task: {name: ner}, data: {train: x}}"
    assert any(
        "exclude each other" in line
        for line in problems(f"task: {{name: ner}}\ntasks: {{a: {good}}}\n{rest}")
    )
    assert any("can't name a task" in line for line in problems(f"tasks: {{a/b: {good}}}\n{rest}"))
    assert any("PyTorch uses this name" in line for line in problems(f"tasks: {{train: {good}}}\n{rest}"))
    assert any(
        "mixing is for several tasks" in line
        for line in problems(f"task: {{name: ner}}\ndata: {{train: x}}\nmixing: {{}}\n{rest}")
    )
    space = "tune: {space: {tasks.a.weight: {low: 0.5, high: 2}, mixing.temperature: {choices: [1, 2]}, "
    several = tmp_path / "several.yaml"
    tuned = f"{space}tasks.a.task.max_length: {{low: 32, high: 64}}}}}}\n"
    several.write_text(f"tasks: {{a: {good}}}\nmixing: {{}}\n{tuned}{rest}", encoding="utf-8")
    assert [axis.whole for axis in axes(load_config(several))] == [False, False, True]
    for key in ("tasks.a.data.dev", "tasks.b.weight"):
        several.write_text(
            f"tasks: {{a: {good}}}\n{space}{key}: {{choices: [1, 2]}}}}}}\n{rest}", encoding="utf-8"
        )
        with pytest.raises(ConfigError, match=rf"tune.space.{key}|tasks.b"):
            axes(load_config(several))
    path = tmp_path / "start.yaml"
    text = starter("multi_task")
    assert all(f"{key.name}: {key.default}" in text for key in [*keys_of(PartConfig), *keys_of(MixingConfig)])
    path.write_text(text, encoding="utf-8")
    assert list(load_config(path, ["tasks.topics.data.train=mine.jsonl"]).tasks) == ["entities", "topics"]
