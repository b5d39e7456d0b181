"""The training loop, in full view.

An optimizer step is a set of examples, chosen by the plan. It goes through the model in one or several micro-batches,
whose loss SUMS add up; the gradients are divided once by the number of loss terms of the whole step. So accumulation
and memory settings never change a result. Every random draw is a function of (seed, epoch, step, sample): a run that
is killed and resumed ends bit for bit where the unbroken one does.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from wenmai.atomic import write_text
from wenmai.bundle import save_bundle
from wenmai.config import RunConfig, Steps, save_config
from wenmai.data.batching import Ints
from wenmai.errors import ConfigError, Problem, UserError
from wenmai.inference.engine import predictions
from wenmai.progress import SILENT, Progress
from wenmai.training.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from wenmai.training.gradients import accumulate
from wenmai.training.journal import Journal
from wenmai.training.loader import steps_from
from wenmai.training.optimizer import (
    build_optimizer,
    gradients_divided_by,
    schedule_factor,
    set_learning_rates,
    warmup_steps,
)
from wenmai.training.setup import Prepared, prepare, resolved_device, resolved_precision
from wenmai.training.stopping import Interrupted, StopRequest, listening

LEFT_BY_REFUSED_RUNS = {"cache", "rejects.jsonl"}
"""What a run leaves behind that ended before it began, because of its data: no reason to refuse the next."""


def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, progress: Progress = SILENT
) -> Path:
    """Trains a model and leaves a run folder: ``config.yaml``, ``log.jsonl``, ``checkpoint/``, ``bundle/``.

    Args:
        config: what to do.
        resume: go on from the run's checkpoint; without one, start.
        overwrite: throw an earlier run in the same folder away.

    Returns:
        the run folder, ``config.output``.

    Raises:
        UserError: the configuration or the data can't be used.
        Interrupted: a signal asked to stop; the state is saved.
    """
    run = Path(config.output)
    device = resolved_device(config.device)
    precision = resolved_precision(config.precision, device)
    open_run_folder(run, resume=resume, overwrite=overwrite)
    work = prepare(config, progress)
    write_text(
        run / "known.json", json.dumps(sorted(work.task.inventory(work.data["train"])), ensure_ascii=False)
    )
    save_config(config, run / "config.yaml")

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision
    )
    model, optimizer = accelerator.prepare(work.model, build_optimizer(work.model, config.train))
    state = TrainState()
    if resume and has_checkpoint(run / "checkpoint"):
        state = load_checkpoint(run / "checkpoint", work.model, optimizer, work.fingerprint)

    total = work.total_steps
    warmup = warmup_steps(config.train.warmup_steps, total)
    evaluate_at = moments(config.train.eval_steps, work.epoch_steps) if "dev" in work.data else set()
    save_at = moments(config.train.save_steps or config.train.eval_steps, work.epoch_steps)
    journal = Journal(
        run, step=state.step, evaluated=state.evaluated, tensorboard="tensorboard" in config.trackers
    )
    model.train()
    with listening() as stop, progress.task("training", total, "steps") as bar:
        bar.advance(state.step)
        clock = time.perf_counter()
        upcoming = steps_from(
            work.plan,
            work.maker,
            work.epoch_steps,
            work.position(state.step),
            num_workers=config.train.num_workers,
        )
        while not state.finished:
            if state.step in save_at:
                # before the evaluation, which may take longer than what it would lose
                save_checkpoint(run / "checkpoint", work.model, optimizer, state, work.fingerprint)
            if state.step in evaluate_at and state.evaluated < state.step:
                evaluate(config, work, state, journal, run, stop)
            ended = state.step >= total or patience_is_over(config, state)
            if ended and not evaluate_at:
                save_bundle(run / "bundle", work.task, work.model, work.tokenizer)
            stopping = bool(stop)  # asked once: a signal may come at any moment
            if ended or stopping:
                state.finished = ended and not stopping
                save_checkpoint(run / "checkpoint", work.model, optimizer, state, work.fingerprint)
            if stopping:
                journal.close()
                raise Interrupted(
                    stop.signum or 0, f"stopped after step {state.step} of {total}; go on with --resume"
                )
            if ended:
                break

            epoch, step, batches = next(upcoming)
            rates = set_learning_rates(
                optimizer, schedule_factor(config.train.schedule, state.step, total=total, warmup=warmup)
            )
            seeds = [dropout_seed(config.seed, state.step, part) for part in range(len(batches))]
            on_device = [
                {key: value.to(accelerator.device) for key, value in batch.items()} for batch in batches
            ]
            loss, terms = accumulate(model, work.model.head, on_device, seeds, accelerator.backward)
            gradients_divided_by(work.model.parameters(), terms)
            norm = clipped(accelerator, work.model, config.train.max_grad_norm)
            refuse_not_finite(loss, norm, state.step, work, step, precision)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            state.step += 1
            state.tokens += work.plan.tokens(step)
            add_to_window(state, loss=loss, terms=terms, norm=norm, work=work, step=step)
            if state.step % config.train.logging_steps == 0 or state.step == total:
                now = time.perf_counter()
                values = window_values(state, epoch, rates, now - clock)
                clock = now
                journal.write("train", state.step, values)
                bar.advance(
                    0, loss=f"{values['loss']:.4f}", tokens_per_second=f"{values['tokens_per_second']:.0f}"
                )
            bar.advance(1, **shown_metric(work, state))
    journal.close()
    shutil.rmtree(run / "cache", ignore_errors=True)
    return run


def evaluate(
    config: RunConfig, work: Prepared, state: TrainState, journal: Journal, run: Path, stop: StopRequest
) -> None:
    """Scores the dev set, writes it down and keeps the best model; leaves early when asked to stop."""
    examples = evenly_spread(work.data["dev"], config.train.eval_examples)
    found = []
    for prediction in predictions(work.model, work.task, work.tokenizer, examples):
        if stop:
            return
        found.append(prediction)
    metrics = work.task.score(examples, found).values()
    primary = config.train.metric_for_best_model or work.task.primary_metric
    if primary not in metrics:
        raise ConfigError(
            "the configuration can't be used:",
            [Problem("train.metric_for_best_model", f"{primary!r} is none of the metrics {sorted(metrics)}")],
        )
    value = metrics[primary]
    best = state.best_metric is None or value > state.best_metric
    if best:
        save_bundle(run / "bundle", work.task, work.model, work.tokenizer)
        state.best_metric, state.best_step, state.without_gain = value, state.step, 0
    else:
        state.without_gain += 1
    state.evaluated = state.step
    overall = {key: metric for key, metric in metrics.items() if not key.startswith("label/")}
    journal.write("eval", state.step, {"metrics": overall, "primary_metric": primary, "best": best})


def evenly_spread(examples: Sequence[Any], most: int | None) -> list[Any]:
    """At most so many of the examples, from everywhere in the file and always the same ones."""
    if most is None or most >= len(examples):
        return list(examples)
    return [examples[i * len(examples) // most] for i in range(most)]


def patience_is_over(config: RunConfig, state: TrainState) -> bool:
    patience = config.train.early_stopping_patience
    return patience is not None and state.without_gain >= patience


def open_run_folder(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Makes the folder, or refuses to mix two runs in one."""
    if run.exists() and not run.is_dir():
        raise UserError(f"{run}: is a file, the run needs a folder of this name: set output to another one")
    if run.is_dir() and not resume and {path.name for path in run.iterdir()} - LEFT_BY_REFUSED_RUNS:
        if not overwrite:
            raise UserError(
                f"{run}: holds an earlier run: go on with --resume, replace it with --overwrite, or set output"
            )
        if not (run / "config.yaml").is_file():
            raise UserError(f"{run}: holds files but no run of ours, --overwrite leaves it alone: set output")
        shutil.rmtree(run)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run}: can't be made: {error.strerror}; set output to another folder") from error


