"""Trains one configuration after the other, in as many processes as torchrun starts of this script.

To start a process takes seconds, so all runs of a test share them::

    torchrun --nproc-per-node 2 several_processes.py JOBS.json
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from wenmai.config import load_config
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import train


@dataclass(frozen=True)
class Job:
    """A run.

    Args:
        config: its file.
        resume: whether it goes on.
        stop_at: the evaluated step at which the last process gets a SIGTERM.
    """

    config: str
    resume: bool = False
    stop_at: int | None = None

    def run(self, *, last: bool = True) -> None:
        def strike(step: int, metric: float) -> bool:
            if last and step == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return False

        try:
            train(load_config(Path(self.config)), resume=self.resume, on_evaluation=strike)
        except Interrupted:
            assert self.stop_at is not None
        else:
            assert self.stop_at is None


def run_in_processes(jobs: list[Job], folder: Path, processes: int = 2) -> None:
    """Runs the jobs; called by a test.

    Raises:
        AssertionError: a process failed; with what it printed.
    """
    path = folder / "jobs.json"
    path.write_text(json.dumps([asdict(job) for job in jobs]))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *command, __file__, str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    for job in json.loads(Path(sys.argv[1]).read_text()):
        Job(**job).run(last=dist.get_rank() == dist.get_world_size() - 1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
