"""One configuration trained with several seeds: a run folder for each, and what they say together.

Scores of one training hold for one draw of the head's weights, the order and the dropout. Repeating it says how much of
a difference is luck (Reimers and Gurevych 2017, https://arxiv.org/abs/1707.09861).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wenmai.atomic import write_text
from wenmai.config import RunConfig
from wenmai.errors import UserError
from wenmai.experiments.several import open_folder
from wenmai.metrics.repetitions import Repetitions, repetitions
from wenmai.progress import SILENT, Progress
from wenmai.training.trainer import train
from wenmai.version import __version__

SEEDS_FILE = "seeds.json"

Metrics = Mapping[str, Mapping[str, float]]
"""Split -> metric -> value."""
Score = Callable[[RunConfig, Path], Mapping[str, Mapping[str, Any]]]
"""A run to what its evaluations say: split -> metrics, other things among them."""


def train_seeds(
    config: RunConfig,
    *,
    score: Score | None,
    resume: bool = False,
    overwrite: bool = False,
    first: bool = True,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Trains once for each of ``train.seeds`` in ``OUTPUT/seed-N``, and writes ``OUTPUT/seeds.json``.

    The file is written anew after every seed, so that it always tells of those that are done.

    Args:
        config: what to repeat; ``seed`` is replaced.
        score: evaluates a finished run; None: nothing is scored.
        resume: leave out the seeds that are done, go on with the one that was interrupted.
        overwrite: throw earlier runs in the same folder away.
        first: whether this is the first of the processes that train together; only it scores and writes.

    Returns:
        what ``seeds.json`` holds: ``runs``: ``seed``, ``run`` (a folder beside it) and ``metrics`` (split -> metric ->
        value); ``summary``: split -> metric -> ``mean``, ``deviation``, ``interval`` (see :func:`summary_of_seeds`).

    Raises:
        UserError: see :func:`~wenmai.training.trainer.train`; or the folder was begun with another configuration.
        Interrupted: a signal asked to stop; the state is saved.
    """
    folder = Path(config.output)
    done = _finished(folder) if resume else {}
    if first:
        # seeds may be added later
        open_folder(config, free=("seed", "train.seeds", "tune"), resume=resume, overwrite=overwrite)
    found: dict[str, Any] = {}
    for own in configurations_of_seeds(config):
        run = done.get(own.seed)
        if run is None or (score is not None and not run["metrics"]):
            path = train(own, resume=resume, progress=progress)
            scored = score(own, path) if score is not None and first else {}
            done[own.seed] = {"seed": own.seed, "run": path.name, "metrics": _numbers(scored)}
        runs = [done[seed] for seed in config.train.seeds if seed in done]
        found = {"wenmai": __version__, "runs": runs, "summary": _summary([run["metrics"] for run in runs])}
        if first:
            write_text(folder / SEEDS_FILE, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    return found


def configurations_of_seeds(config: RunConfig) -> list[RunConfig]:
    """The configuration of each seed's run: an ordinary one, which ``wenmai train`` repeats as it stands."""
    settings = config.train.model_copy(update={"seeds": []})
    return [
        config.model_copy(
            update={"seed": seed, "train": settings, "output": str(Path(config.output) / f"seed-{seed}")}
        )
        for seed in config.train.seeds
    ]


def summary_of_seeds(metrics: Sequence[Mapping[str, float]]) -> dict[str, Repetitions]:
    """Mean, deviation (n - 1) and 95 % t-interval of every metric that all seeds have.

    Args:
        metrics: of each seed.
    """
    if not metrics:
        return {}
    shared = [name for name in metrics[0] if all(name in other for other in metrics)]
    return {name: repetitions([values[name] for values in metrics]) for name in shared}


def _numbers(scored: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The metrics over all examples, the primary one first."""
    return {
        split: {
            name: report[name]
            for name in sorted(report, key=lambda name: name != report.get("primary_metric"))
            if isinstance(report[name], float)
        }
        for split, report in scored.items()
    }


def _summary(runs: Sequence[Metrics]) -> dict[str, dict[str, Any]]:
    return {
        split: {
            name: {
                "mean": found.mean,
                "deviation": found.deviation,
                "interval": None if found.low is None else [found.low, found.high],
            }
            for name, found in summary_of_seeds([run[split] for run in runs]).items()
        }
        for split in runs[0]
        if all(split in run for run in runs)
    }


def _finished(folder: Path) -> dict[int, dict[str, Any]]:
    path = folder / SEEDS_FILE
    if not path.is_file():
        return {}
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return {int(run["seed"]): run for run in runs if (folder / run["run"]).is_dir()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is damaged ({error}): remove it; finished seeds are then only scored again"
        ) from error
