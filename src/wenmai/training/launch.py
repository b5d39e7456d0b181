"""Several processes on this machine: what ``wenmai train --processes N`` starts, by torchrun's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from wenmai.errors import UserError
from wenmai.processes import usable_cores

STOPPING_MAY_TAKE = 600
"""Seconds that the processes have to finish their step and to save before they are killed."""


def launch(arguments: Sequence[str], processes: int, *, device: str = "auto") -> int:
    """Runs ``wenmai ARGUMENTS`` in so many processes that find each other.

    Every process gets its share of the cores, unless ``OMP_NUM_THREADS`` says otherwise. SIGTERM and Ctrl-C reach all
    of them, once. When one fails, the others are ended.

    Args:
        device: of the run.

    Returns:
        the exit code: 0, or that of the process that failed.

    Raises:
        UserError: there are fewer GPUs than processes, or a process was killed.
    """
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(
            f"--processes {processes}: this machine has {gpus} GPUs, and a process needs one of its own: "
            f"give --processes {gpus}, or set device: cpu"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(STOPPING_MAY_TAKE)
    # the processes tell what went wrong themselves; the launcher's own view of it would bury that
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle="SIGHUP,SIGQUIT",  # the other two are handled here
    )
    try:
        with _passing_one_signal_on():
            elastic_launch(config, sys.executable)("-m", "wenmai", *arguments)
    except ChildFailedError as error:
        return exit_code({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def exit_code(codes: dict[int, int]) -> int:
    """One exit code for those of the processes that failed; a negative one is the signal that killed it.

    Raises:
        UserError: a process was killed from outside, so that it could not say why.
    """
    ended = 128 + signal.SIGTERM  # because another one failed
    own = [code for code in codes.values() if code > 0 and code != ended]
    killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
    if killed and not own:
        rank, signum = next(iter(killed.items()))
        raise UserError(
            f"process {rank} of the run was killed by {signal.Signals(signum).name}: memory may have run out; lower "
            "train.tokens_per_micro_batch or --processes, and go on with --resume"
        )
    return min(own, default=ended)


@contextmanager
def _passing_one_signal_on() -> Iterator[None]:
    """The first SIGTERM or Ctrl-C goes to the processes; what follows has to wait until they have saved."""

    def stop(signum: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise SignalException(f"got signal {signum}", signal.Signals(signum))

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
