"""The configuration of a run: one tree of records; unknown keys are refused, all errors are told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wenmai.atomic import write_text
from wenmai.backbones.settings import BackboneConfig
from wenmai.config.checking import MISSING, STAND_IN, checked_part, checked_task
from wenmai.config.parts import MixingConfig, PartConfig, TaskSection, names_are_usable
from wenmai.config.problems import Key, describe, key_text
from wenmai.config.train import TrainConfig
from wenmai.config.tune import TuneConfig
from wenmai.config.yaml_file import dump_yaml, parse_yaml, read_yaml
from wenmai.data.sources import DataConfig, Source
from wenmai.errors import ConfigError, Problem

SPLITS = ("train", "dev", "test")


Tracker = Literal[
    "tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"
]


class RunConfig(BaseModel):
    """Everything that decides what a run does; saved with the run as ``config.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskSection | None = None
    backbone: BackboneConfig
    data: DataConfig | None = None
    tasks: Annotated[dict[str, PartConfig], AfterValidator(names_are_usable)] = Field(
        default={}, description="several tasks for one encoder, instead of `task` and `data`: name -> section"
    )
    mixing: MixingConfig | None = None
    train: TrainConfig = TrainConfig()
    tune: TuneConfig | None = Field(default=None, description="what `wenmai tune` searches; default: nothing")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the GPU computes it, else fp32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    trackers: list[Tracker] = Field(
        default=["tensorboard"], description="beside log.jsonl, which is always written"
    )
    seed: int = Field(default=42, ge=0, description="of everything that is drawn")
    output: str = Field(description="folder of the run")

    @property
    def parts(self) -> dict[str, PartConfig]:
        """The tasks by name; of a run of a single task the one, under the empty name."""
        if self.task is None or self.data is None:
            return self.tasks
        return {"": PartConfig(task=self.task, data=self.data)}

    @property
    def has_dev(self) -> bool:
        """Whether there is a dev set, of one task at least."""
        return any(part.data.dev is not None or part.data.split.dev > 0 for part in self.parts.values())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = [name for name in ("task", "data") if getattr(self, name) is not None]
        if self.tasks and given:
            raise ValueError(
                f"tasks and {' and '.join(given)} exclude each other: a task belongs under one of them"
            )
        if not self.tasks and len(given) < 2:
            raise ValueError("a run needs task and data, or tasks: name -> {task, data}")
        if self.mixing is not None and not self.tasks:
            raise ValueError("mixing is for several tasks (tasks: name -> {task, data}): remove it")
        for part, section in self.parts.items():
            for name in ("dev", "test"):
                if getattr(section.data, name) is not None and getattr(section.data.split, name) > 0:
                    key = f"tasks.{part}.data" if part else "data"
                    raise ValueError(
                        f"{key}.{name} and {key}.split.{name} exclude each other: remove one of them"
                    )
        if self.train.early_stopping_patience and not self.has_dev:
            raise ValueError(
                "train.early_stopping_patience needs a dev set: give data.dev or data.split.dev, or remove it"
            )
        return self


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run's configuration.

    Args:
        path: a YAML file.
        overrides: ``train.epochs=5``: the key and, in YAML, its new value; a list or a whole section is fine.

    Raises:
        ConfigError: with everything that is wrong, each at its file and key.
    """
    tree = read_yaml(Path(path))
    if not isinstance(tree, dict):
        allowed = ", ".join(RunConfig.model_fields)
        raise ConfigError(
            f"{path} is no configuration", [Problem(str(path), f"expected sections: {allowed}")]
        )
    written = deepcopy(tree)
    overridden = [_override(tree, text) for text in overrides]

    def place(key: Key) -> str:
        from_command_line = any(
            key[: len(given)] == given or (given[: len(key)] == key and not _holds(written, key))
            for given in overridden
        )
        return ": ".join(filter(None, ["command line" if from_command_line else str(path), key_text(key)]))

    config, problems = _validated(tree, place)
    if config is None or problems:
        raise ConfigError(f"{path} can't be used", problems)
    return config


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The configuration with other values at some keys.

    Args:
        values: by dotted key: ``train.learning_rate``.

    Raises:
        ConfigError: with everything that is wrong, each at its key.
    """
    tree = config_tree(config)
    for name, value in values.items():
        _put(tree, tuple(name.split(".")), value)
    found, problems = _validated(tree, key_text)
    if found is None or problems:
        raise ConfigError("the configuration can't be used:", problems)
    return found


def load_source(path: str, options: Sequence[str] = ()) -> Source:
    """A data source given on the command line.

    Args:
        path: file, folder or ``sample:NAME/SPLIT``.
        options: reading options: ``format=conll``, ``columns={text: 0, label: 1}``; also with the name that messages
            and configurations have for them, ``data.format=conll``.

    Raises:
        ConfigError: with everything that is wrong.
    """
    tree: dict[str, Any] = {"path": path}
    for option in options:
        _override(tree, option.removeprefix("data."))
    try:
        return Source.model_validate(tree)
    except ValidationError as error:
        problems = describe(
            error.errors(),
            tree,
            record=Source,
            sections={},
            place=lambda key: f"command line: {key_text(key)}",
        )
        raise ConfigError(f"{path} can't be read this way", list(problems.values())) from None


