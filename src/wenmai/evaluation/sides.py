"""What two runs left behind, brought to the same examples, so that they can be compared.

A side is one run, or several runs of one configuration with different seeds; its scores are then their mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wenmai.config import task_section
from wenmai.errors import UserError
from wenmai.evaluation.cases import Line, read_predictions
from wenmai.evaluation.runs import Evaluation, Run, read_run
from wenmai.evaluation.seeds import runs_of
from wenmai.metrics.scores import Indices, Scores, Values
from wenmai.tasks import TASKS
from wenmai.tasks.task import Example, Task, TaskConfig

Groups = dict[str, dict[str, Scores]]


@dataclass(frozen=True)
class Judged:
    """One run's predictions for a test set.

    Args:
        task: as the run was configured, with the labels of all runs compared.
        lines: of ``predictions.jsonl``, those whose records have labels.
        numbers: of these lines in the file, from 1.
        examples: the records, as the lines hold them.
        known: what the training set held, to tell seen from unseen entities.
    """

    run: Run
    evaluation: Evaluation
    task: Task[Any, Any]
    lines: list[Line]
    numbers: list[int]
    examples: list[Example]
    known: frozenset[str]

    @property
    def path(self) -> Path:
        return self.evaluation.predictions

    def scores(self) -> Scores:
        return self.task.score(self.examples, self._predictions)

    def breakdowns(self, known: frozenset[str]) -> Groups:
        return self.task.breakdowns(self.examples, self._predictions, known)

    @property
    def _predictions(self) -> list[dict[str, Any]]:
        return [dict(line) for line in self.lines]


@dataclass(frozen=True, eq=False)
class AveragedScores(Scores):
    """The mean of several scores of the same examples, metric by metric; all are resampled together.

    Args:
        runs: one of each seed; metrics that not all of them have are left out.
    """

    runs: Sequence[Scores]
    _drawn: dict[tuple[int, int], dict[str, NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        return self.runs[0].examples

    def values(self) -> Values:
        each = [scores.values() for scores in self.runs]
        return {key: float(np.mean([values[key] for values in each])) for key in _shared(each)}

    def subset(self, indices: Indices) -> AveragedScores:
        return AveragedScores([scores.subset(indices) for scores in self.runs])

    def resampled(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, NDArray[np.float64]]:
        """See :meth:`Scores.resampled`; drawn once for all metrics."""
        if (resamples, seed) not in self._drawn:
            each = [scores.resampled(resamples=resamples, seed=seed) for scores in self.runs]
            self._drawn[resamples, seed] = {
                key: np.mean([values[key] for values in each], axis=0) for key in _shared(each)
            }
        return self._drawn[resamples, seed]


def read_sides(folders: Sequence[Path], split: str) -> list[list[Judged]]:
    """The runs of each folder, all judged on the same examples.

    Raises:
        UserError: a folder is no run or was not evaluated on the split, or tasks, examples or labels differ.
    """
    found = [[_evaluated(run, split) for run in runs_of(folder)] for folder in folders]
    evaluations = [pair for side in found for pair in side]
    tasks = {str(evaluation.metrics.get("task")) for _, evaluation in evaluations}
    if len(tasks) > 1:
        raise UserError(f"runs of different tasks can't be compared: {', '.join(sorted(tasks))}")
    labels = sorted(
        {label for _, evaluation in evaluations for label in evaluation.metrics.get("labels", ())}
    )
    sides = [[_judged(run, evaluation, labels) for run, evaluation in side] for side in found]
    first, *others = (judged for side in sides for judged in side)
    for other in others:
        _refuse_different(first, other)
    return sides


def averaged(side: Sequence[Judged]) -> AveragedScores:
    return AveragedScores([judged.scores() for judged in side])


def averaged_breakdowns(
    side: Sequence[Judged], known: frozenset[str]
) -> dict[str, dict[str, AveragedScores]]:
    """The task's own cuts; groups that not all runs have are left out, as they hold no gold."""
    each = [judged.breakdowns(known) for judged in side]
    return {
        cut: {
            group: AveragedScores([groups[cut][group] for groups in each])
            for group in _shared([groups[cut] for groups in each])
        }
        for cut in _shared(each)
    }


def _shared(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that all have, in the order of the first."""
    return [key for key in mappings[0] if all(key in other for other in mappings)]


def _evaluated(folder: Path, split: str) -> tuple[Run, Evaluation]:
    run = read_run(folder)
    for evaluation in run.evaluations:
        if evaluation.split == split:
            return run, evaluation
    has = ", ".join(evaluation.split for evaluation in run.evaluations) or "nothing"
    raise UserError(
        f"{folder}: was not evaluated on '{split}' (evaluated: {has}): "
        f"wenmai evaluate {folder} DATA --split {split}"
    )


def _judged(run: Run, evaluation: Evaluation, labels: Sequence[str]) -> Judged:
    task_type = TASKS.get(str(evaluation.metrics.get("task")))
    try:
        part = evaluation.metrics.get("part")
        home = run.settings if part is None else run.settings.get("tasks", {}).get(part, {})
        config = task_section(home.get("task"))
        if task_type is None or not isinstance(config, TaskConfig):
            raise ValueError("its config.yaml names no task")
    except ValueError as error:
        raise UserError(f"{run.folder}: can't be compared: {error}; give the folder of a run") from error
    lines, numbers, examples = [], [], []
    for number, line in enumerate(read_predictions(evaluation.predictions), start=1):
        example = _example(task_type.Example, line, f"{evaluation.predictions}:{number}")
        if example.labelled:
            lines.append(line)
            numbers.append(number)
            examples.append(example)
    known = run.folder / "known.json"
    inventory = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []
    if part is not None:
        inventory = [item.removeprefix(f"{part}/") for item in inventory if item.startswith(f"{part}/")]
    return Judged(
        run=run,
        evaluation=evaluation,
        task=task_type(config, labels),
        lines=lines,
        numbers=numbers,
        examples=examples,
        known=frozenset(inventory),
    )


def _example(example_type: type[Example], line: Line, place: str) -> Example:
    """The record that a line was predicted for: its texts stand in the prediction, its labels in ``gold``."""
    fields = {name: line[name] for name in example_type.inputs() if name in line}
    try:
        return example_type.model_validate({"id": line.get("id"), **fields, **line.get("gold", {})})
    except (ValidationError, TypeError) as error:
        raise UserError(f"{place}: holds no record that can be scored: run wenmai evaluate again") from error


def _refuse_different(one: Judged, other: Judged) -> None:
    if one.task.primary_metric != other.task.primary_metric:
        raise UserError(
            f"{one.run.folder} is scored by {one.task.primary_metric}, {other.run.folder} by "
            f"{other.task.primary_metric}: their task sections differ too much to compare them"
        )
    advice = "evaluate both on the same file"
    if len(one.examples) != len(other.examples):
        raise UserError(
            f"{one.run.folder} was scored on {len(one.examples)} examples, {other.run.folder} on "
            f"{len(other.examples)}: {advice}"
        )
    for i, (left, right) in enumerate(zip(one.examples, other.examples, strict=True)):
        if left.model_copy(update={"id": None}) != right.model_copy(update={"id": None}):
            raise UserError(
                f"{one.path}:{one.numbers[i]} and {other.path}:{other.numbers[i]} hold different examples or "
                f"labels: {advice}"
            )
