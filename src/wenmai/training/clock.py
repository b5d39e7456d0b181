"""Where the time of training goes."""

from __future__ import annotations

import time


class Clock:
    """Seconds by phase: ``clock("data")`` counts the time since the last call as spent on data.

    On a GPU this is the time that the loop waited there; work that still runs is counted where its result is first
    needed.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def taken(self) -> dict[str, float]:
        """The seconds of every phase since they were last taken."""
        seconds, self._seconds = self._seconds, {}
        return seconds
