"""Verbs that look into a model: what it is and costs, and how it works on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wenmai.cli.app import AsJson, BundleFolder, Overrides, Part, app, note, print_json, print_rich, progress


@app.command()
def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="run, bundle or model folder, shipped or hub name, e5-small, or a run's CONFIG",
        ),
    ],
    overrides: Overrides = None,
    tokens: Annotated[
        int | None, typer.Option(help="of a micro-batch, for memory; default: the run's, else 2048")
    ] = None,
    length: Annotated[int, typer.Option(help="tokens of a row, for memory and operations")] = 128,
    depth: Annotated[int, typer.Option(help="levels of modules")] = 4,
    as_json: AsJson = False,
) -> None:
    """Say what a model is and what training it takes.

    Parameters by module, architecture, memory by precision and optimizer, operations a token.
    """
    from wenmai.cli.model_tables import info_tables
    from wenmai.training.info import model_info

    found = model_info(model, overrides or [], tokens=tokens, length=length, depth=depth)
    if as_json:
        print_json(found.to_json())
    else:
        print_rich(info_tables(found))


@app.command()
def inspect(
    run: BundleFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="file, folder or sample:NAME/SPLIT; default: the run's dev set"
        ),
    ] = None,
    reading: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="how to read it: format=conll")
    ] = None,
    part: Part = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(help="pattern of module names, may be repeated; default: layers, activations, head"),
    ] = None,
    examples: Annotated[int, typer.Option(help="at most so many, evenly spread")] = 64,
    no_backward: Annotated[
        bool, typer.Option("--no-backward", help="no gradients; DATA needs no labels")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="the file; default: inspection.json in the run")] = None,
    as_json: AsJson = False,
) -> None:
    """Look into a model at work: activations, gradients, dead units, attention.

    Writes inspection.json into the run, which `wenmai report` draws.
    """
    from wenmai.cli.model_tables import inspection_tables
    from wenmai.config import load_source
    from wenmai.training.inspected_run import inspect_run

    content = inspect_run(
        run,
        None if data is None else load_source(data, reading or []),
        part=part,
        patterns=modules,
        examples=examples,
        backward=not no_backward,
        output=output,
        progress=progress(),
    )
    if as_json:
        print_json(content)
        return
    print_rich(inspection_tables(content))
    if output is None:
        note(f"wenmai report {run} draws it")
