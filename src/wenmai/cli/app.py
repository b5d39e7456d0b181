"""What all verbs share: the application, kinds of arguments, and the ways to print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="a run folder, its bundle/, or a shipped model")
]
Part = Annotated[
    str | None, typer.Option(help="of a model of several tasks, the name of one; default: all of them")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs")]


REPORT = "report.html"


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


def configuration(path: Path, overrides: Sequence[str] | None) -> RunConfig:
    from wenmai.config import load_config

    return load_config(path, overrides or [])


def print_metrics(metrics: dict[str, Any], title: str) -> None:
    from wenmai.terminal import metrics_table

    print(title)
    print_rich(metrics_table(metrics))


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_rich(shown: RenderableType) -> None:
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120).print(
        shown, crop=False
    )


def note(message: str) -> None:
    if rank() == 0:
        print(message, file=sys.stderr)


def started_by_torchrun() -> bool:
    """Whether other processes run the same command."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Which of these processes this is; the first speaks for all."""
    return int(os.environ.get("RANK", 0))


def progress() -> Progress:
    from wenmai.progress import SILENT
    from wenmai.terminal import progress_on

    if rank() > 0:
        return SILENT
    return progress_on(Console(file=sys.stderr))


def numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 0:
        raise UserError(f"--slices {text}: expected growing whole numbers with commas between, like 0,50,100")
    return numbers
