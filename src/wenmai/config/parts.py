"""The ``tasks:`` section: several tasks that one encoder learns in one run, and how their examples are mixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from wenmai.config.problems import near_miss
from wenmai.data.sources import DataConfig
from wenmai.tasks import TASKS
from wenmai.tasks.multi_task import name_problem
from wenmai.tasks.task import TaskConfig


def task_section(value: object) -> object:
    """The ``task:`` section as the record of the task it names; what names no task is left as it is.

    Raises:
        ValueError: there is no such task.
    """
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    name = value["name"]
    if name not in TASKS:
        hint = near_miss(str(name), list(TASKS))
        raise ValueError(f"unknown task '{name}'; {hint}allowed: {', '.join(TASKS)}")
    return TASKS[name].Config.model_validate(value)


TaskSection = Annotated[SerializeAsAny[TaskConfig], BeforeValidator(task_section)]


class PartConfig(BaseModel):
    """One task of a run: what it is and what it learns from. A run of a single task is one such part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskSection
    data: DataConfig
    weight: float = Field(default=1.0, gt=0, description="of this task's loss beside those of the others")


class MixingConfig(BaseModel):
    """The ``mixing:`` section: how often each of several tasks is learned, and how they share the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(
        default=1.0,
        gt=0,
        description="T: a task's share of an epoch is its number of rows to the power 1/T; 1: every row once an "
        "epoch; higher: small tasks more often, large ones less",
    )
    batches_per_step: int = Field(
        default=1,
        ge=1,
        description="parts of an optimizer step, each with rows of one task; 1: a step learns one task; more: several",
    )


def names_are_usable(parts: Mapping[str, PartConfig]) -> Mapping[str, PartConfig]:
    """The tasks as they are.

    Raises:
        ValueError: a name can't be used for a task.
    """
    problems = [message for name in parts if (message := name_problem(name))]
    if problems:
        raise ValueError("; ".join(problems))
    return parts
