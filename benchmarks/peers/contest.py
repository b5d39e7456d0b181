"""What every side of a contest on a real task is given, and how it is scored: the same for all.

A side trains on a budget of tokens in steps of about so many, is scored on dev twice, in the middle and at the end, and
predicts with the better of the two models. Predictions have the shape of wenmai's task, whose scorer scores them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peers.measure import decay_groups
from wenmai.backbones.load import load_backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import RunConfig
from wenmai.tasks.task import Prediction, Task

WARM_UP = 0.1
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
"""As in wenmai's configuration, whose defaults the recipes leave alone."""

Predict = Callable[[Sequence[Any]], list[Prediction]]


@dataclass
class Contest:
    """Args:
    task: of wenmai, for its labels and its scorer.
    train, dev, scored: examples; ``scored`` may be ``dev``.
    encoder: a plain folder of transformers, see :func:`plain_folder`.
    tokens, step_tokens: of the whole run and of one step.
    rate: the peak learning rate; linear warm-up and decay.
    options: what else the side can choose, such as ``head_rate``, the peak rate of all but the encoder.
    """

    task: Task[Any, Any]
    tokenizer: Tokenizer
    train: Sequence[Any]
    dev: Sequence[Any]
    scored: Sequence[Any]
    encoder: Path
    scratch: Path
    seed: int
    tokens: int
    step_tokens: int
    rate: float
    options: dict[str, Any]

    def metrics(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, float]:
        values = self.task.score(examples, predictions).values()
        return {name: value for name, value in values.items() if not name.startswith("label/")}


@dataclass
class Steps:
    """A budget in batches of a fixed number of rows, which is what peers have."""

    rows_a_step: int
    steps: int

    @classmethod
    def of(cls, lengths: Sequence[int], contest: Contest) -> Steps:
        mean = sum(lengths) / len(lengths)
        rows = max(1, round(contest.step_tokens / mean))
        return cls(rows, max(2, round(contest.tokens / (rows * mean))))


@dataclass
class Judge:
    """Scores on dev when asked, and keeps the weights of the best model."""

    contest: Contest
    model: nn.Module
    predict: Predict
    dev: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self) -> None:
        was_training = self.model.training
        found = self.contest.metrics(self.contest.dev, self.predict(self.contest.dev))
        value = found[self.contest.task.primary_metric]
        if not self.dev or value > max(self.dev):
            self.best = copy.deepcopy(self.model.state_dict())
        self.dev.append(value)
        self.model.train(was_training)

    def result(self, *, tokens: int, steps: int, started: float) -> dict[str, Any]:
        """What a side reports; ``started``: ``time.perf_counter()`` when training began."""
        trained = time.perf_counter() - started
        self.model.load_state_dict(self.best)
        metrics = self.contest.metrics(self.contest.scored, self.predict(self.contest.scored))
        metric = self.contest.task.primary_metric
        return {
            "metric": metric,
            "value": metrics[metric],
            "metrics": metrics,
            "dev": self.dev,
            "examples": len(self.contest.scored),
            "tokens": tokens,
            "steps": steps,
            "training_seconds": round(trained, 1),
        }


def groups_of(contest: Contest, encoder: nn.Module, model: nn.Module) -> list[dict[str, Any]]:
    """Parameters for an optimizer: decay of matrices only, and the head's own rate if the contest has one."""
    inside = {id(parameter) for parameter in encoder.parameters()}
    head = nn.ParameterList(one for one in model.parameters() if id(one) not in inside)
    head_rate = contest.options.get("head_rate", contest.rate)
    return [
        {**group, "lr": rate}
        for part, rate in ((encoder, contest.rate), (head, head_rate))
        for group in decay_groups(part, WEIGHT_DECAY)
    ]


def plain_folder(config: RunConfig, folder: Path) -> Tokenizer:
    """Writes the encoder of a configuration in fp32 with its tokenizer, as any model folder of transformers."""
    backbone, tokenizer = load_backbone(config.backbone)
    backbone.config.dtype = "float32"
    backbone.save(folder)
    tokenizer.pretrained.save_pretrained(folder)
    return tokenizer
