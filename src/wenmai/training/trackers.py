"""Services that draw runs (Weights & Biases, MLflow ...), through accelerate's trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from wenmai.errors import UserError


class Trackers:
    """Hands numbers to the services that a run names.

    Where a service keeps the run, and under whose account, is its own affair: environment variables and files of the
    service.

    Args:
        names: of accelerate's trackers, as ``wandb``.
        folder: of the run; its name is the run's name there.
        settings: the configuration, to be shown beside the numbers.

    Raises:
        UserError: a service's package is missing.
    """

    def __init__(self, names: Iterable[str], folder: Path, settings: Mapping[str, Any]):
        self._open: list[Any] = []
        for name in names:
            if name not in {str(known.value) for known in get_available_trackers()}:
                raise UserError(f"trackers: {name} is not installed here: pip install {name}, or remove it")
            PartialState()  # accelerate's trackers ask it whether they are the first process
            kind = LOGGER_TYPE_TO_CLASS[name]
            place = {"logging_dir": str(folder)} if kind.requires_logging_directory else {}
            tracker = kind(run_name=folder.name, **place)
            tracker.start()
            tracker.store_init_configuration(dict(_flat(settings)))
            self._open.append(tracker)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in self._open:
            tracker.log(dict(values), step=step)

    def close(self) -> None:
        for tracker in self._open:
            tracker.finish()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str | int | float | bool]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float | bool) else str(value)
