"""Ctrl-C and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EARLIER: list[int] = []
"""Signals that came before anyone listened. What a handler raises can get lost in a destructor or in a library's own
code; then the run stops as soon as it listens."""


class Interrupted(Exception):
    """Training was asked to stop, saved its state and left; ``signum`` says by whom."""

    def __init__(self, signum: int, message: str):
        self.signum = signum
        super().__init__(message)


class StopRequest:
    """Set by the first signal; a second Ctrl-C interrupts at once."""

    signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM inside the block (in the main thread; elsewhere Python can't)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if request and signum == signal.SIGINT:
            raise KeyboardInterrupt
        request.signum = signum

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    if EARLIER:
        request.signum = EARLIER[-1]
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
