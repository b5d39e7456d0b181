"""What a run computes on: the device, the precision, and the processes that share the work."""

from __future__ import annotations

import atexit
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from wenmai.data.rows import Batch
from wenmai.errors import UserError
from wenmai.heads.head import Outputs
from wenmai.tasks.model import Model
from wenmai.training.leaving import telling_once
from wenmai.training.parallel import Parallel

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: reading data and saving take their time, and not the same on each."""


@dataclass(frozen=True)
class Machine:
    """What one process of a run has.

    Args:
        device: where it computes.
        precision: ``fp32``, ``bf16`` or ``fp16``; weights and their updates are fp32 always.
        parallel: the processes that train together.
        scaler: keeps the gradients of fp16 in its range; does nothing otherwise.
    """

    device: torch.device
    precision: str
    parallel: Parallel
    scaler: torch.amp.GradScaler

    def autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def holding(self, batch: Batch) -> Batch:
        """The batch on the device."""
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}

    def forward(self, model: Model) -> Callable[[dict[str, Tensor], str], Outputs]:
        """The model in this precision."""

        def run(batch: dict[str, Tensor], purpose: str) -> Outputs:
            with self.autocast():
                outputs: Outputs = model(batch, purpose)
            return outputs

        return run

    def backward(self, loss: Tensor) -> None:
        """The loss backward, scaled up where fp16 needs it."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def peak_memory(self) -> int:
        """Bytes: the most that was held at once, on the GPU if there is one, else by the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def open_machine(device: str, precision: str) -> Iterator[Machine]:
    """Joins the other processes, if ``torchrun`` started some; they part at the end of the program.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UserError: this machine has no such device, or it can't compute so.
    """
    place = resolved_device(device)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    found = resolved_precision(precision, place)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
        # not before: a process can join the others only once
        atexit.register(dist.destroy_process_group)
    with telling_once() if world > 1 else nullcontext():
        yield Machine(
            device=place,
            precision=found,
            parallel=Parallel(rank, world, place),
            scaler=torch.amp.GradScaler(place.type, enabled=found == "fp16"),
        )


def resolved_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for, but PyTorch sees no GPU here: set device: auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolved_precision(name: str, device: torch.device) -> str:
    """``auto`` is bf16 where the GPU computes it, else fp32."""
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a GPU: set precision: auto, fp32 or bf16")
    return name
