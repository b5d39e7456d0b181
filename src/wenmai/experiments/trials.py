"""The trials of a study, as ``trials.jsonl`` keeps them: a line each, readable without Optuna."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from wenmai.atomic import write_text
from wenmai.errors import UserError

TrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """One line.

    Args:
        state: ``complete``; ``pruned``: ended early; ``failed``: with ``error``.
        values: what was drawn, by key.
        evaluations: the metric of every evaluation on the dev set, in their order.
        seconds: that it took.
        run: its folder, in that of the study; that of an earlier trial which drew the same.
        notes: what Optuna's sampler and pruner keep for themselves.
    """

    number: int
    state: TrialState
    values: dict[str, Any]
    evaluations: list[float]
    seconds: float
    run: str
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """That of the model in its bundle: the best of all evaluations."""
        return max(self.evaluations, default=None)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of the best trials that ran to their end."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.evaluations]
    return max(complete, key=lambda trial: max(trial.evaluations), default=None)


def read_trials(path: Path) -> list[Trial]:
    """All lines; none if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [Trial(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}): begin again with --overwrite") from error


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Replaces the file at once.

    Raises:
        UserError: it can't be written.
    """
    write_text(path, "".join(json.dumps(asdict(trial), ensure_ascii=False) + "\n" for trial in trials))
