"""The batches of the coming steps, made here or by worker processes ahead of time; the same ones either way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import tee

import torch
from torch.utils.data import DataLoader, Dataset

from wenmai.data.batching import BatchMaker, Ints, Plan
from wenmai.data.rows import Batch
from wenmai.errors import UserError

Key = tuple[int, Ints]
"""Epoch and units of one micro-batch."""


class _Batches(Dataset[Batch]):
    def __init__(self, maker: BatchMaker):
        self.maker = maker

    def __getitem__(self, key: Key) -> Batch:
        epoch, part = key
        return self.maker(part, epoch)


def steps_from(
    plan: Plan, maker: BatchMaker, epoch_steps: Sequence[int], start: tuple[int, int], *, num_workers: int
) -> Iterator[tuple[int, Ints, list[Batch]]]:
    """Epoch, units and micro-batches of every step from ``start`` (epoch, step in it) to the end.

    Raises:
        UserError: a worker process died.
    """
    # workers ask for parts ahead of time: the steps in between are all that is held of the coming epochs
    steps, ahead = tee(_planned(plan, epoch_steps, start))
    parts = ((epoch, part) for epoch, step in ahead for part in plan.micro_batches(step))
    if num_workers:
        # forked workers must not use the tokenizer's thread pool of the parent
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loader: DataLoader[Batch] = DataLoader(
        _Batches(maker),
        sampler=parts,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
    batches = iter(loader)
    for epoch, step in steps:
        try:
            made = [next(batches) for _ in plan.micro_batches(step)]
        except RuntimeError as error:
            if "worker" in str(error) and "exited" in str(error):
                raise UserError(
                    f"a worker process that prepares batches died ({error}): memory may have run out; "
                    "lower train.num_workers and go on with --resume"
                ) from error
            raise
        yield epoch, step, made


def _planned(plan: Plan, epoch_steps: Sequence[int], start: tuple[int, int]) -> Iterator[tuple[int, Ints]]:
    first_epoch, first_step = start
    for epoch in range(first_epoch, len(epoch_steps)):
        steps = plan.steps(epoch)[: epoch_steps[epoch]]
        yield from ((epoch, step) for step in steps[first_step if epoch == first_epoch else 0 :])
