"""YAML as people mean it: the core schema of YAML 1.2, no key twice, every error with its line.

PyYAML follows YAML 1.1, where ``3e-5`` is a text, ``no`` is false, ``12:30`` is 750 and ``2024-01-01`` is a date.
Here only ``true``/``false``/``null`` and numbers are special, as in JSON and in YAML 1.2
(https://yaml.org/spec/1.2.2/, section 10.3).
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from wenmai.errors import ConfigError, Problem

_CORE_SCHEMA: list[tuple[str, str, str]] = [
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
]

_KEEP_ONE = "keep one of them"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in first_lines and key.value != "<<":
                problem = (
                    f"the key '{key.value}' stands here and in line {first_lines[key.value]}; {_KEEP_ONE}"
                )
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            first_lines[key.value] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as a text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _CORE_SCHEMA:
    _first_characters = ["" if character == "\0" else character for character in _first]
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first_characters)
    _Dumper.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first_characters)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, place: str) -> Any:
    """The value of a YAML text.

    Args:
        place: stands before the line in errors.

    Raises:
        ConfigError: it is not YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{place}:{mark.line + 1}" if mark else place
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _unreadable(where, _advice(problem)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(place, f"not YAML: {str(error).splitlines()[0]}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        ConfigError: there is no such file, it is not UTF-8, or :func:`parse_yaml` refuses it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _unreadable(f"{path}:{line}", "not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        advice = "give the path of a YAML file (`wenmai init` writes one)"
        raise _unreadable(str(path), f"{error.strerror or error}; {advice}") from None
    return parse_yaml(text, str(path))


def _advice(problem: str) -> str:
    if _KEEP_ONE in problem:
        return problem
    if "found character '\\t'" in problem:
        return "not YAML: a tab; indent with spaces"
    return f"not YAML: {problem}; check the indentation, colons and quotes of this line and the one above"


def _unreadable(place: str, message: str) -> ConfigError:
    return ConfigError("the configuration can't be read", [Problem(place, message)])


def dump_yaml(value: Any) -> str:
    """YAML that :func:`parse_yaml` reads back as the same value; keys in their order, Chinese as Chinese."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
