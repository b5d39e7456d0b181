"""The search space of ``tune:`` against the rest of the configuration: which numbers, and are all of them allowed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from wenmai.config.parts import PartConfig
from wenmai.config.problems import sections_of
from wenmai.config.tree import RunConfig, changed
from wenmai.config.tune import Dimension
from wenmai.errors import ConfigError, Problem

SEARCHABLE = ("task", "backbone", "train", "precision", "data.train", "mixing")
OF_A_TASK = ("task", "weight", "data.train")
"""The same below ``tasks.NAME``."""
DECIDED = ("train.seeds", "train.metric_for_best_model", "train.eval_examples")
"""What trials must have in common to be comparable, or what the search itself decides."""


@dataclass(frozen=True)
class Axis:
    """One key that is searched.

    Args:
        whole: only whole numbers are drawn between the ends.
    """

    key: str
    dimension: Dimension
    whole: bool


def axes(config: RunConfig) -> list[Axis]:
    """The axes of ``tune.space``, in the order of the file.

    A configuration is built for every end and every choice of each key, the other keys at their first ones, and for
    the last ones of all keys together: what none of the trials could use is refused before the first one.

    Raises:
        ConfigError: ``tune`` is missing, a key can't be searched, or its values are not allowed.
    """
    if config.tune is None or not config.tune.space:
        message = (
            "missing: name the keys to search, as {train.learning_rate: {low: 1e-5, high: 1e-4, log: true}}"
        )
        raise ConfigError("there is nothing to tune:", [Problem("tune.space", message)])
    space = config.tune.space
    problems = [
        Problem(f"tune.space.{key}", message) for key in space for message in filter(None, [_forbidden(key)])
    ]
    if not problems:
        found = [Axis(key, dimension, _whole(config, key, dimension)) for key, dimension in space.items()]
        problems = [problem for axis in found for problem in _number_problems(axis)] or _end_problems(config)
    if problems:
        raise ConfigError("the search space can't be used:", problems)
    return found


def _forbidden(key: str) -> str | None:
    _, _, own = key.removeprefix("tasks.").partition(".")
    if key.startswith("tasks."):
        return None if _below(own, OF_A_TASK) else f"can't be searched; of a task {', '.join(OF_A_TASK)} can"
    if not _below(key, SEARCHABLE):
        return f"can't be searched; searchable are the keys of {', '.join(SEARCHABLE)}"
    return "must be the same in all trials, or they can't be compared" if _below(key, DECIDED) else None


def _below(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _end_problems(config: RunConfig) -> list[Problem]:
    assert config.tune is not None
    ends = {key: dimension.ends() for key, dimension in config.tune.space.items()}
    first = {key: values[0] for key, values in ends.items()}
    corners = [{**first, key: value} for key, values in ends.items() for value in values]
    corners.append({key: values[-1] for key, values in ends.items()})
    problems: dict[tuple[str, str], Problem] = {}
    for corner in corners:
        try:
            changed(config, corner)
        except ConfigError as error:
            for problem in error.problems:
                place = (
                    f"tune.space.{problem.place}" if problem.place in ends else problem.place or "tune.space"
                )
                problems.setdefault((place, problem.message), Problem(place, problem.message))
    return list(problems.values())


def _number_problems(axis: Axis) -> list[Problem]:
    numbers = {name: getattr(axis.dimension, name) for name in ("low", "high", "step")}
    broken = [name for name, number in numbers.items() if axis.whole and isinstance(number, float)]
    return [
        Problem(f"tune.space.{axis.key}.{name}", f"expected a whole number, got {numbers[name]}")
        for name in broken
    ]


def _whole(config: RunConfig, key: str, dimension: Dimension) -> bool:
    """A key that takes whole numbers only wants these; one that takes both goes by how its ends are written."""
    kinds = _kinds(config, key)
    written = [number for number in (dimension.low, dimension.high, dimension.step) if number is not None]
    return int in kinds and (float not in kinds or all(isinstance(number, int) for number in written))


def _kinds(config: RunConfig, key: str) -> set[Any]:
    """The types that a key takes; none if there is no such key."""
    *names, last = key.split(".")
    record: type[BaseModel] = RunConfig
    part = config.parts.get("")
    if names[:1] == ["tasks"] and len(names) > 1:
        part = config.tasks.get(names[1])
        record, names = PartConfig, names[2:]
        if part is None:
            return set()
    for depth, name in enumerate(names):
        inner: Mapping[str, type[BaseModel]] = sections_of(record)
        if depth == 0 and name == "task" and part is not None:
            record = type(part.task)
        elif name in inner:
            record = inner[name]
        else:
            return set()
    field = record.model_fields.get(last)
    return _leaves(field.annotation) if field else set()


def _leaves(annotation: Any) -> set[Any]:
    inner = get_args(annotation)
    return set().union(*map(_leaves, inner)) if inner else {annotation}
