"""The command line: verbs to functions. The only file that prints.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a bug, 2 the
user's input, 130 and 143 stopped by Ctrl-C and SIGTERM. What a verb needs is imported inside it, so that ``--help``
answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType

from wenmai.errors import UserError
from wenmai.version import __version__

if TYPE_CHECKING:
    from wenmai.config import RunConfig
    from wenmai.progress import Progress

app = typer.Typer(
    name="wenmai",
    help="Chinese-first NLP: from labelled text to a trained, explained model.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="instead of the file's: train.epochs=5")
]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a run folder or its bundle/")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs")]


REPORT = "report.html"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: what stands behind ``wenmai``; default: those of the process.

    Returns:
        the exit code.
    """
    # threads that sleep while they wait: on a machine that others share, spinning for each other costs most of the time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _terminating():
            code = _run(sys.argv[1:] if arguments is None else list(arguments))
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()  # whoever reads has read enough
        return 0
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        return _stopped(f"error: {message}", 2)
    except Terminated:
        return _stopped("stopped by SIGTERM", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        return _stopped("stopped by Ctrl-C", 128 + signal.SIGINT)
    except OSError as error:
        # files are written through wenmai.atomic, which names them: this was standard output
        if error.errno not in DISK_FULL:
            return _bug()
        _drop_output()
        return _stopped(f"error: the output can't be written: {error.strerror}; free some space first", 2)
    except Exception:
        return _bug()


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("wenmai", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def _drop_output() -> None:
    """What is still in the buffer can't be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _bug() -> int:
    return _stopped(f"{traceback.format_exc()}\nThis is a bug in wenmai {__version__}; please report it.", 1)


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM ends a verb as Ctrl-C does, so that files in the making are cleared away."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield  # not the main thread
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit(0)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None: ...


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
    _note(f"{output} is written. Set data.train in it, then: wenmai check {output}")


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Look for trouble in a run's configuration and data."""
    from wenmai.check.doctor import check as look
    from wenmai.terminal import report_panels

    report = look(_configuration(config, overrides), progress=_progress())
    if as_json:
        _print_json(report.to_json())
    else:
        _print_rich(report_panels(report))
    if not report.healthy:
        raise typer.Exit(2)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the run's checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="throw an earlier run there away")] = False,
    no_evaluate: Annotated[bool, typer.Option("--no-evaluate", help="no scores, no report")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model, score the best one on dev and test, draw the report."""
    from wenmai.training.stopping import Interrupted
    from wenmai.training.trainer import train as learn

    settings = _configuration(config, overrides)
    try:
        run = learn(settings, resume=resume, overwrite=overwrite, progress=_progress())
    except Interrupted as stop:
        _note(str(stop))
        raise typer.Exit(128 + stop.signum) from None
    metrics = {} if no_evaluate else _final_scores(settings, run)
    if as_json:
        _print_json({"run": str(run), "bundle": str(run / "bundle"), "metrics": metrics})
        return
    for split, found in metrics.items():
        _print_metrics(found, f"{split}: {found['examples']} examples")
    print(f"{run} holds the run. Next:")
    print(f"  wenmai predict {run} FILE")
    print(f"  wenmai evaluate {run} DATA")
    print(f"  {'wenmai report ' + str(run) if no_evaluate else f'open {run / REPORT} in a browser'}")


@app.command()
def evaluate(
    bundle: BundleFolder,
    data: Annotated[str, typer.Argument(metavar="DATA", help="file, folder or sample:NAME/SPLIT")],
    reading: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="how to read it: format=conll")
    ] = None,
    split: Annotated[str, typer.Option(help="name of the results: evaluation/SPLIT")] = "test",
    output: Annotated[Path | None, typer.Option(help="folder of the results; default: in the run")] = None,
    slices: Annotated[
        str, typer.Option(help="where text lengths are cut, in characters")
    ] = "0,50,100,150,200",
    as_json: AsJson = False,
) -> None:
    """Score a model on labelled data.

    Writes metrics.json and predictions.jsonl into evaluation/SPLIT of the run.
    """
    from wenmai.config import load_source
    from wenmai.evaluation.evaluate import evaluate as score

    source = load_source(data, reading or [])
    metrics = score(bundle, source, split=split, output=output, slices=_numbers(slices), progress=_progress())
    if as_json:
        _print_json(metrics)
    else:
        _print_metrics(metrics, f"{data}: {metrics['examples']} examples")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders, side by side on one page")],
    output: Annotated[
        Path | None, typer.Option(help="the page; default: report.html in the first run")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="folder for the first run's plots as PNG and SVG")
    ] = None,
) -> None:
    """Draw runs as one self-contained HTML page.

    Learning curves, scores by length and label, confusion, and the errors in their texts.
    """
    from wenmai.evaluation.report import save_figures, write_report

    print(write_report(runs, output or runs[0] / REPORT))
    if figures is not None:
        for path in save_figures(runs[0], figures):
            print(path)


@app.command()
def predict(
    bundle: BundleFolder,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="texts or JSONL; - is standard input")] = "-",
    line_format: Annotated[
        Literal["auto", "text", "jsonl"], typer.Option("--format", help="what a line of FILE is")
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="of FILE")] = "utf-8",
    output: Annotated[Path | None, typer.Option(help="write to this file; default: print")] = None,
) -> None:
    """Predict for texts or records, one JSON line each.

    In the order of the input, in bounded memory: FILE may be a pipe that never ends.
    """
    from wenmai.atomic import writing
    from wenmai.inference.input import as_examples, read_items
    from wenmai.inference.predictor import load

    predictor = load(bundle)
    predictions = predictor.predict_examples(
        as_examples(read_items(file, line_format, encoding), predictor.task)
    )
    with _progress().task("predicting", None, "lines") as step:
        if output is None:
            for prediction in predictions:
                print(json.dumps(prediction, ensure_ascii=False))
                step.advance()
            return
        with writing(output) as target:
            for prediction in predictions:
                target.write(json.dumps(prediction, ensure_ascii=False) + "\n")
                step.advance()


@app.command()
def samples(
    name: Annotated[str | None, typer.Argument(metavar="[NAME/SPLIT]", help="print its records")] = None,
) -> None:
    """List the sample data of installed packages, or print it."""
    from wenmai.samples import SAMPLES, SPLITS, sample_records

    if name is None:
        for sample in SAMPLES:
            for split in SPLITS:
                print(f"sample:{sample}/{split}")
        return
    sample, _, split = name.removeprefix("sample:").partition("/")
    for record in sample_records(sample, split or "train"):
        print(json.dumps(record.data, ensure_ascii=False))


def _configuration(path: Path, overrides: Sequence[str] | None) -> RunConfig:
    from wenmai.config import load_config

    return load_config(path, overrides or [])


def _final_scores(settings: RunConfig, run: Path) -> dict[str, Any]:
    """Scores the best model on dev and test, as far as there are any, and draws the report."""
    from wenmai.data.split import load_splits
    from wenmai.evaluation.evaluate import evaluate as score
    from wenmai.evaluation.report import write_report
    from wenmai.tasks import TASKS

    splits = load_splits(settings.data, TASKS[settings.task.name].Example, cache=None, output=None)
    scored = [name for name in ("dev", "test") if name in splits]
    metrics: dict[str, Any] = {
        name: score(run, splits[name], split=name, progress=_progress()) for name in scored
    }
    write_report([run], run / REPORT)
    return metrics


def _print_metrics(metrics: dict[str, Any], title: str) -> None:
    from wenmai.terminal import metrics_table

    print(title)
    _print_rich(metrics_table(metrics))


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_rich(shown: RenderableType) -> None:
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120).print(
        shown, crop=False
    )


def _note(message: str) -> None:
    print(message, file=sys.stderr)


def _progress() -> Progress:
    from wenmai.terminal import progress_on

    return progress_on(Console(file=sys.stderr))


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 0:
        raise UserError(f"--slices {text}: expected growing whole numbers with commas between, like 0,50,100")
    return numbers
