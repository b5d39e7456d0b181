"""Several tasks on one encoder, as one task: each does its own part, and what they read alike is read once.

A run of several tasks and its bundle see this task only; it hands everything on to the task whose example it is. A text
to predict for belongs to all tasks that predict for texts: where their rows are equal (the same tokens, from the same
characters), the encoder reads them once, for all heads together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, ValidationError, field_validator
from torch import nn

from wenmai.backbones.load import Backbone
from wenmai.backbones.new_tokens import NewToken
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.multi_task import MultiTaskHead, wanted
from wenmai.metrics.multi_task import MEAN, MultiTaskScores
from wenmai.metrics.scores import Scores
from wenmai.tasks import TASKS
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig

NAME = re.compile(r"[\w-]+")
TASKS_KEY = "tasks"


def name_problem(name: str) -> str | None:
    """Why a task can't be called so: its name is part of keys, file names and names of parameters."""
    if not NAME.fullmatch(name):
        return f"'{name}' can't name a task: take letters, digits, _ and -"
    if hasattr(nn.ModuleDict(), name):
        return f"'{name}' can't name a task: PyTorch uses this name itself; take another"
    return None


class MultiTaskExample(Example):
    """A record of one task, or what several tasks are to predict for: the name of a task -> its example."""

    tasks: dict[str, SerializeAsAny[Example]]

    @property
    def labelled(self) -> bool:
        return any(example.labelled for example in self.tasks.values())

    @property
    def guesses(self) -> Sequence[str]:
        return [guess for example in self.tasks.values() for guess in example.guesses]

    @property
    def length(self) -> int:
        return max(example.length for example in self.tasks.values())

    @classmethod
    def of(cls, name: str, example: Example) -> MultiTaskExample:
        """The record of one task."""
        return cls(tasks={name: example}, id=example.id)


class MultiTaskConfig(TaskConfig):
    """What a bundle keeps of its tasks."""

    name: Literal["multi_task"] = "multi_task"
    tasks: dict[str, SerializeAsAny[TaskConfig]] = Field(description="name -> task section")
    weights: dict[str, float] = Field(description="name -> weight of its loss")

    @field_validator("tasks", mode="before")
    @classmethod
    def _as_records(cls, given: Any) -> Any:
        return {name: _task_config(section) for name, section in given.items()}


def _task_config(section: Any) -> Any:
    if isinstance(section, TaskConfig):
        return section
    if section["name"] not in TASKS:
        raise ValueError(f"task {section['name']!r} is unknown; known are {sorted(TASKS)}")
    return TASKS[section["name"]].Config.model_validate(section)


@dataclass
class SharedRow(Row):
    """A row that is one of the rows of several tasks.

    Args:
        places: name of a task -> which of its rows it is.
    """

    places: dict[str, int] = field(default_factory=dict)


