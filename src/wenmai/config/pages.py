"""The configuration as text for people: a commented file to start from, and the reference of all keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.settings import BackboneConfig, PositionsConfig
from wenmai.config.parts import MixingConfig, PartConfig
from wenmai.config.problems import near_miss, record_of
from wenmai.config.train import AdversarialConfig, TrainConfig
from wenmai.config.tree import SPLITS, RunConfig
from wenmai.config.tune import Dimension, TuneConfig
from wenmai.data.sources import DataConfig, Reading, Split
from wenmai.errors import UserError
from wenmai.tasks import TASKS
from wenmai.tasks.multi_task import MultiTask

_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
_BOUNDS = {Gt: ("gt", ">"), Ge: ("ge", "≥"), Lt: ("lt", "<"), Le: ("le", "≤")}

_REFERENCE_HEAD = """\
# Configuration

A run is described by one YAML file; `wenmai init TASK` writes one to start from, `wenmai check FILE` looks at it and
at its data. Every key can be set on the command line too: `wenmai train ner.yaml train.epochs=5 data.dev=dev.jsonl`.
The value is YAML: `data.rows='[0, 1000]'`, `data.columns='{text: 0, label: 1}'`.

Unknown keys are refused, and all problems of a file are told at once. Relative paths start from the folder in which
the command runs, or from `data.root`. The whole tree, defaults included, is saved with the run as `config.yaml`:
`wenmai train runs/ner/config.yaml output=runs/again` repeats it. Nothing is read from environment variables.

Values are those of YAML 1.2: only `true`, `false`, `null` and numbers are special. `3e-5` is a number, `no` is a text.
No key may stand twice in a section.

