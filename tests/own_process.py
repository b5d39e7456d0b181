"""The command line in a process of its own, forked from one that has wenmai imported already.

A start of Python with torch and transformers takes five seconds of a processor, a fork none. What only a start can show
(that the command is found, that nothing is imported too early) is for the few tests that make one.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["wenmai.cli.main", "wenmai.training.trainer", "wenmai.experiments.tuning"])


class Command:
    """``wenmai ARGUMENTS``, started in the current folder.

    Args:
        arguments: what stands behind ``wenmai``.
        folder: gets its output, as ``stdout`` and ``stderr``.
        stdout: a file that gets the output instead.
        file_size: no file may become longer, in bytes: what a full disk looks like from inside.
    """

    def __init__(
        self, *arguments: str, folder: Path, stdout: Path | None = None, file_size: int | None = None
    ):
        self._out, self._err = stdout or folder / "stdout", folder / "stderr"
        self.process = FORKS.Process(target=_run, args=(arguments, self._out, self._err, file_size))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def send(self, signum: int) -> None:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):  # it may just have ended
            os.kill(self.process.pid, signum)

    def wait(self, seconds: float = 60) -> int:
        """The exit code, negative for a signal."""
        self.process.join(seconds)
        if self.running:
            self.process.kill()
        assert self.process.exitcode is not None, f"still ran after {seconds} s: {self.err}"
        return self.process.exitcode

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")


def _run(arguments: tuple[str, ...], out: Path, err: Path, file_size: int | None) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    from wenmai.cli import main

    sys.exit(main(arguments))
