"""Runs wenmai's training loop, as ``wenmai train`` does: ``python -m peers.ours JOB.json RESULT.json``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers.measure import (
    START_ROWS,
    WARM_UP_STEPS,
    Job,
    Timer,
    heldout_loss,
    main,
    peak_memory_mb,
    result,
)
from peers.workload import wenmai_config
from wenmai.bundle import load_bundle
from wenmai.config import RunConfig
from wenmai.tasks.model import Model
from wenmai.training.journal import read_log
from wenmai.training.setup import prepare
from wenmai.training.trainer import train


class TimedSteps:
    """A progress display that shows nothing and times the steps: from entering the loop to the last step done."""

    def __init__(self, timer: Timer):
        self.timer = timer

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        yield _Steps(self.timer) if name == "training" else _Steps(None)


class _Steps:
    def __init__(self, timer: Timer | None):
        self.timer = timer
        if timer is not None:
            timer.start()

    def advance(self, count: int = 1, **shown: str) -> None:
        if self.timer is not None and count:
            self.timer.steps += count
            self.timer.stop()


def run(job: Job) -> dict[str, Any]:
    output = Path(job.output)
    timer = Timer(job.device)
    train(configuration(job, output / "warm-up", max_steps=WARM_UP_STEPS))
    folder = train(configuration(job, output / "run"), progress=TimedSteps(timer))
    memory = peak_memory_mb(job.device)
    log = [event for event in read_log(folder / "log.jsonl") if event["event"] == "train"]
    tokens = [0, *(event["tokens"] for event in log)]
    computed = sum(
        (now - before) / (1 - event["padding"])
        for before, now, event in zip(tokens, tokens[1:], log, strict=False)
    )
    phases: dict[str, float] = {}
    for event in log:
        for phase, seconds in event["seconds"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    rows = job.rows("heldout")
    first = prepare(configuration(job, output / "first")).model
    return result(
        timer,
        tokens=tokens[-1],
        computed=round(computed),
        steps=timer.steps,
        memory_mb=memory,
        loss_before=heldout_loss(logits_of(first), rows[:START_ROWS], "cpu"),
        loss_after=heldout_loss(logits_of(load_bundle(folder / "bundle").model), rows, "cpu"),
        phases=phases,
    )


def configuration(job: Job, output: Path, **more: Any) -> RunConfig:
    budget = job.tokens_per_step is not None
    config = wenmai_config(
        Path(job.folder),
        output,
        seed=job.seed,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_grad_norm,
        warmup_steps=0,
        padding_free=job.padding_free,
        tokens_per_step=job.tokens_per_step,
        examples_per_step=None if budget else job.examples_per_step,
        **more,
    )
    return config.model_copy(update={"device": job.device, "precision": job.precision})


def logits_of(model: Model) -> Any:
    model.eval()
    return lambda inputs: model(inputs)["logits"]


if __name__ == "__main__":
    main(run)
