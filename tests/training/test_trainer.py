"""The loop: what it writes, when it stops, what it refuses."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from own_process import Command
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.config import changed
from wenmai.errors import UserError
from wenmai.inference.predictor import load
from wenmai.training import stopping, trainer
from wenmai.training.journal import read_log
from wenmai.training.optimizer import parameter_groups
from wenmai.training.setup import prepare
from wenmai.training.trainer import moments, train


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def test_moments() -> None:
    assert moments(None, [4, 4, 3]) == {4, 8, 11}
    assert moments(5, [4, 4, 3]) == {5, 10, 11}
    assert moments(0.5, [4, 4, 3]) == {6, 11}


def test_groups_cover_every_parameter_once(tmp_path: Path, backbone: Path) -> None:
    from wenmai.progress import SILENT

    config = toy_config(tmp_path, "ner-crf", backbone, head_learning_rate=0.5)
    model = prepare(config, SILENT).model
    groups = parameter_groups(model, config.train)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert rates["head.decay"] == (0.5, 0.01)
    assert rates["backbone.no_decay"] == (3e-3, 0.0)


def test_run_folder_holds_all_that_was_promised(tmp_path: Path, backbone: Path) -> None:
    run = train(toy_config(tmp_path, "ner-crf", backbone, epochs=2, logging_steps=2))
    log = read_log(run / "log.jsonl")
    steps = [event["step"] for event in log if event["event"] == "train"]
    assert steps == sorted(set(steps)) and steps[0] == 2
    assert all(
        math.isfinite(event["loss"]) and event["padding"] < 0.6 for event in log if event["event"] == "train"
    )
    assert [event["step"] for event in log if event["event"] == "eval"] == [steps[-1] // 2, steps[-1]]
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "log.jsonl",
        "known.json",
        "checkpoint",
        "bundle",
    }
    assert "人名\t王小明" in json.loads((run / "known.json").read_text(encoding="utf-8"))
    assert not (run / "cache").exists()


def test_same_configuration_same_weights(tmp_path: Path, backbone: Path) -> None:
    def weights(name: str, **train_keys: object) -> str:
        run = train(toy_config(tmp_path / name, "classification", backbone, epochs=1, **train_keys))
        return hashlib.sha256((run / "bundle" / "model.safetensors").read_bytes()).hexdigest()

    assert weights("a") == weights("b") == weights("c", num_workers=2)
    assert weights("a2", learning_rate=1e-3) != weights("b2")


def test_a_run_that_ended_holds_no_memory(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several seeds or trials in one process. Python looks for circles so seldom that several models pile up."""
    held: list[weakref.ref[Any]] = []

    def remembered(*given: Any) -> Any:
        work = prepare(*given)
        held.extend(weakref.ref(part) for part in (work.model, *work.model.parameters(), work.tokenizer))
        return work

    monkeypatch.setattr(trainer, "prepare", remembered)
    config = toy_config(
        tmp_path, "matching", backbone, max_steps=2, gradient_checkpointing=True, ema_decay=0.9
    )
    gc.disable()
    try:
        train(config)
        assert held and not any(part() is not None for part in held)
    finally:
        gc.enable()


def test_best_model_is_kept_and_patience_ends_training(tmp_path: Path, backbone: Path) -> None:
    # a rate that is soon too high makes the metric fall again
    config = toy_config(
        tmp_path,
        "classification",
        backbone,
        epochs=60,
        learning_rate=0.02,
        eval_steps=3,
        early_stopping_patience=4,
    )
    run = train(config)
    evaluations = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
    values = [event["metrics"]["accuracy"] for event in evaluations]
    best = values.index(max(values))
    assert len(values) - 1 - best == 4, values
    assert [event["best"] for event in evaluations][best]
    predictor = load(run)
    records = [
        json.loads(line) for line in (tmp_path / "data.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    found = predictor([record["text"] for record in records])
    accuracy = sum(p["label"] == r["label"] for p, r in zip(found, records, strict=True)) / len(records)
    assert accuracy == pytest.approx(max(values))


def test_token_budget_ends_training(tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "ner-crf", backbone, epochs=50, max_tokens=2000)
    log = read_log(train(config) / "log.jsonl")
    last = [event for event in log if event["event"] == "train"][-1]
    assert 2000 <= last["tokens"] < 2000 + 8 * 64


def test_an_earlier_run_is_not_mixed_up(tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "matching", backbone, epochs=1)
    train(config)
    with pytest.raises(UserError, match=r"--resume.*--overwrite"):
        train(config)
    train(config, overwrite=True)
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(UserError, match="another configuration"):
        train(other, resume=True)


def test_a_run_does_not_go_on_with_another_dev_set(tmp_path: Path, backbone: Path) -> None:
    """Or the best score on the one would be compared with scores on the other."""
    config = toy_config(tmp_path, "matching", backbone, max_steps=1)
    lines = (tmp_path / "data.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(lines), encoding="utf-8")
    config = changed(config, {"data.dev": str(dev)})
    train(config)
    train(config, resume=True)
    dev.write_text("".join(lines[1:]), encoding="utf-8")
    with pytest.raises(UserError, match="from other data"):
        train(config, resume=True)


def test_overwrite_leaves_strange_folders_alone(tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "matching", backbone)
    precious = Path(config.output) / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("ten years")
    with pytest.raises(UserError, match="no run of ours"):
        train(config, overwrite=True)
    assert precious.read_text() == "ten years"


def test_infinite_loss_stops_with_the_examples(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    monkeypatch.setattr(trainer.Journal, "close", lambda self: closed.append(self.path))
    config = toy_config(tmp_path, "matching-regression", backbone, epochs=1)
    data = Path(tmp_path / "data.jsonl")
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    rows[3]["label"] = 1e30
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"step \d+: the loss is .*data\.jsonl:4"):
        train(config)
    assert closed == [Path(config.output) / "log.jsonl"], "trackers are told that the run is over"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_leave(signum: int, code: int, tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "ner-crf", backbone, epochs=400, eval_steps=1000)
    path = tmp_path / "run.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    command = Command("train", str(path), folder=tmp_path)
    log = Path(config.output) / "log.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.is_file() and '"train"' in log.read_text(encoding="utf-8")):
        time.sleep(0.05)
    command.send(signum)
    assert command.wait() == code, command.err
    assert "go on with --resume" in command.err
    assert "Traceback" not in command.err
    state = json.loads((Path(config.output) / "checkpoint" / "state.json").read_text())["state"]
    assert state["step"] >= 10 and not state["finished"]


def test_dropout_is_on_in_training_only(tmp_path: Path, backbone: Path) -> None:
    run = train(toy_config(tmp_path, "classification", backbone, epochs=1))
    predictor = load(run)
    assert not any(module.training for module in predictor.model.modules())
    assert predictor("很好") == predictor("很好")
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in predictor.model.modules())


def test_a_signal_that_got_lost_before_the_loop_still_stops_it(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Ctrl-C is raised inside a destructor, which swallows it."""
    monkeypatch.setattr(stopping, "EARLIER", [signal.SIGINT])
    config = toy_config(tmp_path, "classification", backbone)
    with pytest.raises(stopping.Interrupted) as stopped:
        train(config)
    assert stopped.value.signum == signal.SIGINT
    monkeypatch.setattr(stopping, "EARLIER", [])
    assert (train(config, resume=True) / "bundle" / "wenmai.json").is_file()
