"""Which parameters a setting is about: by patterns of their names, and by how deep in the backbone they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

from wenmai.errors import ConfigError, Problem
from wenmai.tasks.model import Model


def matched(name: str, patterns: Iterable[str]) -> str | None:
    """The first of the shell-like patterns (``*``, ``?``, ``[ab]``) that the whole name fits, capitals counting."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def check_patterns(patterns: Iterable[str], names: Sequence[str], key: Callable[[str], str]) -> None:
    """Makes sure that every pattern fits at least one name.

    Args:
        patterns: as the user wrote them.
        names: of all parameters of the model.
        key: a pattern to the configuration key to blame.

    Raises:
        ConfigError: with all patterns that fit none, and the names that look most like them.
    """
    problems = [
        Problem(
            key(pattern),
            f"{pattern!r} fits none of the model's {len(names)} parameters; "
            f"the nearest names are {', '.join(nearest(pattern, names))}: correct it or remove it",
        )
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]
    if problems:
        raise refusal(*problems)


def nearest(pattern: str, names: Sequence[str], shown: int = 3) -> list[str]:
    """The names that hold most of the pattern's letters in order, shorter names first."""
    letters = pattern.replace("*", "").replace("?", "")

    def unlikeness(name: str) -> tuple[int, int]:
        blocks = SequenceMatcher(None, letters, name, autojunk=False).get_matching_blocks()
        return -sum(block.size for block in blocks), len(name)

    return sorted(names, key=unlikeness)[:shown]


def heights(model: Model, key: str) -> dict[str, int]:
    """How high in the backbone each of its parameters is, by the parameter's full name.

    0 for the embeddings (whatever comes before the first layer, or says that it embeds), then 1 to L for the L layers.
    A norm behind the last layer counts to it.

    Args:
        key: of the setting that needs to know, for the error.

    Raises:
        ConfigError: the architecture keeps its layers at a place unknown here.
    """
    layers = model.backbone.layers
    if not layers:
        architecture = type(model.backbone.model).__name__
        message = f"needs to tell the layers apart, but those of a {architecture} are not found: remove it"
        raise refusal(Problem(key, message))
    height_of = {id(p): height for height, layer in enumerate(layers, start=1) for p in layer.parameters()}
    found: dict[str, int] = {}
    below = True
    for name, parameter in model.backbone.named_parameters(prefix="backbone"):
        if id(parameter) in height_of:
            below = False
            found[name] = height_of[id(parameter)]
        else:
            found[name] = 0 if below or "embed" in name else len(layers)
    return found


def refusal(*problems: Problem) -> ConfigError:
    """The error for settings that the model can't follow."""
    return ConfigError("the configuration can't be used:", list(problems))
