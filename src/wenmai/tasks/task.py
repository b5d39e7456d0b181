"""The contract of a task: one file that knows everything about it, from the record in a file to the score.

A task sees text and arrays only. Its head (``wenmai.heads``) sees tensors only. Both are written against this page:

* an ``Example`` is one record of the user's file, validated; offsets are characters of its own text, end-exclusive
* ``featurize`` turns it into rows of ids, usually one, several for long texts and for groups of texts
* ``decode`` gets the head's outputs for these rows back and makes a prediction about the ORIGINAL text
* ``score`` compares predictions with examples
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from wenmai.backbones.load import Backbone
from wenmai.backbones.new_tokens import NewToken
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Arrays, Row
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.metrics.scores import Scores
from wenmai.tasks.generation import Generation

Prediction = dict[str, Any]
"""A JSON object: what ``predictions.jsonl`` holds a line of."""

RowOutputs = dict[str, NDArray[np.float32]]
"""A head's outputs for one row, without the batch dimension and without padding."""


class Example(BaseModel):
    """One record of the user's data. ``id`` is carried through to the prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | int | None = None

    @property
    def labelled(self) -> bool:
        """Whether the record holds what training and scoring need."""
        return True

    @property
    def learnable(self) -> bool:
        """Whether training can use the record: where it is labelled, unless a task learns from texts alone too."""
        return self.labelled

    @property
    def guesses(self) -> Sequence[str]:
        """What the record left open and reading settled by a rule, each as a sentence for ``wenmai check``."""
        return ()

    @property
    @abstractmethod
    def length(self) -> int:
        """Characters, for slices by length."""

    @classmethod
    def inputs(cls) -> set[str]:
        """The fields that a prediction repeats and that are no gold: those that a record must have even without labels,
        its texts."""
        return {name for name, field in cls.model_fields.items() if field.is_required()}


class TaskConfig(BaseModel):
    """The ``task:`` section; every task adds its own keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    max_length: int = Field(default=256, ge=8, description="tokens of one row, special tokens included")


E = TypeVar("E", bound=Example)
C = TypeVar("C", bound=TaskConfig)


