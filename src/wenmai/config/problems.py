"""What pydantic finds wrong in a configuration, in words: what was given, what is allowed, what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from wenmai.errors import Problem

Key = tuple[str | int, ...]
"""The way to a value in the tree: names of keys, and places in lists from 0."""

Sections = Mapping[str, type[BaseModel]]
"""Name of a section of the configuration -> the record that describes it."""

_EXPECTED: dict[str, str] = {
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected a text (in quotes if it looks like something else)",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected keys with values",
    "model_type": "expected a section with keys of its own",
    "model_attributes_type": "expected a section with keys of its own",
}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def key_text(key: Key) -> str:
    """``("data", "rows", 1)`` -> ``data.rows[1]``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def record_of(annotation: Any) -> type[BaseModel] | None:
    """The record in a field's type, looking through ``Annotated`` and ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inner = inner[:1]
    elif get_origin(annotation) not in (Union, UnionType):
        return None
    return next((found for found in map(record_of, inner) if found), None)


def sections_of(record: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of a record that are records themselves."""
    found = {name: record_of(field.annotation) for name, field in record.model_fields.items()}
    return {name: inner for name, inner in found.items() if inner is not None}


def describe(
    errors: Sequence[ErrorDetails],
    tree: Any,
    *,
    record: type[BaseModel],
    sections: Sections,
    place: Callable[[Key], str],
) -> dict[Key, Problem]:
    """One problem for every key that is wrong.

    Args:
        errors: of a pydantic ``ValidationError``.
        tree: what was validated.
        record: what it was validated against.
        sections: records that stand for fields of ``record`` instead of the declared ones.
        place: a key to the file and the key, as the user wrote them.
    """
    grouped: dict[Key, list[ErrorDetails]] = {}
    for error in errors:
        grouped.setdefault(_real_key(error["loc"], tree), []).append(error)
    problems = {}
    for key, found in grouped.items():
        names = [part for part in key if isinstance(part, str)]
        owner = _record_at(names[:-1], record, sections)
        messages = dict.fromkeys(_message(error, key, owner, record, sections) for error in found)
        problems[key] = Problem(place(key), _joined(list(messages)))
    return problems


def near_miss(given: str, allowed: Sequence[str]) -> str:
    """``did you mean 'x'? `` if something allowed looks like what was given, capitals aside."""
    by_lower = {name.lower(): name for name in allowed}
    close = get_close_matches(given.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'? " if close else ""


def _real_key(loc: Key, tree: Any) -> Key:
    """The error's place without the members of unions that pydantic puts into it."""
    key: list[str | int] = []
    value = tree
    for i, part in enumerate(loc):
        if isinstance(value, dict) and (part in value or i == len(loc) - 1):
            key.append(part)
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            key.append(part)
            value = value[part]
    return tuple(key)


def _record_at(names: Sequence[str], record: type[BaseModel], sections: Sections) -> type[BaseModel] | None:
    if not names:
        return record
    inner = {**sections_of(record), **sections}.get(names[0])
    return _record_at(names[1:], inner, {}) if inner else None


def _message(
    error: ErrorDetails, key: Key, owner: type[BaseModel] | None, record: type[BaseModel], sections: Sections
) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden" and owner:
        return _unknown_key(str(key[-1]), owner, record, sections)
    if kind == "missing" and isinstance(error["loc"][-1], int):
        return f"expected a list of {error['loc'][-1] + 1} or more values, got {_shown(given)}"
    if kind == "missing":
        field = owner.model_fields.get(str(key[-1])) if owner and key else None
        return (
            f"missing: {field.description}"
            if field and field.description
            else "missing; this key must be given"
        )
    if kind == "literal_error":
        allowed = _choices(owner, key)
        hint = near_miss(str(given), [str(choice) for choice in allowed])
        return f"got {_shown(given)}; {hint}allowed: {', '.join(map(str, allowed))}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{words} {context[bound]}, got {_shown(given)}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))
    if kind in ("too_long", "too_short"):
        return f"expected a list of another length, got {_shown(given)}"
    expected = _EXPECTED.get(kind)
    return f"{expected}, got {_shown(given)}" if expected else f"{error['msg']}, got {_shown(given)}"


def _unknown_key(given: str, owner: type[BaseModel], record: type[BaseModel], sections: Sections) -> str:
    allowed = list(owner.model_fields)
    # the very name in another section is a better guess than one that looks like it in this section
    homes = [f"{given} at the top"] if owner is not record and given in record.model_fields else []
    homes += [
        f"{name}.{given}"
        for name, inner in {**sections_of(record), **sections}.items()
        if given in inner.model_fields and inner is not owner
    ]
    hint = f"did you mean {' or '.join(homes)}? " if homes else near_miss(given, allowed)
    return f"unknown key; {hint}allowed: {', '.join(allowed)}"


def _choices(owner: type[BaseModel] | None, key: Key) -> list[Any]:
    names = [part for part in key if isinstance(part, str)]
    field = owner.model_fields.get(names[-1]) if owner and names else None
    return _literals(field.annotation) if field else []


def _literals(annotation: Any) -> list[Any]:
    choices: list[Any] = []
    for inner in get_args(annotation):
        choices += _literals(inner) if get_args(inner) else [inner] if isinstance(inner, str | int) else []
    return choices


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _joined(messages: list[str]) -> str:
    """The complaints of all members of a union as one."""
    wanted = [message.split(", got ")[0].removeprefix("expected ") for message in messages]
    if len(messages) > 1 and all(message.startswith("expected ") for message in messages):
        return f"expected {' or '.join(dict.fromkeys(wanted))}, got {messages[0].split(', got ', 1)[1]}"
    return "; ".join(messages)
