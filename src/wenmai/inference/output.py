"""How ``wenmai predict`` writes a prediction: JSON, or for trees a form that other tools read."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wenmai.data.conllu import conllu_lines
from wenmai.errors import UserError
from wenmai.tasks.dependency_parsing import DependencyParsing
from wenmai.tasks.task import Prediction, Task

Form = Literal["json", "conllu", "ltp"]
Writer = Callable[[Prediction], str]


@dataclass
class Passes:
    """How much of the encoder's work the tasks of one model share.

    Args:
        texts: predictions seen.
        rows: that the encoder read for all tasks together.
        alone: that it would have read for each task by itself; 0 for a model of a single task.
    """

    texts: int = 0
    rows: int = 0
    alone: int = 0

    def saw(self, prediction: Prediction) -> None:
        """Counts one more."""
        if "rows_alone" in prediction:
            self.texts += 1
            self.rows += prediction["rows"]
            self.alone += prediction["rows_alone"]

    def __str__(self) -> str:
        return (
            f"{self.texts:,} items: the encoder read {self.rows:,} rows for all tasks together, {self.alone:,} if each "
            "had read alone"
        )


def writer(form: Form, task: Task[Any, Any]) -> Writer:
    """Prediction to whole lines of text.

    Raises:
        UserError: the form is one of trees, and the task's predictions have none.
    """
    if form == "json":
        return json_line
    if not isinstance(task, DependencyParsing):
        raise UserError(
            f"--output-format {form}: is for dependency_parsing; a {task.name} model's predictions are written as json"
        )
    return conllu_lines if form == "conllu" else lambda prediction: json_line(ltp(prediction))


def json_line(prediction: Mapping[str, Any]) -> str:
    return json.dumps(prediction, ensure_ascii=False) + "\n"


def ltp(prediction: Prediction) -> Prediction:
    """A prediction of dependency parsing in the shape that LTP 4 answers in.

    Returns:
        ``cws``: the words of each sentence; ``pos``: their parts of speech; ``dep``: of each sentence ``head`` (numbers
        from 1, 0 for the root) and ``label``. What the model does not find is left out.
    """
    words = prediction["words"]
    starts = [word["start"] for word in words]
    sentences = [
        words[bisect_left(starts, sentence["start"]) : bisect_left(starts, sentence["end"])]
        for sentence in prediction["sentences"]
    ]
    found: Prediction = {} if "id" not in prediction else {"id": prediction["id"]}
    found["cws"] = [[word["text"] for word in sentence] for sentence in sentences]
    if all("upos" in word for word in words):
        found["pos"] = [[word["upos"] for word in sentence] for sentence in sentences]
    if all("head" in word for word in words):
        found["dep"] = [
            {
                "head": [word["head"] for word in sentence],
                "label": [word["relation"] for word in sentence],
            }
            for sentence in sentences
        ]
    return found
