"""The search for better settings: every trial is an ordinary run, and the study survives a kill at any moment."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wenmai.config import RunConfig, TuneConfig, changed, load_config, save_config
from wenmai.config.space import Axis, axes
from wenmai.errors import ConfigError, DataError, Problem, UserError
from wenmai.experiments.search import Draw, importance, installed
from wenmai.experiments.several import CONFIG, changes, open_folder
from wenmai.experiments.trials import Trial, TrialState, best_of, read_trials, write_trials
from wenmai.progress import SILENT, Progress
from wenmai.training.journal import read_log
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import train

TRIALS_FILE = "trials.jsonl"
BEST_FILE = "best.yaml"
MOST_FAILURES = 3
"""A study whose first trials all fail ends: the next ones would, too."""
FREE = ("tune.trials", "tune.timeout", "data.test", "train.seeds")
"""Keys that may change when a study goes on."""


@dataclass(frozen=True)
class Study:
    """What a search found.

    Args:
        importance: each key's share in what sets good trials apart; empty where there are too few trials to tell.
    """

    folder: Path
    trials: list[Trial]
    best: Trial
    importance: dict[str, float]

    @property
    def best_config(self) -> Path:
        """The configuration of the best trial, test set and seeds included; trains in ``OUTPUT/best``."""
        return self.folder / BEST_FILE


def tune(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, progress: Progress = SILENT
) -> Study:
    """Runs the trials of ``tune``, each in ``OUTPUT/trial-N``, and writes ``trials.jsonl`` and ``best.yaml`` in OUTPUT.

    A trial's value is the best metric of its evaluations on the dev set. The test set is not read. A trial that fails
    is recorded, and the study goes on. What a trial drew that an earlier one had drawn is not trained again.
    Checkpoints of trials that ended are removed.

    Args:
        config: with a section ``tune``.
        resume: go on with an earlier study, its interrupted trial included.
        overwrite: throw an earlier study in the same folder away.

    Raises:
        UserError: Optuna is not installed, the search space or the data can't be used, or every trial failed.
        Interrupted: a signal asked to stop; the state is saved.
    """
    installed()
    space, settings = axes(config), config.tune
    assert settings is not None
    _refuse_without_dev(config)
    folder = open_folder(config, free=FREE, resume=resume, overwrite=overwrite)
    trials = read_trials(folder / TRIALS_FILE)
    with progress.task("tuning", settings.trials, "trials") as bar:
        bar.advance(len(trials))
        while len(trials) < settings.trials and not _time_is_up(settings, trials):
            trials.append(_run_trial(config, settings, space, trials, progress))
            write_trials(folder / TRIALS_FILE, trials)
            shutil.rmtree(folder / trials[-1].run / "checkpoint", ignore_errors=True)
            _refuse_failures(trials)
            best = _saved_best(config, trials)
            bar.advance(1, **({"best": f"{best.value:.4f}"} if best else {}))
    best = _saved_best(config, trials)
    if best is None:
        raise UserError(
            f"{folder}: no trial ran to its end: give tune.trials or tune.timeout more, then --resume"
        )
    return Study(folder, trials, best, importance(settings, space, trials))


def _run_trial(
    config: RunConfig,
    settings: TuneConfig,
    space: Sequence[Axis],
    earlier: Sequence[Trial],
    progress: Progress,
) -> Trial:
    number = len(earlier)
    draw = Draw(settings, space, earlier, config.seed if settings.seed is None else settings.seed)
    for trial in earlier:
        if trial.values == draw.values and trial.state != "failed":
            return replace(trial, number=number, seconds=0.0)
    run = Path(config.output) / f"trial-{number}"
    state: TrialState
    error, start = None, time.perf_counter()
    try:
        own = _configuration(config, draw.values, run, for_trial=True)
        begun = (run / CONFIG).is_file() and not changes(load_config(run / CONFIG), own)
        if not begun:
            shutil.rmtree(run, ignore_errors=True)
        # the log tells the evaluations, as a run that goes on has earlier ones
        train(own, resume=begun, progress=progress, on_evaluation=lambda *_: draw.judge(_evaluations(run)))
        state = "pruned" if draw.judge(_evaluations(run)) else "complete"
    except (Interrupted, DataError):
        raise  # no trial could learn from data that can't be read
    except Exception as problem:
        state, error = "failed", f"{type(problem).__name__}: {problem}"
    if error is not None:
        _free_memory()
    return Trial(
        number=number,
        state=state,
        values=draw.values,
        evaluations=draw.evaluations,
        seconds=round(time.perf_counter() - start, 3),
        run=run.name,
        error=error,
        notes=draw.notes,
    )


def _saved_best(config: RunConfig, trials: Sequence[Trial]) -> Trial | None:
    """The best trial so far; its configuration is written down."""
    folder, best = Path(config.output), best_of(trials)
    if best is not None:
        save_config(_configuration(config, best.values, folder / "best"), folder / BEST_FILE)
    return best


def _evaluations(run: Path) -> list[float]:
    events = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
    return [float(event["metrics"][event["primary_metric"]]) for event in events]


def _configuration(
    config: RunConfig, values: Mapping[str, Any], output: Path, *, for_trial: bool = False
) -> RunConfig:
    """The configuration with what was drawn, and nothing left to tune; a trial sees no test set and one seed."""
    decided: dict[str, Any] = {"tune": None, "output": str(output)}
    if config.tune is not None and config.tune.metric is not None:
        decided["train.metric_for_best_model"] = config.tune.metric
    if for_trial:
        tests = {f"tasks.{part}.data.test" if part else "data.test": None for part in config.parts}
        decided |= {**tests, "train.seeds": []}
    return changed(config, {**values, **decided})


def _refuse_without_dev(config: RunConfig) -> None:
    if not config.has_dev:
        message = "trials are judged on a dev set: give data.dev, or data.split.dev to hold out a part of data.train"
        raise ConfigError("there is nothing to tune by:", [Problem("data.dev", message)])


def _time_is_up(settings: TuneConfig, trials: Sequence[Trial]) -> bool:
    return settings.timeout is not None and sum(trial.seconds for trial in trials) >= settings.timeout


def _refuse_failures(trials: Sequence[Trial]) -> None:
    if len(trials) >= MOST_FAILURES and all(trial.state == "failed" for trial in trials):
        raise UserError(
            f"the first {len(trials)} trials all failed, so the study ends here; the last one with {trials[-1].error}"
        )


def _free_memory() -> None:
    """What a failure held on to, on the GPU first of all."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