def save_config(config: RunConfig, path: Path) -> None:
    """Writes the whole tree, defaults included, so that :func:`load_config` gives an equal one.

    Raises:
        UserError: the file can't be written.
    """
    write_text(path, dump_yaml(config_tree(config)))


def config_tree(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values.

    A split keeps only what was written for it: its other reading options come from the ``data:`` section.
    """
    tree = config.model_dump(mode="json")
    for key in ("task", "data") if config.tasks else ("tasks", "mixing"):
        del tree[key]
    for part, section in config.parts.items():
        written = tree["tasks"][part]["data"] if part else tree["data"]
        for name in SPLITS:
            source: Source | None = getattr(section.data, name)
            if source is not None:
                written[name] = source.model_dump(mode="json", exclude_unset=True)
    return tree


def _override(tree: dict[str, Any], text: str) -> Key:
    """Puts ``a.b=value`` into the tree and returns its key."""
    name, equals, value = text.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        message = "expected key=value, for example train.epochs=5"
        raise ConfigError("the command line can't be used", [Problem(f"command line: {text}", message)])
    _put(tree, key, parse_yaml(value, f"command line: {name}"))
    return key


def _put(tree: dict[str, Any], key: Key, value: Any) -> None:
    """Sections on the way that are missing are made."""
    section: Any = tree
    for part in key[:-1]:
        inner = section.get(part)
        if isinstance(inner, str) and part in SPLITS:
            inner = {"path": inner}
        section[part] = inner = dict(inner) if isinstance(inner, dict) else {}
        section = inner
    section[key[-1]] = value


def _holds(tree: Any, key: Key) -> bool:
    return not key or (isinstance(tree, dict) and key[0] in tree and _holds(tree[key[0]], key[1:]))


def _validated(tree: dict[str, Any], place: Callable[[Key], str]) -> tuple[RunConfig | None, list[Problem]]:
    """The record, or all that is wrong with the tree.

    Checks of keys against each other run only once every key is fine by itself, so what is found wrong is taken
    out and the rest looked at again until nothing new turns up. A value that is gone can make its section look
    incomplete to the checks over all sections (key ``()``), so these count only as long as nothing but unknown
    keys was taken out.
    """
    problems: dict[Key, Problem] = {}
    while True:
        found = _problems(tree, place)
        if isinstance(found, RunConfig):
            return (None if problems else found), _in_order(problems)
        only_unknown = all(problem.message.startswith("unknown key") for problem in problems.values())
        new = {key: found[key] for key in found if key not in problems and (key or only_unknown)}
        if not new:
            return None, _in_order(problems)
        problems.update(new)
        for key in new:
            tree = _without(tree, key)


def _problems(tree: dict[str, Any], place: Callable[[Key], str]) -> RunConfig | dict[Key, Problem]:
    checked = dict(tree)
    sections: dict[str, type[BaseModel]] = {}
    found: dict[Key, Problem] = {}
    if isinstance(tree.get("tasks"), dict):
        checked["tasks"] = {}
        for name, entry in tree["tasks"].items():
            checked["tasks"][str(name)], wrong = checked_part(entry, ("tasks", str(name)), place)
            found |= wrong
    elif "tasks" not in tree:
        found = {(name,): Problem(place((name,)), MISSING) for name in ("task", "data") if name not in tree}
        checked |= {"data": STAND_IN.data} if ("data",) in found else {}
        checked |= {"task": STAND_IN.task} if ("task",) in found else {}
    if isinstance(tree.get("task"), dict):
        checked["task"], sections["task"], wrong = checked_task(tree["task"], ("task",), place)
        found |= wrong
    try:
        config = RunConfig.model_validate(checked)
    except ValidationError as error:
        found |= describe(error.errors(), tree, record=RunConfig, sections=sections, place=place)
        return found
    return found or config


def _without(tree: dict[str, Any], key: Key) -> dict[str, Any]:
    """A copy of the tree without this value, or without the list that it stands in."""
    name = key[0] if key else None
    if not isinstance(name, str) or name not in tree:
        return tree
    if len(key) > 1 and isinstance(tree[name], dict):
        return {**tree, name: _without(tree[name], key[1:])}
    return {other: value for other, value in tree.items() if other != name}


def _in_order(problems: Mapping[Key, Problem]) -> list[Problem]:
    order = {name: i for i, name in enumerate(RunConfig.model_fields)}
    return [
        problems[key] for key in sorted(problems, key=lambda key: order.get(str(key[0]) if key else "", -1))
    ]
