"""What a run left behind, as the report reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenmai.config.yaml_file import dump_yaml, read_yaml
from wenmai.errors import UserError

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """The results on one split."""

    split: str
    metrics: dict[str, Any]
    predictions: Path

    @property
    def primary(self) -> str:
        return str(self.metrics["primary_metric"])

    @property
    def names(self) -> list[str]:
        """The metrics over all examples, the primary one first."""
        found = [name for name, value in self.metrics.items() if isinstance(value, float)]
        return sorted(found, key=lambda name: name != self.primary)


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        name: of the folder.
        settings: the resolved configuration; empty if the folder has none.
        log: events of ``log.jsonl``.
        evaluations: those of ``evaluation/``, the test set first, or those of several tasks.
        inspection: what ``wenmai inspect`` saw inside the model, if it looked.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    log: list[Event]
    evaluations: list[Evaluation]
    inspection: Mapping[str, Any] | None = None

    @property
    def shown(self) -> Evaluation | None:
        """The evaluation that is shown in detail."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def configuration(self) -> str:
        """The configuration as YAML."""
        return dump_yaml(dict(self.settings)) if self.settings else ""


def read_run(folder: Path) -> Run:
    """Reads what is there.

    Raises:
        UserError: the folder is missing, holds nothing of a run, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give the folder of a run, which `wenmai train` names at its end"
        )
    config = folder / "config.yaml"
    run = Run(
        name=folder.resolve().name,
        folder=folder,
        settings=read_yaml(config) if config.is_file() else {},
        log=_log(folder / "log.jsonl"),
        evaluations=sorted(
            (_evaluation(path) for path in folder.glob("evaluation/*/metrics.json")),
            key=lambda evaluation: (not f"-{evaluation.split}".endswith("-test"), evaluation.split),
        ),
        inspection=_inspection(folder / "inspection.json"),
    )
    if not (run.settings or run.log or run.evaluations):
        raise UserError(f"{folder}: is no run: it has no config.yaml, no log.jsonl and no evaluation/")
    return run


def _log(path: Path) -> list[Event]:
    """The events of a log; a line that a killed run left half written is left out."""
    if not path.is_file():
        return []
    events: list[Event] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event and "step" in event:
            events.append(event)
    return events


def _evaluation(path: Path) -> Evaluation:
    predictions = path.with_name("predictions.jsonl")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(metrics[metrics["primary_metric"]], float | int):
            raise TypeError("its primary metric is no number")
        if not predictions.is_file():
            raise OSError(f"{predictions.name} is missing beside it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: can't be used ({error}): run `wenmai evaluate` again") from error
    return Evaluation(path.parent.name, metrics, predictions)


def _inspection(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        low, high = found["histogram_octaves"]
        for record in found["modules"]:
            for part in ("outputs", "gradients"):
                if len(record[part]["histogram"]) != 2 * (high - low) + 1:
                    raise ValueError(f"the histogram of {record['name']} has another number of bins")
        if not isinstance(found["attention"]["share"], list):
            raise TypeError("attention.share is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: can't be used ({error}): run `wenmai inspect` again") from error
    return found