def moments(every: Steps | None, epoch_steps: list[int]) -> set[int]:
    """The steps after which something is due: every so many, or at the end of every epoch; always the last."""
    total = sum(epoch_steps)
    if every is None:
        return set(np.cumsum(epoch_steps).tolist())
    interval = max(1, round(every * total) if every < 1 else int(every))
    return set(range(interval, total, interval)) | {total}


def dropout_seed(seed: int, step: int, part: int) -> int:
    """A seed for the dropout of one micro-batch, unrelated to its neighbours'."""
    return int(np.random.SeedSequence([seed, 1, step, part]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def clipped(accelerator: Accelerator, model: torch.nn.Module, most: float | None) -> float:
    """The norm of all gradients before they are scaled down to at most ``most``."""
    return float(accelerator.clip_grad_norm_(model.parameters(), math.inf if most is None else most))


def refuse_not_finite(
    loss: float, norm: float, step: int, work: Prepared, units: Ints, precision: str
) -> None:
    if math.isfinite(loss) and (math.isfinite(norm) or precision == "fp16"):
        return
    places = [work.data["train"].place(int(work.plan.units.example_N[unit])) for unit in units.tolist()]
    raise UserError(
        f"step {step + 1}: the loss is {loss} and the gradient norm {norm}, so the model can't learn on. "
        f"The step's examples: {', '.join(places[:20])}{' ...' if len(places) > 20 else ''}. "
        "Lower train.learning_rate, lengthen train.warmup_steps, or look at these examples"
    )


def add_to_window(
    state: TrainState, *, loss: float, terms: int, norm: float, work: Prepared, step: Ints
) -> None:
    """Adds a step to the sums that the next line of the log is made of."""
    added = {
        "loss": loss,
        "terms": terms,
        "norm": norm,
        "steps": 1,
        "tokens": work.plan.tokens(step),
        "padded": work.plan.padded_tokens(step),
    }
    state.window = {key: state.window.get(key, 0) + value for key, value in added.items()}


def window_values(state: TrainState, epoch: int, rates: dict[str, float], seconds: float) -> dict[str, Any]:
    window, state.window = state.window, {}
    return {
        "epoch": epoch,
        "loss": window["loss"] / max(1, window["terms"]),
        "learning_rate": max(rates.values()),
        "learning_rates": rates,
        "grad_norm": window["norm"] / window["steps"],
        "tokens": state.tokens,
        "padding": round(1 - window["tokens"] / window["padded"], 6),
        "tokens_per_second": round(window["tokens"] / max(1e-9, seconds), 1),
    }


def shown_metric(work: Prepared, state: TrainState) -> dict[str, str]:
    if state.best_metric is None:
        return {}
    return {f"best_{work.task.primary_metric}": f"{state.best_metric:.4f}"}
