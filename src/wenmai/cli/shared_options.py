"""Options that several verbs share, written once: the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, get_type_hints


def sharing(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A verb whose parameter of this kind becomes an option for each field, in the fields' order.

    typer knows options as parameters of a function only; so it is shown a function that has them, which fills the
    dataclass.

    Args:
        kind: a dataclass whose fields have defaults and are annotated as options are.
    """
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(verb, eval_str=True).parameters.values()
        (filled,) = (parameter.name for parameter in own if parameter.annotation is kind)
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(kind)
        ]
        kept = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own
            if parameter.name != filled
        ]

        @wraps(verb)
        def shown(**given: Any) -> None:
            shared = kind(**{name: given.pop(name) for name in names})
            verb(**given, **{filled: shared})

        shown.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
        shown.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *options]}
        return shown

    return decorated
