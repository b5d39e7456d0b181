"""What trains more than one model: several seeds of one configuration, and the trials of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wenmai.cli.app import (
    REPORT,
    AsJson,
    ConfigFile,
    Overrides,
    app,
    configuration,
    note,
    print_json,
    print_rich,
    progress,
    rank,
)

if TYPE_CHECKING:
    from wenmai.config import RunConfig


@app.command()
def tune(
    config: ConfigFile,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="instead of tune.trials")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the study")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="throw an earlier study there away")] = False,
    as_json: AsJson = False,
) -> None:
    """Search better settings: train trials drawn from tune.space, judged on the dev set."""
    from wenmai.cli import run_tables
    from wenmai.experiments.tuning import tune as search

    given = [*(overrides or []), *([f"tune.trials={trials}"] if trials is not None else [])]
    with _telling_where_to_go_on():
        study = search(configuration(config, given), resume=resume, overwrite=overwrite, progress=progress())
    rows = [{**asdict(trial), "value": trial.value} for trial in study.trials]
    if as_json:
        best = {"trial": study.best.number, "value": study.best.value, "config": str(study.best_config)}
        print_json({"study": str(study.folder), "best": best, "trials": rows, "importance": study.importance})
        return
    print_rich(run_tables.trials(rows, study.best.number, study.importance))
    print(f"{study.best_config} holds the best settings, those of trial {study.best.number}. Next:")
    print(f"  wenmai train {study.best_config}")


def train_seeds(
    settings: RunConfig,
    score: Callable[[RunConfig, Path], dict[str, Any]] | None,
    *,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Trains ``train.seeds`` one after the other and prints what they say together."""
    from wenmai.cli import run_tables
    from wenmai.evaluation.report import write_report
    from wenmai.experiments.repetition import train_seeds as repeat

    with _telling_where_to_go_on():
        found = repeat(
            settings, score=score, resume=resume, overwrite=overwrite, first=rank() == 0, progress=progress()
        )
    if rank() > 0:
        return  # the first process tells the results
    folder = Path(settings.output)
    runs = [folder / run["run"] for run in found["runs"]]
    if score is not None:
        write_report(runs, folder / REPORT)
    if as_json:
        print_json({"run": str(folder), **found})
        return
    print_rich(run_tables.seeds(found))
    print(f"{folder} holds a run for each seed. Next:")
    print(f"  wenmai predict {runs[0]} FILE")
    print(f"  wenmai compare {folder} RUN")
    print(f"  {'wenmai report ' + str(folder) if score is None else f'open {folder / REPORT} in a browser'}")


@contextmanager
def _telling_where_to_go_on() -> Iterator[None]:
    from wenmai.training.stopping import Interrupted

    try:
        yield
    except Interrupted as stop:
        note(str(stop))
        raise typer.Exit(128 + stop.signum) from None