class MultiTask(Task[MultiTaskExample, MultiTaskConfig]):
    """Tasks by name. Its labels are ``TASK/LABEL``."""

    name = "multi_task"
    primary_metric = MEAN
    Example = MultiTaskExample
    Config = MultiTaskConfig

    def __init__(self, config: MultiTaskConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        own: dict[str, list[str]] = {name: [] for name in config.tasks}
        for label in labels:
            name, _, rest = label.partition("/")
            own[name].append(rest)
        self.tasks: dict[str, Task[Any, Any]] = {
            name: TASKS[section.name](section, own[name]) for name, section in config.tasks.items()
        }

    @classmethod
    def of(cls, tasks: Mapping[str, Task[Any, Any]], weights: Mapping[str, float]) -> MultiTask:
        """From the tasks themselves."""
        config = MultiTaskConfig(
            tasks={name: task.config for name, task in tasks.items()},
            weights=dict(weights),
            max_length=max(task.config.max_length for task in tasks.values()),
        )
        return cls(config, [f"{name}/{label}" for name, task in tasks.items() for label in task.labels])

    @classmethod
    def collect_labels(cls, config: MultiTaskConfig, examples: Iterable[MultiTaskExample]) -> list[str]:
        own: dict[str, list[Example]] = {name: [] for name in config.tasks}
        for example in examples:
            for name, record in example.tasks.items():
                own[name].append(record)
        return [
            f"{name}/{label}"
            for name, section in config.tasks.items()
            for label in TASKS[section.name].collect_labels(section, own[name])
        ]

    def label_problems(self, example: MultiTaskExample) -> list[str]:
        return [
            f"{name}: {problem}"
            for name, own in example.tasks.items()
            for problem in self.tasks[name].label_problems(own)
        ]

    def training_problems(self, example: MultiTaskExample) -> list[str]:
        return [
            f"{name}: {problem}"
            for name, own in example.tasks.items()
            for problem in self.tasks[name].training_problems(own)
        ]

    def as_example(self, item: Any) -> MultiTaskExample:
        """For all tasks that predict for such an item; not for those that write, which an encoder's one pass can't do.

        Raises:
            UserError: none of them does.
        """
        found: dict[str, Example] = {}
        refused: dict[str, str] = {}
        for name, task in self.tasks.items():
            if task.generation() is not None:
                refused[name] = "writes texts, which it does alone: name it as the part to ask"
                continue
            try:
                found[name] = task.as_example(item)
            except UserError as error:
                refused[name] = str(error)
            except ValidationError as error:
                refused[name] = "; ".join(problem["msg"] for problem in error.errors())
        if not found:
            raise UserError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
        return MultiTaskExample(tasks=found, id=next(iter(found.values())).id)

    def featurize(self, example: MultiTaskExample, tokenizer: Tokenizer) -> list[Row]:
        return _shared(
            {name: self.tasks[name].featurize(own, tokenizer) for name, own in example.tasks.items()}
        )

    def evaluation_rows(self, example: MultiTaskExample, tokenizer: Tokenizer) -> list[Row]:
        return _shared(
            {name: self.tasks[name].evaluation_rows(own, tokenizer) for name, own in example.tasks.items()}
        )

    def prepare_draws(self, tokenizer: Tokenizer, vectors_VH: NDArray[np.float32] | None) -> None:
        for task in self.tasks.values():
            task.prepare_draws(tokenizer, vectors_VH)

    @property
    def draw_files(self) -> list[Path]:
        return [path for task in self.tasks.values() for path in task.draw_files]

    @property
    def own_tokens(self) -> Sequence[NewToken]:
        """Those of all tasks, each once."""
        tokens = [token for task in self.tasks.values() for token in task.own_tokens]
        return list({token.text: token for token in reversed(tokens)}.values())[::-1]

    def read_vocabulary(self, tokenizer: Tokenizer) -> None:
        for task in self.tasks.values():
            task.read_vocabulary(tokenizer)

    def build_head(self, backbone: Backbone) -> Head:
        heads = {name: task.build_head(backbone) for name, task in self.tasks.items()}
        return MultiTaskHead(heads, self.config.weights)

    def start_head(self, head: Head, backbone: Backbone) -> None:
        assert isinstance(head, MultiTaskHead)
        for name, own in head.heads.items():
            self.tasks[name].start_head(own, backbone)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: MultiTaskExample
    ) -> Prediction:
        return self._answered(outputs, rows, example, lambda task: task.decode)

    def answer(
        self,
        outputs: Sequence[RowOutputs],
        rows: Sequence[Row],
        example: MultiTaskExample,
        tokenizer: Tokenizer,
    ) -> Prediction:
        def asked(task: Task[Any, Any]) -> Callable[..., Prediction]:
            return lambda found, own, record: task.answer(found, own, record, tokenizer)

        return self._answered(outputs, rows, example, asked)

    def _answered(
        self,
        outputs: Sequence[RowOutputs],
        rows: Sequence[Row],
        example: MultiTaskExample,
        ask: Callable[[Task[Any, Any]], Callable[..., Prediction]],
    ) -> Prediction:
        """The answers of all tasks asked, and how many rows the encoder read for them.

        Returns:
            the texts that the tasks were asked about; ``tasks``: name -> what its own model would answer, without
            these; ``rows``, ``rows_alone``: read for all of them together, and if each had read by itself.
        """
        found: dict[str, Prediction] = {}
        for name, own in example.tasks.items():
            at = {
                row.places[name]: i
                for i, row in enumerate(rows)
                if isinstance(row, SharedRow) and name in row.places
            }
            chosen = [at[number] for number in range(len(at))]
            answers = [_of_task(name, outputs[i]) for i in chosen]
            found[name] = ask(self.tasks[name])(answers, [rows[i] for i in chosen], own)
        texts: Prediction = {}
        for name, prediction in found.items():
            for key in example.tasks[name].inputs():
                if key in prediction and texts.setdefault(key, prediction[key]) == prediction[key]:
                    del prediction[key]
        alone = sum(len(row.places) for row in rows if isinstance(row, SharedRow))
        return {**texts, TASKS_KEY: found, "rows": len(rows), "rows_alone": alone}

    def score(
        self, examples: Sequence[MultiTaskExample], predictions: Sequence[Prediction]
    ) -> MultiTaskScores:
        """Of examples of one task each."""
        task_N = np.zeros(len(examples), dtype=np.int64)
        place_N = np.zeros(len(examples), dtype=np.int64)
        names: list[str] = []
        scores: dict[str, Scores] = {}
        for name, task in self.tasks.items():
            own = [i for i, example in enumerate(examples) if name in example.tasks]
            if own:
                task_N[own], place_N[own] = len(names), np.arange(len(own))
                names.append(name)
                scores[name] = task.score(
                    [examples[i].tasks[name] for i in own], [of_task(name, predictions[i]) for i in own]
                )
        primary = {name: self.tasks[name].primary_metric for name in names}
        return MultiTaskScores(scores, primary, task_N, place_N)

    def settle(
        self, examples: Sequence[MultiTaskExample], predictions: Sequence[Prediction]
    ) -> list[Prediction]:
        done = list(predictions)
        for name, task in self.tasks.items():
            own = [i for i, example in enumerate(examples) if name in example.tasks]
            if own:
                settled = task.settle(
                    [examples[i].tasks[name] for i in own], [of_task(name, predictions[i]) for i in own]
                )
                for i, prediction in zip(own, settled, strict=True):
                    done[i] = {**done[i], TASKS_KEY: {**done[i][TASKS_KEY], name: prediction}}
        return done

    def inventory(self, examples: Iterable[MultiTaskExample]) -> set[str]:
        """``TASK/`` and what stands in that task's own."""
        return {
            f"{name}/{item}"
            for example in examples
            for name, own in example.tasks.items()
            for item in self.tasks[name].inventory([own])
        }

    def lost_labels(self, example: MultiTaskExample, tokenizer: Tokenizer) -> list[str]:
        return [
            f"{name}: {lost}"
            for name, own in example.tasks.items()
            for lost in self.tasks[name].lost_labels(own, tokenizer)
        ]

    def meta(self) -> Mapping[str, Any]:
        """With what the tasks have settled."""
        config = self.config.model_dump(mode="json")
        config["tasks"] = {name: task.meta()["config"] for name, task in self.tasks.items()}
        return {"name": self.name, "config": config, "labels": self.labels}


