"""Folders in which one configuration was trained with several seeds: ``seeds.json`` names a run for each."""

from __future__ import annotations

import json
from pathlib import Path

from wenmai.errors import UserError

SEEDS_FILE = "seeds.json"


def runs_of(folder: Path) -> list[Path]:
    """The runs that a folder holds, one a seed; a folder without ``seeds.json`` is a run itself.

    Raises:
        UserError: the file is damaged, or names no run.
    """
    path = folder / SEEDS_FILE
    if not path.is_file():
        return [folder]
    try:
        runs = [folder / str(run["run"]) for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}): wenmai train --resume writes it anew") from error
    if not runs:
        raise UserError(f"{path}: no seed has been trained to its end yet: go on with wenmai train --resume")
    return runs
