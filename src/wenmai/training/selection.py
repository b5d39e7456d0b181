"""Which model of a run is kept: the dev set is scored now and then, and the best one goes into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from wenmai.config import TrainConfig
from wenmai.data.joined import JoinedExamples
from wenmai.errors import ConfigError, Problem
from wenmai.inference.engine import predictions
from wenmai.training.checkpoint import TrainState
from wenmai.training.parallel import Parallel
from wenmai.training.setup import Prepared


def dev_metrics(
    work: Prepared, most: int | None, parallel: Parallel, *, stopped: Callable[[], bool], together: bool
) -> dict[str, float] | None:
    """The scores of the dev set, the same in every process; each predicts for its share of it.

    The task settles here what can only be chosen on the dev set.

    Args:
        most: score only so many examples, evenly spread.
        stopped: asked between predictions whether to leave early.
        together: every process predicts for all examples, because the model answers only when all ask the same.

    Returns:
        None if any process was stopped.
    """
    examples = evenly_spread(work.data["dev"], most)
    shares = 1 if together else parallel.world
    share = 0 if together else parallel.rank
    mine = []
    for prediction in predictions(work.model, work.task, work.tokenizer, examples[share::shares]):
        if stopped() and not together:
            break
        mine.append(prediction)
    if any(parallel.gathered(stopped())):
        return None
    found: list[Any] = [None] * len(examples)
    for share, part in enumerate([mine] if together else parallel.gathered(mine)):
        found[share::shares] = part
    return dict(work.task.score(examples, work.task.settle(examples, found)).values())


def note_metrics(
    metrics: dict[str, float], config: TrainConfig, primary: str, state: TrainState
) -> tuple[str, bool]:
    """Takes a new evaluation into the state.

    Args:
        primary: the task's own choice of metric.

    Returns:
        the metric that decides, and whether it is the best so far.

    Raises:
        ConfigError: there is no such metric.
    """
    chosen = config.metric_for_best_model or primary
    if chosen not in metrics:
        raise ConfigError(
            "the configuration can't be used:",
            [Problem("train.metric_for_best_model", f"{chosen!r} is none of the metrics {sorted(metrics)}")],
        )
    best = state.best_metric is None or metrics[chosen] > state.best_metric
    if best:
        state.best_metric, state.best_step, state.without_gain = metrics[chosen], state.step, 0
    else:
        state.without_gain += 1
    state.evaluated = state.step
    return chosen, best


def patience_is_over(config: TrainConfig, state: TrainState) -> bool:
    patience = config.early_stopping_patience
    return patience is not None and state.without_gain >= patience


def evenly_spread(examples: Sequence[Any], most: int | None) -> list[Any]:
    """At most so many of the examples, from everywhere in the file and always the same ones."""
    if most is None or most >= len(examples):
        return list(examples)
    if isinstance(examples, JoinedExamples):
        # as many of each task, because the mean over tasks counts each alike
        share = max(1, most // len(examples.parts))
        starts = np.cumsum([0, *map(len, examples.parts.values())]).tolist()
        return [
            examples[i] for start, stop in pairwise(starts) for i in evenly_spread(range(start, stop), share)
        ]
    return [examples[i * len(examples) // most] for i in range(most)]
