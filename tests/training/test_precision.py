"""What a run computes in: which precisions there are, and that loss scaling survives a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.config import RunConfig, save_config
from wenmai.errors import UserError
from wenmai.inference.predictor import load
from wenmai.progress import SILENT
from wenmai.training.journal import read_log
from wenmai.training.machine import Machine, open_machine
from wenmai.training.parallel import ALONE
from wenmai.training.setup import prepare
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import learn, train


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def test_bf16_trains(tmp_path: Path, backbone: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        config = toy_config(tmp_path / precision, "classification", backbone, epochs=8, logging_steps=1)
        run = train(config.model_copy(update={"precision": precision}))
        losses[precision] = [e["loss"] for e in read_log(run / "log.jsonl") if e["event"] == "train"]
        weights = load_file(run / "bundle" / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.02)
    assert losses["bf16"][-1] < 0.6 * losses["bf16"][0]
    assert load(tmp_path / "bf16" / "run")(["很好，这家店我会说很好。"])[0]["label"] == "好评"


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="precision: fp16 needs a GPU"), open_machine("cpu", "fp16"):
        pass
    with open_machine("cpu", "auto") as machine:
        assert machine.precision == "fp32" and not machine.scaler.is_enabled()


def fp16_machine(scale: float) -> Machine:
    """fp16 as on a GPU, with a scale to begin with that soon grows."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=4)
    return Machine(torch.device("cpu"), "fp16", ALONE, scaler)


def learn_in_fp16(
    config: RunConfig, scale: float, *, resume: bool = False, stop_at: int | None = None
) -> float:
    """Trains, or goes on; returns the scale at the end."""

    def strike(step: int, metric: float) -> bool:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    run, machine = Path(config.output), fp16_machine(scale)
    run.mkdir(parents=True, exist_ok=True)
    save_config(config, run / "config.yaml")
    learn(config, prepare(config), machine, resume, SILENT, strike)
    return machine.scaler.get_scale()


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in read_log(run / "log.jsonl") if line["event"] == "train"]


def test_scaled_losses_teach_the_same(tmp_path: Path, backbone: Path) -> None:
    settings = {"epochs": 4, "logging_steps": 1, "max_grad_norm": 0.5}
    whole = train(toy_config(tmp_path / "fp32", "classification", backbone, **settings))
    half = toy_config(tmp_path / "fp16", "classification", backbone, **settings)
    assert learn_in_fp16(half, 64.0) > 64.0
    assert losses_of(Path(half.output)) == pytest.approx(losses_of(whole), rel=0.02)
    norms = [
        [e["grad_norm"] for e in read_log(run / "log.jsonl") if e["event"] == "train"]
        for run in (whole, Path(half.output))
    ]
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


def test_loss_scale_survives_a_stop(tmp_path: Path, backbone: Path) -> None:
    """The scale is too high at first: steps whose gradients overflow are left out."""
    settings = {"epochs": 12, "logging_steps": 1, "eval_steps": 7}
    unbroken = toy_config(tmp_path / "unbroken", "classification", backbone, **settings)
    broken = toy_config(tmp_path / "broken", "classification", backbone, **settings)
    scale = learn_in_fp16(unbroken, 2.0**40)
    with pytest.raises(Interrupted):
        learn_in_fp16(broken, 2.0**40, stop_at=35)
    state = json.loads((tmp_path / "broken" / "run" / "checkpoint" / "state.json").read_text())["state"]
    assert state["step"] == 35 and 0 < state["scaler"]["scale"] < 2.0**40
    assert learn_in_fp16(broken, 2.0**40, resume=True) == scale
    ends = [
        load_file(tmp_path / name / "run" / "checkpoint" / "model.safetensors")
        for name in ("unbroken", "broken")
    ]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert losses_of(tmp_path / "unbroken" / "run") == losses_of(tmp_path / "broken" / "run")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    log = (tmp_path / "unbroken" / "run" / "log.jsonl").read_text().splitlines()
    lines = [
        line for line in (json.loads(one, parse_constant=refuse) for one in log) if line["event"] == "train"
    ]
    overflowed = [line for line in lines if "overflowed_steps" in line]
    assert overflowed and overflowed[0] is lines[0] and len(overflowed) < len(lines)
    assert all(line["grad_norm"] is None for line in overflowed)
