"""The verb that gives a model more positions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wenmai.cli.app import AsJson, app, print_json


@app.command()
def extend_positions(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="model folder, run, bundle, hub name or e5-small")
    ],
    to: Annotated[int, typer.Option(min=2, help="tokens of the longest input then")],
    output: Annotated[Path, typer.Option(help="the new folder; must not exist")],
    method: Annotated[
        Literal["copy", "random", "hierarchical"],
        typer.Option(help="the trained vectors again, drawn anew, or combined"),
    ] = "hierarchical",
    alpha: Annotated[
        float, typer.Option(help="hierarchical: weight of the place of the block; above 0, below 1, not 0.5")
    ] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="random: of what is drawn")] = 42,
    as_json: AsJson = False,
) -> None:
    """Give a model more positions, to read longer texts at once.

    Writes a copy that answers for texts of the old length as before, which is checked before it is kept.
    """
    from pydantic import ValidationError

    from wenmai.backbones.hub import model_folder
    from wenmai.backbones.new_positions_folder import write_extended
    from wenmai.backbones.settings import BackboneConfig, PositionsConfig
    from wenmai.bundle import MANIFEST
    from wenmai.errors import UserError

    try:
        asked = PositionsConfig(to=to, method=method, alpha=alpha)
    except ValidationError as error:
        raise UserError(f"--alpha {alpha:g}: {error.errors()[0]['msg']}") from None
    inside = Path(model) / "bundle"
    folder = inside if (inside / MANIFEST).is_file() else model_folder(BackboneConfig(model=model))
    found = write_extended(folder, output, to=asked.to, method=asked.method, alpha=asked.alpha, seed=seed)
    if as_json:
        print_json({"model": model, "output": str(output), **found.to_json()})
        return
    lengths = ", ".join(map(str, found.compared_lengths))
    print(
        f"{output}: {found.positions:,} positions ({found.method}), {found.positions_before:,} of them as before"
    )
    print(
        f"largest difference of hidden states for inputs of {lengths} tokens: {found.largest_difference:.1e}"
    )
    if (output / MANIFEST).is_file():
        print(f"its rows are as long as before: task.max_length in {output / MANIFEST}")
