"""The scores of several tasks side by side, and one number for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.scores import Indices, Scores, Values

MEAN = "mean"
LABEL_PREFIX = "label/"


@dataclass(frozen=True, eq=False)
class MultiTaskScores(Scores):
    """Every metric of every task as ``TASK/METRIC``, and ``mean``, that of the tasks' primary metrics.

    The mean is over tasks, not over examples: a task with many examples does not count for more.

    Args:
        tasks: the scores of each task that has examples.
        primary: the metric of each task that ``mean`` takes.
        task_N: which of the tasks each of all examples belongs to.
        place_N: which of that task's examples it is.
    """

    tasks: Mapping[str, Scores]
    primary: Mapping[str, str]
    task_N: NDArray[np.int64]
    place_N: NDArray[np.int64]

    @property
    def examples(self) -> int:
        return len(self.task_N)

    def values(self) -> Values:
        found: Values = {}
        for name, scores in self.tasks.items():
            for metric, value in scores.values().items():
                if metric.startswith(LABEL_PREFIX):
                    found[f"{LABEL_PREFIX}{name}/{metric.removeprefix(LABEL_PREFIX)}"] = value
                else:
                    found[f"{name}/{metric}"] = value
        best = [found[f"{name}/{self.primary[name]}"] for name in self.tasks]
        return {MEAN: float(np.mean(best)) if best else 0.0, **found}

    def subset(self, indices: Indices) -> MultiTaskScores:
        chosen = np.asarray(indices, dtype=np.int64)
        task_N, place_N = self.task_N[chosen], np.zeros(len(chosen), dtype=np.int64)
        parts: dict[str, Scores] = {}
        for number, (name, scores) in enumerate(self.tasks.items()):
            own = np.flatnonzero(task_N == number)
            parts[name] = scores.subset(self.place_N[chosen[own]])
            place_N[own] = np.arange(len(own))
        return MultiTaskScores(parts, self.primary, task_N, place_N)