class Task(ABC, Generic[E, C]):
    """A task with its labels, ready to train, decode and score.

    Args:
        config: its section of the configuration.
        labels: what :meth:`collect_labels` found in the training set, in the order of the head's outputs.
    """

    name: ClassVar[str]
    primary_metric: str
    """A key of the scores; higher is better."""
    Example: ClassVar[type[Example]]
    Config: ClassVar[type[TaskConfig]]
    rows_stay_together: ClassVar[bool] = False
    """All rows of an example go into the same batch (groups of texts); otherwise windows train one by one."""

    def __init__(self, config: C, labels: Sequence[str]):
        self.config = config
        self.labels = list(labels)
        self.label_ids = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def collect_labels(cls, config: C, examples: Iterable[E]) -> list[str]:
        """The labels of the training set, sorted; nothing for tasks without labels."""
        return []

    def label_problems(self, example: E) -> list[str]:
        """Labels of a dev or test example that training did not know, each as a sentence."""
        return []

    def training_problems(self, example: E) -> list[str]:
        """Why a training example can't be learned from, each as a sentence; by default the same as of any other."""
        return self.label_problems(example)

    @abstractmethod
    def as_example(self, item: Any) -> E:
        """A text (or a pair, or a record without labels) that the user wants a prediction for.

        Raises:
            UserError: it is neither.
        """

    @abstractmethod
    def featurize(self, example: E, tokenizer: Tokenizer) -> list[Row]:
        """Rows for the backbone, with targets if the example is labelled. At least one row, also for empty text."""

    @property
    def packed(self) -> bool:
        """Whether consecutive examples are joined to rows of ``max_length`` for training; see ``data/packing.py``."""
        return False

    def prepare_draws(self, tokenizer: Tokenizer, vectors_VH: NDArray[np.float32] | None) -> None:
        """Called once before training, so that workers inherit what :meth:`augment` needs of the backbone.

        Also when a run goes on it sees the backbone as the run began.

        Args:
            vectors_VH: the word embeddings, which training is going to change: copy what is to be kept. None if they
                were drawn and mean nothing.
        """

    @property
    def draw_files(self) -> list[Path]:
        """Files beside the data that decide what :meth:`augment` makes: a run does not go on with others."""
        return []

    def augment(self, batch: Arrays, tokenizer: Tokenizer) -> Arrays:
        """The rows as this epoch's training sees them.

        Args:
            batch: of :func:`wenmai.data.rows.stack`, and ``key`` (B,), a hash of (seed, epoch, example, row): draws
                must be functions of it (``wenmai.data.draws``) and of nothing else, so that they are the same after
                resuming, in any process and beside any other rows. Its arrays may be changed.
        """
        return batch

    def training_rows(self, example: E, tokenizer: Tokenizer) -> list[Row]:
        """The rows that training draws from, with targets; the same each time, see :meth:`augment`."""
        return self.featurize(example, tokenizer)

    def evaluation_rows(self, example: E, tokenizer: Tokenizer) -> list[Row]:
        """The rows that a labelled example is scored by; the same in every evaluation."""
        return self.featurize(example, tokenizer)

    @property
    def own_tokens(self) -> Sequence[NewToken]:
        """Tokens that the rows need and that few vocabularies have: the model gets them when a run begins."""
        return ()

    def read_vocabulary(self, tokenizer: Tokenizer) -> None:
        """Called before :meth:`build_head`, for tasks whose head answers in tokens that the configuration names.

        Raises:
            UserError: the vocabulary has not what the task needs.
        """

    @abstractmethod
    def build_head(self, backbone: Backbone) -> Head: ...

    def start_head(self, head: Head, backbone: Backbone) -> None:
        """Called once when a run begins, not when a bundle is opened: weights that the head is to begin with.

        Raises:
            UserError: the backbone has none.
        """

    @abstractmethod
    def decode(self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: E) -> Prediction:
        """The prediction from the outputs of all rows of one example: torch, ONNX and the server alike."""

    def answer(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: E, tokenizer: Tokenizer
    ) -> Prediction:
        """What prediction calls: :meth:`decode`, unless the answer consists of pieces of the vocabulary."""
        return self.decode(outputs, rows, example)

    def generation(self) -> Generation | None:
        """How examples without labels are continued, for tasks that write; None: their rows are decoded."""
        return None

    def written(self, text: str, example: E) -> Prediction:
        """The prediction from what was written behind the example's last row, where :meth:`generation` says how."""
        raise NotImplementedError(f"{self.name} writes no text")

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> Scores:
        """Examples and predictions in the same order; its values hold ``primary_metric``."""

    def settle(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions of the dev set under what can only be chosen there, such as a threshold.

        What is chosen is kept for the predictions to come and goes into :meth:`meta`.
        """
        return list(predictions)

    def breakdowns(
        self, examples: Sequence[E], predictions: Sequence[Prediction], known: frozenset[str]
    ) -> dict[str, dict[str, Scores]]:
        """Cuts that are the task's own, beside the slices by text length: name -> group -> scores.

        Args:
            known: the :meth:`inventory` of the training set; empty if it is not at hand.
        """
        return {}

    def inventory(self, examples: Iterable[E]) -> set[str]:
        """What a model could have learned by heart (label and surface of entities), to score seen and unseen apart."""
        return set()

    def confusion(
        self, examples: Sequence[E], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        """Names and counts (gold, predicted), or None where the task has no classes to mistake for each other."""
        return None

    def confidences(
        self, examples: Sequence[E], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Scores of what was predicted and whether it was right, for calibration; None without scores."""
        return None

    def lost_labels(self, example: E, tokenizer: Tokenizer) -> list[str]:
        """What of the gold labels the rows can't express (spans inside a token, text cut off), each as a sentence."""
        return []

    def meta(self) -> Mapping[str, Any]:
        """The task as JSON, for the bundle."""
        return {"name": self.name, "config": self.config.model_dump(mode="json"), "labels": self.labels}


def text_record(item: Any, task: str) -> dict[str, Any]:
    """The fields of an example without labels, from a text or a record with one.

    Raises:
        UserError: ``item`` is neither.
    """
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):
        return {"text": item["text"], "id": item.get("id")}
    raise UserError(f"{task} predicts for a text or {{'text': ...}}, not for {item!r}")
