"""The sections of a configuration whose keys depend on the task they name: all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from wenmai.config.parts import PartConfig, task_section
from wenmai.config.problems import Key, describe
from wenmai.data.sources import DataConfig, Source
from wenmai.errors import Problem
from wenmai.tasks import TASKS
from wenmai.tasks.task import TaskConfig

MISSING = "missing; this key must be given"
STAND_IN = PartConfig(
    task=TaskConfig(name=""),
    data=DataConfig(train=Source(path=""), dev=Source(path=""), test=Source(path="")),
)
"""In place of what can't be used, so that the rest of the tree can be looked at."""

Place = Callable[[Key], str]
Wrong = dict[Key, Problem]


def checked_task(section: dict[str, Any], key: Key, place: Place) -> tuple[Any, type[BaseModel], Wrong]:
    """A ``task:`` section as its record or a stand-in, the kind of record that describes it, and what is wrong."""
    record = TASKS[section["name"]].Config if section.get("name") in TASKS else TaskConfig
    try:
        return task_section(section), record, {}
    except ValidationError as error:
        found = describe(
            error.errors(), section, record=record, sections={}, place=lambda own: place((*key, *own))
        )
        return STAND_IN.task, record, {(*key, *own): problem for own, problem in found.items()}
    except ValueError as error:
        name = (*key, "name")
        return STAND_IN.task, record, {name: Problem(place(name), str(error))}


def checked_part(entry: Any, key: Key, place: Place) -> tuple[PartConfig, Wrong]:
    """An entry of ``tasks:`` as its record or a stand-in, and what is wrong."""
    wrong: Wrong = {}
    sections: dict[str, type[BaseModel]] = {}
    given = entry
    if isinstance(entry, dict) and isinstance(entry.get("task"), dict):
        task, sections["task"], wrong = checked_task(entry["task"], (*key, "task"), place)
        given = {**entry, "task": task}
    try:
        part = PartConfig.model_validate(given)
    except ValidationError as error:
        found = describe(
            error.errors(), entry, record=PartConfig, sections=sections, place=lambda own: place((*key, *own))
        )
        return STAND_IN, wrong | {(*key, *own): problem for own, problem in found.items()}
    return (STAND_IN if wrong else part), wrong
