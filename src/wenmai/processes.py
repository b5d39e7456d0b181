"""Work on the parts of a long list, spread over processes; results come in order, whatever happens to a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Pipe = tuple[Connection, Connection]

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""``200000 100000``: a container may use two processors; ``max 100000``: all."""


def usable_cores() -> int:
    """How many processors this process may use: those it is bound to, or fewer where a container has a quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError):
        return bound


def can_fork() -> bool:
    """Whether this process may be copied: not on Windows, not on macOS (its frameworks break), not in a worker."""
    known = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return known and not multiprocessing.current_process().daemon


def in_order(work: Callable[[int], T], count: int, processes: int) -> Iterator[T]:
    """``work(0)``, ``work(1)`` ... ``work(count - 1)``, made by so many forked processes.

    The copies see what this process sees; nothing but results is sent. Each process waits with a finished result
    until it is asked for. What one leaves undone, because it died or ``work`` failed there, is done here: so an
    error comes up as if there were no other processes. Where none can be forked, all is done here.

    Args:
        work: from a number to something that can be pickled, and is not None.
    """
    processes = min(processes, count)
    if processes < 2 or not can_fork():
        yield from map(work, range(count))
        return
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        context.Process(target=_serve, args=(work, range(i, count, processes), pipes, i), daemon=True)
        for i in range(processes)
    ]
    with _forking():
        for worker in workers:
            worker.start()
    for _, sending in pipes:
        sending.close()
    readers = [receiving for receiving, _ in pipes]
    gone = [False] * processes
    try:
        for at in range(count):
            who = at % processes
            result: T | None = None
            if not gone[who]:
                try:
                    result = readers[who].recv()
                except (EOFError, OSError):  # it ended between two results, or within one
                    gone[who] = True
            yield work(at) if result is None else result
    finally:
        for worker in workers:
            worker.terminate()
        for worker, reader in zip(workers, readers, strict=True):
            worker.join()
            reader.close()


def _serve(work: Callable[[int], object], numbers: Sequence[int], pipes: list[Pipe], own: int) -> None:
    """The life of a forked process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # a pipe ends when nobody holds its other end: so if the asking process is killed, this one ends too
    for i, (receiving, sending) in enumerate(pipes):
        receiving.close()
        if i != own:
            sending.close()
    try:
        for number in numbers:
            pipes[own][1].send(work(number))
    except BaseException:  # the asking process does this part itself and meets the error there
        os._exit(1)


@contextmanager
def _forking() -> Iterator[None]:
    """Copies of a process must not use the tokenizers' threads, which exist in the original only."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside any thread; the copies here take no lock that a thread may hold
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
