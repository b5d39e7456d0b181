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
from torch.distributed.tensor import DTensor

from wenmai.config import load_config
from wenmai.training.gradients import Step
from wenmai.training.machine import open_machine
from wenmai.training.optimizer import build_optimizer
from wenmai.training.setup import prepare
from wenmai.training.sharding import shard
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import train


@dataclass(frozen=True)
class Job:
    """A run.

    Args:
        config: its file.
        overrides: of its keys.
        resume: whether it goes on.
        stop_at: the evaluated step at which the last process gets a SIGTERM.
        held: instead of training to the end, do a step in shards and write down here what a process then holds.
    """

    config: str
    overrides: tuple[str, ...] = ()
    resume: bool = False
    stop_at: int | None = None
    held: str | None = None

    def run(self, *, last: bool = True) -> None:
        def strike(step: int, metric: float) -> bool:
            if last and step == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return False

        config = load_config(Path(self.config), list(self.overrides))
        if self.held is not None:
            write_held(config, Path(self.held))
            return
        stopped = False
        try:
            train(config, resume=self.resume, on_evaluation=strike)
        except Interrupted as stop:
            stopped = stop.signum == signal.SIGTERM
        assert stopped == (self.stop_at is not None)


def write_held(config, file: Path) -> None:
    """Numbers that this process holds of the model and of AdamW's state, beside those of the whole model."""
    with open_machine("cpu", "fp32") as machine:
        work = prepare(config, parallel=machine.parallel)
        whole = sum(p.numel() for p in work.model.parameters())
        shard(work.model, machine.parallel)
        optimizer = build_optimizer(work.model, config.train)
        batch = work.maker(work.plan.steps(0)[0], 0)
        forward = machine.forward(work.model)
        Step([batch], forward, work.model.head, machine.backward, machine.parallel).run()
        gradients = [p.grad for p in work.model.parameters()]
        optimizer.step()
        states = [value for slots in optimizer.state.values() for value in slots.values() if value.ndim]
        held = {
            "whole": whole,
            "weights": local_numbers(work.model.parameters()),
            "gradients": local_numbers(gradients),
            "states": local_numbers(states),
        }
        file.with_suffix(f".{machine.parallel.rank}.json").write_text(json.dumps(held))


def local_numbers(tensors) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).numel() for t in tensors)


def run_in_processes(jobs: list[Job], folder: Path, processes: int = 2, **environment: str) -> None:
    """Runs the jobs; called by a test.

    Raises:
        AssertionError: a process failed; with what it printed.
    """
    path = folder / "jobs.json"
    path.write_text(json.dumps([asdict(job) for job in jobs]))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *command, __file__, str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
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
