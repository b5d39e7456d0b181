"""Several processes on this machine: what ``wenmai train --processes N`` starts, by torchrun's own launcher."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from wenmai.data.processes import usable_cores
from wenmai.errors import UserError


def launch(arguments: Sequence[str], processes: int) -> int:
    """Runs ``wenmai ARGUMENTS`` in so many processes that find each other.

    Every process gets its share of the cores, unless ``OMP_NUM_THREADS`` says otherwise.

    Returns:
        the exit code: 0, or that of the process that failed first.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    import torch

    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(
            f"--processes {processes}: this machine has {gpus} GPUs, and a process needs one of its own: "
            f"give --processes {gpus}, or set device: cpu"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "wenmai.cli", *arguments)
    except ChildFailedError as error:
        return next(iter(error.failures.values())).exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
