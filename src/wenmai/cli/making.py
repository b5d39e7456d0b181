"""Verbs that make a model: write a configuration, look at it, train."""

from __future__ import annotations

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
    print_metrics,
    print_rich,
    progress,
    rank,
    started_by_torchrun,
)
from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.config import RunConfig


@app.command()
def init(
    task: Annotated[str, typer.Argument(metavar="TASK", help="ner, text_classification ...")],
    output: Annotated[Path | None, typer.Option(help="write to this file; default: print")] = None,
) -> None:
    """Write a commented configuration to start from."""
    from wenmai.atomic import write_text
    from wenmai.config.pages import starter

    text = starter(task)
    if output is None:
        print(text, end="")
        return
    if output.exists():
        raise UserError(f"{output}: is there already; choose another name or remove it")
    write_text(output, text)
    where = "each data.train" if task == "multi_task" else "data.train"
    note(f"{output} is written. Set {where} in it, then: wenmai check {output}")


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Look for trouble in a run's configuration and data."""
    from wenmai.check.doctor import check as look
    from wenmai.terminal import report_panels

    report = look(configuration(config, overrides), progress=progress())
    if as_json:
        print_json(report.to_json())
    else:
        print_rich(report_panels(report))
    if not report.healthy:
        raise typer.Exit(2)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the run's checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="throw an earlier run there away")] = False,
    no_evaluate: Annotated[bool, typer.Option("--no-evaluate", help="no scores, no report")] = False,
    processes: Annotated[int, typer.Option(min=1, help="how many train together on this machine")] = 1,
    as_json: AsJson = False,
) -> None:
    """Train a model, score the best one on dev and test, draw the report."""
    settings = configuration(config, overrides)
    if processes > 1 and not started_by_torchrun():
        from wenmai.training.launch import launch

        options = {
            "--resume": resume,
            "--overwrite": overwrite,
            "--no-evaluate": no_evaluate,
            "--json": as_json,
        }
        given = [name for name, chosen in options.items() if chosen]
        raise typer.Exit(
            launch(["train", str(config), *(overrides or []), *given], processes, device=settings.device)
        )
    if settings.train.seeds:
        from wenmai.cli.several import train_seeds

        score = None if no_evaluate else _final_scores
        train_seeds(settings, score, resume=resume, overwrite=overwrite, as_json=as_json)
        return
    from wenmai.training.stopping import Interrupted
    from wenmai.training.trainer import train as learn

    try:
        run = learn(settings, resume=resume, overwrite=overwrite, progress=progress())
    except Interrupted as stop:
        note(str(stop))
        raise typer.Exit(128 + stop.signum) from None
    if rank() > 0:
        return  # the first process tells the results
    metrics = {} if no_evaluate else _final_scores(settings, run)
    if as_json:
        print_json({"run": str(run), "bundle": str(run / "bundle"), "metrics": metrics})
        return
    for split, found in metrics.items():
        print_metrics(found, f"{split}: {found['examples']} examples")
    print(f"{run} holds the run. Next:")
    print(f"  wenmai predict {run} FILE")
    print(f"  wenmai evaluate {run} DATA")
    print(f"  {'wenmai report ' + str(run) if no_evaluate else f'open {run / REPORT} in a browser'}")


@app.command()
def verify_resume(
    config: ConfigFile,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=2, help="of each of the two runs")] = 20,
    kills: Annotated[int, typer.Option(min=1, help="how often the second run is killed")] = 3,
    as_json: AsJson = False,
) -> None:
    """Prove that a killed run resumes exactly: train a few steps twice, kill one run, compare the bits."""
    from wenmai.training.verification import verify_resume as verify

    settings = configuration(config, overrides)
    found = verify(settings, steps=steps, kills=kills, progress=progress())
    if as_json:
        print_json(found.to_json())
    else:
        killed = ", ".join(map(str, found.killed_after))
        print(f"two runs of {found.steps} steps, the second one killed after steps {killed}:")
        for what, same in found.identical.items():
            print(f"  {what}: {'identical' if same else 'DIFFERENT'}")
    if not found.exact:
        raise typer.Exit(1)


def _final_scores(settings: RunConfig, run: Path) -> dict[str, Any]:
    """Scores the best model on dev and test of each task, as far as there are any, and draws the report."""
    from wenmai.evaluation.evaluate import evaluate as score
    from wenmai.evaluation.report import write_report
    from wenmai.training.task_data import read_parts

    metrics: dict[str, Any] = {
        f"{name} {split}" if name else split: score(
            run, splits[split], part=name or None, split=split, progress=progress()
        )
        for name, splits in read_parts(settings, cache=None, output=None).items()
        for split in ("dev", "test")
        if split in splits
    }
    write_report([run], run / REPORT)
    return metrics
