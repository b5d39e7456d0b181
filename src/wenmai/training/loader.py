"""The batches of the coming steps, made here or by worker processes ahead of time; the same ones either way."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import tee
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from wenmai.data.batching import BatchMaker, Ints, Plan
from wenmai.data.mixing import MixedMaker, MixedPlan
from wenmai.data.rows import Batch
from wenmai.errors import UserError
from wenmai.processes import can_fork

Key = tuple[int, Ints]
"""Epoch and units of one micro-batch."""
Loaded = tuple[int, Ints, list[Batch]]
"""Epoch, all units of a step, and the micro-batches of this process."""

DEAD_WORKER = re.compile(r"DataLoader worker .* (exited|is killed)")

PREFETCHED = 4
"""Micro-batches that a worker makes ahead."""


@dataclass(frozen=True)
class _Arrays:
    """A batch on its way from a worker. As arrays it goes through a pipe; tensors would go through shared memory, which
    costs the receiver ten times as long (1.7 against 0.17 ms a batch) and is scarce in containers."""

    arrays: dict[str, NDArray[Any]]

    def batch(self) -> Batch:
        return {key: torch.from_numpy(array) for key, array in self.arrays.items()}

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU copies from by itself; called by the loader's own thread."""
        return {key: tensor.pin_memory() for key, tensor in self.batch().items()}


class _Batches(Dataset[_Arrays]):
    def __init__(self, maker: BatchMaker | MixedMaker):
        self.maker = maker

    def __getitem__(self, key: Key) -> _Arrays:
        epoch, part = key
        return _Arrays({name: tensor.numpy() for name, tensor in self.maker(part, epoch).items()})


def steps_from(
    plan: Plan | MixedPlan,
    maker: BatchMaker | MixedMaker,
    epoch_steps: Sequence[int],
    start: tuple[int, int],
    *,
    num_workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Generator[Loaded, None, None]:
    """Every step from ``start`` (epoch, step in it) to the end, with the micro-batches of one process.

    Of several processes that share each step, this one takes every ``world``-th unit from ``rank`` on: a step's units
    are sorted by length, so each gets as many short and long ones as the others. In a step of fewer units than
    processes it may get none.

    Args:
        num_workers: processes that make batches ahead of time; 0: they are made here when they are asked for.
        pin_memory: put batches where a GPU can copy them from while it computes.

    Raises:
        UserError: a worker process died.
    """
    # workers ask for parts ahead of time: the steps in between are all that is held of the coming epochs
    steps, ahead = tee(_planned(plan, epoch_steps, start))
    parts = ((epoch, part) for epoch, step in ahead for part in plan.micro_batches(step[rank::world]))
    loader: DataLoader[_Arrays] = DataLoader(
        _Batches(maker),
        sampler=parts,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        multiprocessing_context=multiprocessing.get_context("fork") if num_workers and can_fork() else None,
        pin_memory=pin_memory,
        worker_init_fn=_in_a_worker,
    )
    batches = iter(loader)
    for epoch, step in steps:
        with dead_workers_told():
            made = [next(batches) for _ in plan.micro_batches(step[rank::world])]
        yield epoch, step, [item.batch() if isinstance(item, _Arrays) else item for item in made]


@contextmanager
def dead_workers_told() -> Iterator[None]:
    """Inside, the death of a worker is an error that says what to do, wherever the loop is when it happens.

    PyTorch hears of it by a signal, so it comes up in the middle of a step as well as where batches are asked for.
    """
    try:
        yield
    except RuntimeError as error:
        if DEAD_WORKER.search(str(error)):
            raise UserError(
                f"a worker process that prepares batches died ({error}): memory may have run out; "
                "lower train.num_workers and go on with --resume"
            ) from error
        raise


def _planned(
    plan: Plan | MixedPlan, epoch_steps: Sequence[int], start: tuple[int, int]
) -> Iterator[tuple[int, Ints]]:
    first_epoch, first_step = start
    for epoch in range(first_epoch, len(epoch_steps)):
        steps = plan.steps(epoch)[: epoch_steps[epoch]]
        yield from ((epoch, step) for step in steps[first_step if epoch == first_epoch else 0 :])


def _in_a_worker(worker: int) -> None:
    """A copy of a process must not use the tokenizers' threads, which exist in the original only.

    Signals that ask to stop may go to a whole group of processes. The original answers them, after the step that needs
    this one's batches; then it ends its copies.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
