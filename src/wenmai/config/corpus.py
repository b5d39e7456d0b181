"""Reading a corpus configuration: every key has a default, unknown keys are refused, all errors are told at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wenmai.config.problems import Key, describe, key_text
from wenmai.config.yaml_file import parse_yaml, read_yaml
from wenmai.corpus.settings import CorpusConfig
from wenmai.errors import ConfigError, Problem


def load_corpus_config(path: Path | None, overrides: Sequence[tuple[str, Any]] = ()) -> CorpusConfig:
    """Reads a corpus configuration.

    Args:
        path: a YAML file; None: the defaults.
        overrides: dotted keys and their values, which count instead of the file's.

    Raises:
        ConfigError: with everything that is wrong, each at its file and key.
    """
    place = str(path) if path else "the corpus configuration"
    tree = read_yaml(path) if path else {}
    if not isinstance(tree, dict):
        allowed = ", ".join(CorpusConfig.model_fields)
        raise ConfigError(f"{place} is no configuration", [Problem(place, f"expected sections: {allowed}")])
    given = []
    for name, value in overrides:
        keys = tuple(name.split("."))
        given.append(keys)
        section = tree
        for key in keys[:-1]:
            inner = section.get(key)
            section[key] = dict(inner) if isinstance(inner, dict) else {}
            section = section[key]
        section[keys[-1]] = value

    def placed(key: Key) -> str:
        return f"{'command line' if any(key[: len(one)] == one for one in given) else place}: {key_text(key)}"

    try:
        return CorpusConfig.model_validate(tree)
    except ValidationError as error:
        problems = describe(error.errors(), tree, record=CorpusConfig, sections={}, place=placed)
        raise ConfigError(f"{place} can't be used", list(problems.values())) from None


def override(text: str) -> tuple[str, Any]:
    """``clean.min_characters=5`` -> the key and its value, which is YAML.

    Raises:
        ConfigError: there is no key or no value.
    """
    name, equals, value = text.partition("=")
    if not equals or not all(name.strip().split(".")):
        message = "expected key=value, for example clean.min_characters=5"
        raise ConfigError("the command line can't be used", [Problem(f"command line: {text}", message)])
    return name.strip(), parse_yaml(value, f"command line: {name}")
