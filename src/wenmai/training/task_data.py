"""What a run learns and from what: its task with its labels, and its examples, of one task or of several together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wenmai.config import RunConfig
from wenmai.data.examples import Examples
from wenmai.data.joined import JoinedExamples
from wenmai.data.split import load_splits
from wenmai.errors import ConfigError, DataError, Problem
from wenmai.tasks import TASKS
from wenmai.tasks.multi_task import MultiTask, MultiTaskExample
from wenmai.tasks.task import Task

AnyExamples = Examples[Any] | JoinedExamples[MultiTaskExample]
Splits = dict[str, Examples[Any]]
"""``train``, and ``dev`` and ``test`` where there are any."""

REJECTS = "rejects"
"""Folder in a run of several tasks for the records each of them left out."""


def read_parts(
    config: RunConfig, *, cache: Path | None, output: Path | None, only_train: bool = False
) -> dict[str, Splits]:
    """The examples of each task by its name; of a run of a single task under the empty name.

    Args:
        cache, output: see :func:`wenmai.data.split.load_splits`; each of several tasks gets a folder of its own there.
        only_train: pass over files for dev and test.

    Raises:
        DataError, ConfigError: with what is wrong with the data of all tasks.
    """
    found: dict[str, Splits] = {}
    problems: list[Problem] = []
    for name, part in config.parts.items():
        data = part.data.model_copy(update={"dev": None, "test": None}) if only_train else part.data
        try:
            found[name] = load_splits(
                data,
                TASKS[part.task.name].Example,
                cache=cache / name if cache and name else cache,
                output=output / REJECTS / name if output and name else output,
            )
        except DataError as error:
            if not name:
                raise
            problems += error.problems
        except ConfigError as error:
            if not name:
                raise
            problems += [Problem(f"tasks.{name}.{p.place}", p.message, field=p.field) for p in error.problems]
    if problems:
        raise DataError(f"{len(problems)} problem(s) in the data of the tasks:", problems)
    return found


def task_of(config: RunConfig, parts: Mapping[str, Splits]) -> Task[Any, Any]:
    """The task of a run, with the labels of its training set."""
    tasks = {
        name: TASKS[part.task.name](
            part.task, TASKS[part.task.name].collect_labels(part.task, parts[name]["train"])
        )
        for name, part in config.parts.items()
    }
    if not config.tasks:
        return tasks[""]
    return MultiTask.of(tasks, {name: part.weight for name, part in config.tasks.items()})


def tasks_by_name(task: Task[Any, Any]) -> dict[str, Task[Any, Any]]:
    """The tasks in a task: several, or itself under the empty name."""
    return task.tasks if isinstance(task, MultiTask) else {"": task}


def together(parts: Mapping[str, Splits]) -> dict[str, AnyExamples]:
    """The splits of a run; those of several tasks joined."""
    if "" in parts:
        return dict(parts[""])
    names = list(dict.fromkeys(split for own in parts.values() for split in own))
    return {
        split: JoinedExamples(
            {name: own[split] for name, own in parts.items() if split in own}, MultiTaskExample.of
        )
        for split in names
    }
