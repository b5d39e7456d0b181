"""What happened in a run: ``log.jsonl``, a line an event, and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenmai.atomic import unwritable, write_text

if TYPE_CHECKING:
    from wenmai.training.trackers import Trackers

TIMES = ("tokens_per_second", "waiting", "seconds", "memory_mb")
"""What of a line of the log differs from run to run."""


class Journal:
    """Appends to a run's log.

    Args:
        folder: of the run.
        step, evaluated: events after this step, and evaluations after that one, are dropped, because the run goes on
            from there and repeats them.
        trackers: ``tensorboard`` also writes event files under ``tensorboard/``; for others see
            :class:`~wenmai.training.trackers.Trackers`.
        settings: the configuration, for those others.
        silent: write nothing, because another process of the run does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        evaluated: int,
        trackers: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        silent: bool = False,
    ):
        self.path = folder / "log.jsonl"
        self._silent = silent
        self._writer: Any = None
        self._others: Trackers | None = None
        if silent:
            return
        kept = [e for e in read_log(self.path, step) if e["event"] != "eval" or e["step"] <= evaluated]
        write_text(self.path, "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in kept))
        others = [name for name in trackers if name != "tensorboard"]
        if others:
            from wenmai.training.trackers import Trackers

            self._others = Trackers(others, folder, settings or {})
        if "tensorboard" in trackers:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        if self._silent:
            return
        line = json.dumps({"event": event, "step": step, **values}, ensure_ascii=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self._writer is not None:
            for key, value in _numbers(values):
                self._writer.add_scalar(f"{event}/{key}", value, step)
        if self._others is not None:
            self._others.log({f"{event}/{key}": value for key, value in _numbers(values)}, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._others is not None:
            self._others.close()


def read_log(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """The events of a log up to ``last_step``; a half-written last line is left out."""
    events = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if last_step is None or event["step"] <= last_step:
                events.append(event)
    return events


def _numbers(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((prefix + key, float(value)))
    return found
