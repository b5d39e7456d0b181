"""Proof on the user's own configuration: a short run that is killed and resumed ends like one that is not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from wenmai.config import RunConfig, save_config
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress
from wenmai.training.journal import TIMES, read_log

COMPARED = {
    "weights": "checkpoint/model.safetensors",
    "optimizer": "checkpoint/optimizer.safetensors",
    "averaged weights": "checkpoint/average.safetensors",
    "best model": "bundle/model.safetensors",
}
LOOK_EVERY = 0.002
EVALUATED = 64


@dataclass(frozen=True)
class Verification:
    """What became of the two runs.

    Args:
        steps: of each run.
        killed_after: the steps that were saved when the run was killed.
        identical: per thing compared, whether the two runs left the same, to the bit.
    """

    steps: int
    killed_after: list[int]
    identical: dict[str, bool]

    @property
    def exact(self) -> bool:
        return all(self.identical.values())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "exact": self.exact}


def verify_resume(
    config: RunConfig, *, steps: int = 20, kills: int = 3, seed: int = 0, progress: Progress = SILENT
) -> Verification:
    """Trains twice for a few steps, killing the second run (SIGKILL) at random moments and resuming it.

    Both runs save after every step, and evaluate on a few dev examples in the middle and at the end. The
    configuration is otherwise the user's own, and its output folder is left alone.

    Args:
        steps: of each run.
        kills: how often the second run is killed.
        seed: of the moments.

    Raises:
        UserError: the configuration can't be trained.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="wenmai-verify-") as name:
        runs = {kind: Path(name) / kind for kind in ("unbroken", "killed")}
        files = {kind: _short(config, run, steps) for kind, run in runs.items()}
        killed_after: list[int] = []
        with progress.task("training and killing", kills + 2, "runs") as bar:
            _train(files["unbroken"])
            bar.advance()
            for at in sorted(rng.sample(range(1, steps), min(kills, steps - 1))):
                _train(files["killed"], kill=(runs["killed"], at, rng.random()))
                killed_after.append(saved_step(runs["killed"]))
                bar.advance()
            _train(files["killed"])
            bar.advance()
        return Verification(steps, killed_after, compared(runs["unbroken"], runs["killed"]))


def compared(one: Path, other: Path) -> dict[str, bool]:
    """What two run folders hold, and whether it is the same to the bit; of the log all but times."""
    same = {
        what: _digest(one / file) == _digest(other / file)
        for what, file in COMPARED.items()
        if (one / file).is_file() or (other / file).is_file()
    }
    return {**same, "log": timeless_log(one) == timeless_log(other)}


def timeless_log(run: Path) -> list[dict[str, Any]]:
    """The events of a run without what differs from run to run."""
    return [
        {key: value for key, value in event.items() if key not in TIMES}
        for event in read_log(run / "log.jsonl")
        if event["event"] != "workers"
    ]


def saved_step(run: Path) -> int:
    """The step of the run's checkpoint; 0 without one."""
    try:
        content = json.loads((run / "checkpoint" / "state.json").read_text(encoding="utf-8"))
        return int(content["state"]["step"])
    except (OSError, ValueError):
        return 0


def _short(config: RunConfig, run: Path, steps: int) -> Path:
    """The configuration of a short run in this folder, as a file."""
    train = config.train.model_copy(
        update={
            "max_steps": steps,
            "save_steps": 1,
            "logging_steps": 1,
            "eval_steps": 0.5,
            "eval_examples": min(EVALUATED, config.train.eval_examples or EVALUATED),
            "seeds": [],
        }
    )
    file = run.with_suffix(".yaml")
    save_config(config.model_copy(update={"train": train, "output": str(run), "trackers": []}), file)
    return file


def _train(file: Path, kill: tuple[Path, int, float] | None = None) -> None:
    """Trains in a process of its own.

    Args:
        kill: run folder, step and part of a step: kill the process when so much of the run is saved.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "wenmai", "train", str(file), "--resume", "--no-evaluate"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "RANK": "0", "WORLD_SIZE": "1"},
    )
    if kill is not None:
        _kill_at(process, *kill)
    _, error = process.communicate()
    if process.returncode and kill is None:
        raise UserError(f"the run can't be verified: {error.decode(errors='replace').strip()}")


def _kill_at(process: subprocess.Popen[bytes], run: Path, step: int, part: float) -> None:
    """Waits until the step is saved, then for a part of the time that a step takes, then kills."""
    seen: list[float] = []
    last = -1
    while process.poll() is None:
        now = saved_step(run)
        if now != last:
            last = now
            seen.append(time.monotonic())
        if now >= step:
            time.sleep(part * _typical(seen))
            process.kill()
            return
        time.sleep(LOOK_EVERY)


def _typical(moments: Sequence[float]) -> float:
    gaps = sorted(later - earlier for earlier, later in pairwise(moments[1:]))
    return gaps[len(gaps) // 2] if gaps else 0.05


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
