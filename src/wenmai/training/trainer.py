"""The training loop, in full view.

An optimizer step is a set of examples, chosen by the plan. It goes through the model in one or several micro-batches,
in one or several processes, whose loss SUMS add up; the gradients are divided once by the number of loss terms of the
whole step. So accumulation, memory settings and the number of processes never change a result. Every random draw is a
function of (seed, epoch, step, sample): a run that is killed and resumed ends bit for bit where the unbroken one does.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from wenmai.atomic import clear_unfinished, write_text
from wenmai.bundle import save_bundle
from wenmai.config import RunConfig, Steps, config_tree, save_config
from wenmai.data.batching import Ints
from wenmai.data.rows import Batch
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress
from wenmai.tasks.model import Model
from wenmai.training.adversarial import build_adversary
from wenmai.training.averaging import Average, build_average
from wenmai.training.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from wenmai.training.clock import Clock
from wenmai.training.fitting import fit_head
from wenmai.training.freezing import apply_unfreezing
from wenmai.training.gradients import Step
from wenmai.training.journal import Journal, read_log
from wenmai.training.loader import dead_workers_told
from wenmai.training.machine import Machine, open_machine
from wenmai.training.optimizer import build_optimizer, finish_gradients, set_learning_rates
from wenmai.training.restrictions import refuse_unshareable
from wenmai.training.schedules import learning_rate_factor
from wenmai.training.selection import dev_metrics, note_metrics, patience_is_over
from wenmai.training.setup import Prepared, prepare
from wenmai.training.sharding import gathered, shard
from wenmai.training.stopping import Interrupted, listening
from wenmai.training.task_data import REJECTS
from wenmai.training.workers import upcoming_steps
from wenmai.training.zero import ZeroOptimizer

LEFT_BY_REFUSED_RUNS = {"cache", "rejects.jsonl", REJECTS}
"""What a run leaves behind that ended before it began, because of its data: no reason to refuse the next."""

TASK_LOSS, TASK_STEPS = "loss/", "steps/"
"""Before the name of a task, in the sums that the next line of the log is made of."""

OnEvaluation = Callable[[int, float], bool]
"""Told the step and the metric of every evaluation; True ends the run there, as patience would."""


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
    on_evaluation: OnEvaluation | None = None,
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
    with open_machine(config.device, config.precision) as machine:
        refuse_unshareable(config, machine.precision, machine.parallel)
        if machine.parallel.first:
            open_run_folder(run, resume=resume, overwrite=overwrite)
        machine.parallel.wait()
        work = prepare(config, progress, machine.parallel)
        work.model.to(machine.device)
        if machine.parallel.first:
            inventory = sorted(work.task.inventory(work.data["train"]))
            write_text(run / "known.json", json.dumps(inventory, ensure_ascii=False))
            save_config(config, run / "config.yaml")
        with dead_workers_told():
            learn(config, work, machine, resume, progress, on_evaluation)
        if machine.parallel.first:
            shutil.rmtree(run / "cache", ignore_errors=True)
    return run


def learn(
    config: RunConfig,
    work: Prepared,
    machine: Machine,
    resume: bool,
    progress: Progress,
    on_evaluation: OnEvaluation | None,
) -> None:
    """The loop itself; see :func:`train`."""
    run, settings, model, parallel = Path(config.output), config.train, work.model, machine.parallel
    total = work.total_steps
    shares_out = settings.parallel != "ddp"
    empty = shard(model, parallel) if settings.parallel == "fsdp" else None
    optimizer = build_optimizer(model, settings)
    zero = ZeroOptimizer(model, optimizer, parallel) if settings.parallel == "deepspeed" else None
    optimizer = zero or optimizer
    average = build_average(model, settings, total)
    adversary = None if settings.adversarial is None else build_adversary(settings.adversarial, model)
    state = TrainState()
    if resume and parallel.largest(parallel.first and has_checkpoint(run / "checkpoint")):
        state = load_checkpoint(run / "checkpoint", model, optimizer, average, work.fingerprint)
        machine.scaler.load_state_dict(state.scaler)

    evaluate_at = moments(settings.eval_steps, work.epoch_steps) if "dev" in work.data else set()
    save_at = moments(settings.save_steps or settings.eval_steps, work.epoch_steps)
    journal = Journal(
        run,
        step=state.step,
        evaluated=state.evaluated,
        trackers=config.trackers,
        settings=config_tree(config),
        silent=not parallel.first,
    )

    def save() -> None:
        if parallel.first or shares_out:
            state.scaler = machine.scaler.state_dict()
            save_checkpoint(
                run / "checkpoint", model, optimizer, average, state, work.fingerprint, write=parallel.first
            )

    def keep() -> None:
        with nullcontext(model) if empty is None else gathered(empty, model, parallel) as whole:
            if parallel.first:
                save_bundle(run / "bundle", work.task, whole, work.tokenizer)

    if not any(event["event"] == "model" for event in read_log(journal.path)):
        journal.write("model", 0, parameter_counts(model))
    model.train()
    pruned = False
    with closing(journal), listening() as stop, progress.task("training", total, "steps") as bar:
        bar.advance(state.step)
        clock = Clock()
        upcoming = upcoming_steps(work, settings.num_workers, state.step, machine, journal)
        while not state.finished:
            if state.step in save_at:
                # before the evaluation, which may take longer than what it would lose
                save()
                clock("saving")
            if state.step in evaluate_at and state.evaluated < state.step:
                with averaged(average):
                    fit_head(work)
                    metrics = dev_metrics(
                        work,
                        settings.eval_examples,
                        parallel,
                        stopped=lambda: bool(stop),
                        together=empty is not None,
                    )
                    if metrics is not None:
                        primary, best = note_metrics(metrics, settings, work.task.primary_metric, state)
                        if best:
                            keep()
                        shown = {key: value for key, value in metrics.items() if not key.startswith("label/")}
                        journal.write(
                            "eval", state.step, {"metrics": shown, "primary_metric": primary, "best": best}
                        )
                        pruned = bool(on_evaluation and on_evaluation(state.step, metrics[primary]))
                clock("evaluation")
            ended = state.step >= total or pruned or patience_is_over(settings, state)
            if ended and not evaluate_at:
                with averaged(average):
                    fit_head(work)
                    keep()
            # asked once: a signal may come at any moment, and to any of the processes
            signum = parallel.largest(stop.signum or 0 if stop else 0)
            if ended or signum:
                state.finished = ended and not signum
                save()
                parallel.wait()
            if signum:
                raise Interrupted(signum, f"stopped after step {state.step} of {total}; go on with --resume")
            if ended:
                break

            epoch, units, batches = next(upcoming)
            clock("data")
            apply_unfreezing(model, optimizer, settings.unfreeze_every, state.step, total)
            rates = set_learning_rates(optimizer, learning_rate_factor(settings, state.step, total))
            idle: list[Batch] = []
            if shares_out:
                idle = [work.maker(units[:1], epoch)] * (parallel.largest(len(batches)) - len(batches))
            step = Step(
                batches=[machine.holding(batch) for batch in batches],
                forward=machine.forward(model),
                head=model.head,
                backward=machine.backward if zero is None else zero.backward(len(batches) + len(idle)),
                parallel=parallel,
                idle=[machine.holding(batch) for batch in idle],
                clock=clock,
                r_drop=settings.r_drop,
                parameters=list(model.parameters()),
            )
            if adversary is not None and adversary.active(state.step, total):
                own_loss, own_terms = adversary(step)
            else:
                own_loss, own_terms = step.run()
            own_computed = sum(map(model.backbone.positions, batches))
            loss, terms, computed = parallel.sums(own_loss, own_terms, own_computed)
            parallel.sum_gradients(model.parameters())
            machine.scaler.unscale_(optimizer)
            norm = finish_gradients(optimizer, terms, settings.max_grad_norm, l1=settings.l1)
            refuse_not_finite(loss, norm, state.step, work, units, machine.precision)
            machine.scaler.step(optimizer)
            machine.scaler.update()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            if average is not None:
                average.update(state.step)
            clock("optimizer")

            add_to_window(
                state, loss=loss, terms=terms, norm=norm, computed=computed, tokens=work.plan.tokens(units)
            )
            add_tasks_to_window(state, step.task_losses)
            if state.step % settings.logging_steps == 0 or state.step == total:
                values = window_values(state, epoch, rates, clock, machine)
                journal.write("train", state.step, values)
                bar.advance(
                    0, loss=f"{values['loss']:.4f}", tokens_per_second=f"{values['tokens_per_second']:.0f}"
                )
            bar.advance(1, **shown_metric(work, state))


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
    clear_unfinished(run)
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


def averaged(average: Average | None) -> AbstractContextManager[None]:
    """Inside, the model has its averaged weights, if an average is kept."""
    return nullcontext() if average is None else average.applied()


def refuse_not_finite(
    loss: float, norm: float, step: int, work: Prepared, units: Ints, precision: str
) -> None:
    if math.isfinite(loss) and (math.isfinite(norm) or precision == "fp16"):
        return
    places = [work.place(unit) for unit in units.tolist()]
    raise UserError(
        f"step {step + 1}: the loss is {loss} and the gradient norm {norm}, so the model can't learn on. "
        f"The step's examples: {', '.join(places[:20])}{' ...' if len(places) > 20 else ''}. "
        "Lower train.learning_rate, lengthen train.warmup_steps, or look at these examples"
    )


def add_to_window(state: TrainState, **step: float) -> None:
    """Adds a step to the sums that the next line of the log is made of.

    A step whose gradient overflowed in fp16 is skipped by the loss scaling; it is counted, and has no norm.
    """
    state.tokens += int(step["tokens"])
    overflowed = not math.isfinite(step["norm"])
    step |= {"norm": 0.0 if overflowed else step["norm"], "overflowed": overflowed}
    for key, value in (step | {"steps": 1}).items():
        state.window[key] = state.window.get(key, 0) + value


def add_tasks_to_window(state: TrainState, losses: Mapping[str, float]) -> None:
    """Adds the mean losses of the tasks that a step had, where there are several tasks."""
    for name, loss in losses.items():
        for key, value in ((f"{TASK_LOSS}{name}", loss), (f"{TASK_STEPS}{name}", 1)):
            state.window[key] = state.window.get(key, 0) + value


def window_values(
    state: TrainState, epoch: int, rates: dict[str, float], clock: Clock, machine: Machine
) -> dict[str, Any]:
    """A line of the log: means over the steps since the last one."""
    window, state.window = state.window, {}
    seconds = clock.taken()
    trained = sum(seconds.get(phase, 0.0) for phase in ("data", "forward", "backward", "optimizer"))
    overflowed = int(window["overflowed"])
    learned = int(window["steps"]) - overflowed
    names = [key.removeprefix(TASK_LOSS) for key in window if key.startswith(TASK_LOSS)]
    tasks = {name: window[TASK_LOSS + name] / window[TASK_STEPS + name] for name in sorted(names)}
    return {
        "epoch": epoch,
        "loss": window["loss"] / max(1, window["terms"]),
        **({"task_losses": tasks} if tasks else {}),
        "learning_rate": max(rates.values()),
        "learning_rates": rates,
        "grad_norm": window["norm"] / learned if learned else None,
        **({"overflowed_steps": overflowed} if overflowed else {}),
        "tokens": state.tokens,
        "padding": round(1 - window["tokens"] / window["computed"], 6),
        "tokens_per_second": round(window["tokens"] / max(1e-9, trained), 1),
        "waiting": round(seconds.get("data", 0.0) / max(1e-9, trained), 6),
        "seconds": {phase: round(value, 4) for phase, value in seconds.items()},
        "memory_mb": round(machine.peak_memory() / 2**20, 1),
    }


def parameter_counts(model: Model) -> dict[str, int]:
    """How many numbers the model has, and how many of them learn."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trainable": sum(n for n, learns in sizes if learns)}


def shown_metric(work: Prepared, state: TrainState) -> dict[str, str]:
    if state.best_metric is None:
        return {}
    return {f"best_{work.task.primary_metric}": f"{state.best_metric:.4f}"}