def of_task(name: str, prediction: Prediction) -> Prediction:
    """What the task's own model would answer."""
    texts = {key: value for key, value in prediction.items() if key not in (TASKS_KEY, "rows", "rows_alone")}
    return {**texts, **prediction[TASKS_KEY][name]}


def _of_task(name: str, outputs: RowOutputs) -> RowOutputs:
    """The outputs of one head, under the names it gives them."""
    start = f"{name}/"
    return {key.removeprefix(start): value for key, value in outputs.items() if key.startswith(start)}


def _shared(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The rows of all tasks, equal ones once; rows with targets are never shared, as targets differ."""
    found: dict[Any, SharedRow] = {}
    for name, own in rows.items():
        for number, row in enumerate(own):
            content = (
                tuple((key, tuple(values)) for key, values in sorted(row.inputs.items())),
                tuple(row.offsets),
                row.content,
                row.window,
            )
            # windows of a text may be equal too: a task's rows stay apart
            key = (content, number, name if row.targets else "")
            shared = found.setdefault(
                key,
                SharedRow(
                    inputs=row.inputs,
                    targets=dict(row.targets),
                    offsets=row.offsets,
                    content=row.content,
                    window=row.window,
                ),
            )
            shared.targets[wanted(name)] = 1
            shared.places[name] = number
    return list(found.values())