This page lists every key. It is made from the records in the code, and a test keeps the two equal.
"""


@dataclass(frozen=True)
class ConfigKey:
    """One key of a section: ``default`` is its YAML, None where the key must be given."""

    name: str
    kind: str
    default: str | None
    description: str


def keys_of(record: type[BaseModel]) -> Iterator[ConfigKey]:
    """The keys of a section that hold plain values, in their order."""
    for name, field in record.model_fields.items():
        if record_of(field.annotation) is not None:
            continue
        default = None if field.is_required() else _inline(field.default)
        yield ConfigKey(name, _kind(field), default, field.description or "")


def starter(task: str) -> str:
    """A configuration to start from: what must be given stands there, what may be given stands as a comment.

    Raises:
        UserError: there is no such task.
    """
    if task == MultiTask.name:
        return _several_tasks()
    if task not in TASKS:
        known = [*TASKS, MultiTask.name]
        raise UserError(f"unknown task '{task}'; {near_miss(task, known)}allowed: {', '.join(known)}")
    record_form = (TASKS[task].Example.__doc__ or "").strip().split("\n")[0].replace("``", "")
    lines = [
        f"# A {task} run. Next: wenmai check FILE, then wenmai train FILE. What stands behind # shows the defaults.",
        "",
        "task:",
        f"  name: {task}",
        *_optional(TASKS[task].Config, leave_out={"name"}),
        "",
        "backbone:",
        "  model: wenmai-tiny-zh  # or e5-small, a folder, a name on the Hugging Face hub",
        *_optional(BackboneConfig, leave_out={"model"}),
        "  # positions:  # to read longer inputs than the model was trained with",
        "  #   to: 1024",
        *_optional(PositionsConfig, leave_out={"to"}, indent="  #   "),
        "  # adapter:  # to train few weights instead of the encoder's",
        "  #   method: lora",
        *_optional(AdapterConfig, leave_out={"method"}, indent="  #   "),
        "",
        f"# Records: {record_form}",
        "data:",
        "  train: data/train.jsonl",
        "  dev: data/dev.jsonl",
        "  # test: data/test.jsonl",
        *_optional(DataConfig),
        "  # split:  # parts of the training file to hold out, where no file of their own is named",
        *_optional(Split, indent="  #   "),
        "",
        *_common(task),
    ]
    return "\n".join(lines) + "\n"


def _common(name: str) -> list[str]:
    """The sections that do not depend on the task."""
    return [
        "train:",
        "  epochs: 3",
        *_optional(TrainConfig, leave_out={"epochs"}),
        "  # adversarial:",
        "  #   method: fgm",
        *_optional(AdversarialConfig, leave_out={"method"}, indent="  #   "),
        "",
        "# tune:  # what wenmai tune searches",
        "#   space: {train.learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}}",
        *_optional(TuneConfig, leave_out={"space"}, indent="#   "),
        "",
        f"output: runs/{name}  # folder of the run",
        *_optional(RunConfig, leave_out={"output", "tasks"}, indent="# "),
    ]


def _several_tasks() -> str:
    """A configuration of two tasks to start from."""
    sections = []
    for name, task in (("entities", "ner"), ("topics", "text_classification")):
        sections += [
            f"  {name}:  # the name of a task here is that of its head, its scores and its answers",
            f"    task: {{name: {task}}}  # wenmai init {task} shows all keys of its sections task and data",
            f"    data: {{train: data/{name}/train.jsonl, dev: data/{name}/dev.jsonl}}",
            *_optional(PartConfig, indent="    # "),
        ]
    lines = [
        "# A run of several tasks. Next: wenmai check FILE, then wenmai train FILE. What stands behind # shows the "
        "defaults.",
        "",
        "tasks:",
        *sections,
        "",
        "# mixing:",
        *_optional(MixingConfig, indent="#   "),
        "",
        "backbone:",
        "  model: wenmai-tiny-zh  # or e5-small, a folder, a name on the Hugging Face hub",
        *_optional(BackboneConfig, leave_out={"model"}),
        "",
        *_common(MultiTask.name),
    ]
    return "\n".join(lines) + "\n"


def reference_page() -> str:
    """``docs/configuration.md``."""
    parts = [_REFERENCE_HEAD, "## At the top\n", _table(RunConfig)]
    parts += ["## `task:`\n", "`name` decides which other keys are allowed.\n"]
    for name, task in TASKS.items():
        parts += [f"### `name: {name}`\n", _table(task.Config)]
    parts += [
        "## `tasks.NAME:`\n",
        "Several tasks for one encoder, instead of `task:` and `data:`, which every one of them has for itself "
        "([multi-task.md](multi-task.md)): `task`, `data`, and\n",
        _table(PartConfig),
        "## `mixing:`\n",
        "How several tasks share the steps.\n",
        _table(MixingConfig),
    ]
    parts += ["## `backbone:`\n", _table(BackboneConfig)]
    parts += [
        "### `backbone.positions:`\n",
        "The model's own positions unless it is given; [long-texts.md](long-texts.md) says when to.\n",
        _table(PositionsConfig),
    ]
    parts += [
        "### `backbone.adapter:`\n",
        "Off unless it is given; [few-labels.md](few-labels.md) says what each method is for.\n",
        _table(AdapterConfig),
    ]
    parts += [
        "## `data:`\n",
        f"{_listed(SPLITS)} name the files: a path (`data.train: train.jsonl`), or a section with `path` and any "
        f"of the keys {_listed(Reading.model_fields)}, which then count for this file only. A path is a file, a folder "
        "(brat, a saved dataset), or `sample:NAME/SPLIT` (`wenmai samples` lists them). `train` must be given.\n",
        _table(DataConfig),
        "### `data.split:`\n",
        _table(Split),
    ]
    parts += ["## `train:`\n", _table(TrainConfig)]
    parts += ["### `train.adversarial:`\n", "Off unless it is given.\n", _table(AdversarialConfig)]
    parts += ["## `tune:`\n", "Read by `wenmai tune` only.\n", _table(TuneConfig)]
    parts += [
        "### `tune.space.KEY:`\n",
        "Every key of the sections `task`, `backbone`, `train` and `mixing`, and `precision` and `data.train`, can be "
        "searched; of several tasks also `tasks.NAME.weight` and the keys of `tasks.NAME.task`. "
        "`low` and `high`, or `choices`, must be given.\n",
        _table(Dimension),
    ]
    return "\n".join(parts)


def _optional(
    record: type[BaseModel], leave_out: AbstractSet[str] = frozenset(), indent: str = "  # "
) -> list[str]:
    lines = []
    for key in keys_of(record):
        if key.name not in leave_out:
            choices = key.kind.replace("`", "") if key.kind.startswith("`") else ""
            comment = "; ".join(filter(None, [choices, key.description]))
            lines.append(f"{indent}{key.name}: {key.default}" + (f"  # {comment}" if comment else ""))
    return lines


def _inline(value: Any) -> str:
    plain = isinstance(value, str) and value != "" and value.replace("-", "").isalnum()
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(record: type[BaseModel]) -> str:
    lines = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for key in keys_of(record):
        default = "must be given" if key.default is None else f"`{key.default}`"
        cells = (f"`{key.name}`", key.kind, default, key.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kind(field: FieldInfo) -> str:
    bounds = [*field.metadata, *_inner_metadata(field.annotation)]
    limits = [
        f"{sign} {getattr(bound, name):g}"
        for bound in bounds
        for kind, (name, sign) in _BOUNDS.items()
        if isinstance(bound, kind)
    ]
    return ", ".join([_words(field.annotation), *limits])


def _inner_metadata(annotation: Any) -> list[Any]:
    """The constraints of ``Annotated[...] | None``."""
    found = []
    for inner in get_args(annotation):
        if get_origin(inner) is Annotated:
            for item in get_args(inner)[1:]:
                found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "any value"
    if record_of(annotation) is not None:
        return "section"
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " | ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, UnionType):
        words = list(dict.fromkeys(map(_words, inner)))
        if "number" in words and "whole number" in words:
            words.remove("whole number")
        return " or ".join(words)
    if origin is list:
        return f"list of {_words(inner[0])}"
    if origin is tuple:
        return f"list [{', '.join(map(_words, inner))}]"
    if origin is dict:
        return f"keys: {_words(inner[1])}"
    return _KINDS[annotation]
