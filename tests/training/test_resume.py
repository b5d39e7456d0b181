"""A run that is stopped at any step and resumed ends bit for bit like the unbroken one."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from own_process import Command
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.training import trainer
from wenmai.training.journal import TIMES, read_log
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import train


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def fingerprint(run: Path) -> tuple[Any, ...]:
    """Final weights, best weights and everything in the log but the clock."""
    log = [{k: v for k, v in event.items() if k not in TIMES} for event in read_log(run / "log.jsonl")]
    files = [run / "checkpoint" / "model.safetensors", run / "bundle" / "model.safetensors"]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files], log


class _StopAfter:
    """Asks for a stop after a number of steps, as a signal would."""

    signum: int | None = None

    def __init__(self, polls: int):
        self.left = polls

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.signum = signal.SIGTERM
        return self.signum is not None


def train_with_stops(config: Any, polls: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    from contextlib import contextmanager

    stops = 0
    while True:

        @contextmanager
        def listening() -> Any:
            yield _StopAfter(polls)

        monkeypatch.setattr(trainer, "listening", listening)
        try:
            run = train(config, resume=stops > 0)
            assert stops >= 2, "stop in the middle more than once"
            return run
        except Interrupted:
            stops += 1
            assert stops < 200


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("ner-crf", {"epochs": 6, "tokens_per_step": 160, "logging_steps": 3}),
    ("masked-lm", {"epochs": 6, "tokens_per_step": 160, "tokens_per_micro_batch": 90, "eval_steps": 12}),
    ("masked-lm", {"epochs": 5, "examples_per_step": 4, "num_workers": 2}),
    (
        "embedding",
        {"epochs": 12, "examples_per_step": 8, "examples_per_micro_batch": 3, "early_stopping_patience": 8},
    ),
]


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=lambda n: f"{SETTINGS[n][0]}-{n}")
@pytest.mark.parametrize("polls", [41])
def test_stopped_again_and_again(
    number: int, polls: int, tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings = SETTINGS[number]
    unbroken = toy_config(tmp_path / "a", name, backbone, **_sized(settings))
    broken = toy_config(tmp_path / "b", name, backbone, **_sized(settings))
    shutil.copy(tmp_path / "a" / "data.jsonl", tmp_path / "data.jsonl")
    shared = str(tmp_path / "data.jsonl")
    unbroken = with_data(unbroken, shared)
    broken = with_data(broken, shared)
    assert fingerprint(train(unbroken)) == fingerprint(train_with_stops(broken, polls, monkeypatch))


def _sized(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, **({"examples_per_step": None} if "tokens_per_step" in settings else {})}


def with_data(config: Any, path: str) -> Any:
    data = config.data.model_copy(
        update={"train": config.data.train.model_copy(update={"path": path}),
                "dev": config.data.dev.model_copy(update={"path": path})}
    )  # fmt: skip
    return config.model_copy(update={"data": data})


def test_killed_process(tmp_path: Path, backbone: Path) -> None:
    """SIGKILL in the middle of a real process, wherever it happens to be; then --resume."""
    settings = {
        "epochs": 6,
        "tokens_per_step": 160,
        "examples_per_step": None,
        "save_steps": 2,
        "eval_steps": 4,
    }
    shared = str(tmp_path / "data.jsonl")
    configs = {}
    for name in ("a", "b"):
        configs[name] = with_data(toy_config(tmp_path / name, "ner-crf", backbone, **settings), shared)
        shutil.copy(tmp_path / name / "data.jsonl", shared)
        (tmp_path / f"{name}.json").write_text(configs[name].model_dump_json(), encoding="utf-8")
    expected = fingerprint(train(configs["a"]))

    killed = 0
    for wait in (4, 13, 10_000):
        command = Command("train", str(tmp_path / "b.json"), "--resume", folder=tmp_path)
        state = tmp_path / "b" / "run" / "checkpoint" / "state.json"
        end = time.monotonic() + 60
        while command.running and time.monotonic() < end:
            if step_of(state) >= wait:
                command.send(signal.SIGKILL)
                killed += 1
            time.sleep(0.005)
        code = command.wait()
    assert killed >= 1
    assert code == 0, command.err
    assert fingerprint(tmp_path / "b" / "run") == expected


def step_of(state: Path) -> int:
    try:
        return int(json.loads(state.read_text(encoding="utf-8"))["state"]["step"])
    except (OSError, ValueError):
        return 0
