"""What pydantic finds wrong with a record, in words a user can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from wenmai.errors import Problem

SHOWN = 60
EXPECTED = {
    "string_type": "a text is expected",
    "int_type": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "float_parsing": "a number is expected",
    "finite_number": "a finite number is expected",
    "bool_type": "true or false is expected",
    "bool_parsing": "true or false is expected",
    "tuple_type": "a list is expected",
    "list_type": "a list is expected",
    "dict_type": "an object is expected",
    "model_type": "an object is expected",
    "model_attributes_type": "an object is expected",
}
EMPTY = frozenset({"string_too_short", "too_short"})

_FIELD_IN_MESSAGE = re.compile(r"(?P<field>\w+(?:\[\d+\]|\.\w+)+): (?P<message>.*)", re.DOTALL)


def problems_of(
    error: ValidationError,
    example_type: type[BaseModel],
    record: Mapping[str, Any],
    place: str,
    columns: Mapping[str, str | int] | None = None,
) -> list[Problem]:
    """One problem a field.

    Args:
        record: what was validated.
        columns: where ``data.columns`` takes our fields from, to name the column of a field that is missing.
    """
    reasons: dict[str | None, list[str]] = {}
    for found in error.errors(include_url=False):
        steps = _steps(found["loc"], record)
        field = _field(steps) or None
        message = _message(found, example_type, steps, columns or {})
        if field is None and (match := _FIELD_IN_MESSAGE.fullmatch(message)):
            field, message = match["field"], match["message"]
        if found["type"] == "extra_forbidden":
            field = _field(steps[:-1]) or None
        messages = reasons.setdefault(field, [])
        if message not in messages:
            messages.append(message)
    return [
        Problem(place, "; or ".join(_alternatives(messages)), field) for field, messages in reasons.items()
    ]


def _steps(location: tuple[int | str, ...], record: Any) -> list[int | str]:
    """The location without what pydantic puts in for the members of a union (``label.str``)."""
    steps: list[int | str] = []
    value = record
    for i, step in enumerate(location):
        last = i == len(location) - 1
        if isinstance(value, Mapping) and isinstance(step, str) and (step in value or last):
            value = value.get(step)
        elif isinstance(value, list | tuple) and isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            continue
        steps.append(step)
    return steps


def _field(steps: list[int | str]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _message(
    found: Any, example_type: type[BaseModel], steps: list[int | str], columns: Mapping[str, str | int]
) -> str:
    kind, given = found["type"], found["input"]
    if kind == "missing":
        column = columns.get(str(steps[-1])) if len(steps) == 1 else None
        return "missing" if column is None else f"missing: its column {column!r} is empty or not there"
    if kind == "extra_forbidden":
        return _unknown(str(steps[-1]), _fields_at(example_type, steps[:-1]))
    if kind in EXPECTED:
        return f"{EXPECTED[kind]}, not {_shown(given)}"
    if kind in EMPTY:
        return "is empty"
    message = str(found["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return (
        message
        if kind in ("value_error", "assertion_error")
        else f"{message[:1].lower()}{message[1:]}, not {_shown(given)}"
    )


def _unknown(name: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown field {name!r}{hint} allowed: {', '.join(allowed)}"


def _alternatives(messages: list[str]) -> list[str]:
    """``a text is expected, not [1]`` and ``a number is expected, not [1]`` share their end."""
    ends = {message.partition(" is expected, not ")[2] for message in messages}
    if len(messages) < 2 or len(ends) != 1 or "" in ends:
        return messages
    kinds = " or ".join(message.partition(" is expected")[0] for message in messages)
    return [f"{kinds} is expected, not {ends.pop()}"]


def _fields_at(model: type[BaseModel], steps: list[int | str]) -> list[str]:
    """The fields that are allowed where the steps lead."""
    for step in steps:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return sorted(model.model_fields, key=lambda name: name == "id")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
