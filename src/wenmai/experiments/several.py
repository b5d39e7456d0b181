"""A folder of several runs, of seeds or of trials: begun once, gone on with by the same configuration only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from wenmai.config import RunConfig, config_tree, load_config, save_config
from wenmai.errors import UserError
from wenmai.training.setup import CHANGES_NOTHING
from wenmai.training.trainer import LEFT_BY_REFUSED_RUNS, open_run_folder

CONFIG = "config.yaml"
FREE = ("output", "trackers", *(f"train.{key}" for key in CHANGES_NOTHING))
"""Keys that decide no result: they may change when work goes on."""


def open_folder(config: RunConfig, *, free: Collection[str], resume: bool, overwrite: bool) -> Path:
    """Makes ``config.output`` or opens it again, with ``config.yaml`` in it.

    Args:
        free: dotted keys that may have changed since, with all that is below them.
        resume, overwrite: as for a single run.

    Raises:
        UserError: the folder holds other work, or was begun with another configuration.
    """
    folder = Path(config.output)
    refused = not resume and (folder / CONFIG).is_file() and _holds_refused_runs_only(folder)
    if resume and (folder / "log.jsonl").is_file():
        raise UserError(f"{folder}: holds a run of its own: set output to another folder")
    open_run_folder(folder, resume=resume, overwrite=overwrite or refused)
    if (folder / CONFIG).is_file():
        changed = changes(load_config(folder / CONFIG), config, free={*FREE, *free})
        if changed:
            raise UserError(
                f"{folder}: was begun with another configuration ({'; '.join(changed)}): restore it, begin again "
                "with --overwrite, or set output to another folder"
            )
    save_config(config, folder / CONFIG)
    return folder


def changes(old: RunConfig, new: RunConfig, *, free: Collection[str] = ()) -> list[str]:
    """What differs, in words: ``train.epochs: 3.0 became 5.0``."""
    before, after = dict(_leaves(config_tree(old))), dict(_leaves(config_tree(new)))
    return [
        f"{key}: {json.dumps(before.get(key), ensure_ascii=False)} became "
        f"{json.dumps(after.get(key), ensure_ascii=False)}"
        for key in before | after
        if before.get(key) != after.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _holds_refused_runs_only(folder: Path) -> bool:
    """Whether nothing was trained yet, because the first run's data were refused."""
    return all(
        path.name == CONFIG
        or (path.is_dir() and {inner.name for inner in path.iterdir()} <= LEFT_BY_REFUSED_RUNS)
        for path in folder.iterdir()
    )
