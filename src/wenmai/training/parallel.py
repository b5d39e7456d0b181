"""Several processes as one: sums over all of them, so that no result depends on their number.

Every process holds the whole model and runs its share of a step's examples. Gradients are sums over examples, and sums
add up exactly: they are added over the processes once a step, after the last backward, in flat buckets. Nothing wraps
the model, so that a step may run backward as often as it likes (adversarial training, gradient caching), and a process
without an example in a ragged last step adds zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")

BUCKET_BYTES = 32 << 20


@dataclass(frozen=True)
class Parallel:
    """The processes that train together, as one of them sees it.

    Args:
        rank: which one this is, from 0.
        world: how many there are.
        device: where tensors are summed.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Whether this process is the first one of its machine."""
        return int(os.environ.get("LOCAL_RANK", self.rank)) == 0

    def summed(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over all processes; a copy."""
        total = tensor.detach().clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def sums(self, *numbers: float) -> list[float]:
        """Each number's sum over all processes, in fp64."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give here."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0])

    def _reduced(self, numbers: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.world == 1:
            return list(numbers)
        # on the CPU, so that no GPU has to finish its work first
        together = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(together, operation)
        found: list[float] = together.tolist()
        return found

    def gathered(self, value: T) -> list[T]:
        """What every process gives here, in the order of their ranks."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def wait(self) -> None:
        """Until all processes are here."""
        self.largest(0)

    @contextmanager
    def first_here_first(self) -> Iterator[None]:
        """One process of each machine goes through the block before the others: they find what it left on the disk."""
        if not self.first_here:
            self.wait()
        yield
        if self.first_here:
            self.wait()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Adds the gradients up over all processes, in place; a parameter without one here counts as 0.

        Those of parameters in shards are sums already, and those that DeepSpeed keeps are not seen here.
        """
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
        present = self.sums(*(p.grad is not None for p in trained))
        for p, count in zip(trained, present, strict=True):
            if count and p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in trained if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


ALONE = Parallel(rank=0, world=1, device=torch.device("cpu"))
"""One process that shares nothing."""


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of gradients of one type, each of about the size that travels well."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size >= BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel() * gradient.element_size()
    if bucket:
        yield bucket
