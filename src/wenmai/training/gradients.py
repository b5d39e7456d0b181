"""The gradients of one optimizer step, from any number of micro-batches and processes, as if they were one batch.

A head returns the sum of its loss terms and their number. Sums add up exactly; the division by the number of terms of
the WHOLE step happens once, after the last micro-batch of the last process. Where the loss compares rows with each
other (in-batch negatives) adding up is not enough: then the outputs of all micro-batches are computed first, the loss
and its gradient at the outputs once for all of them, and each micro-batch is run again to send its share back (gradient
caching, Gao et al. 2021).

Dropout is a function of each row's ``key``, so running the same rows again gives the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wenmai.data.rows import Batch
from wenmai.heads.head import Head, Outputs
from wenmai.training.clock import Clock
from wenmai.training.parallel import Parallel

Forward = Callable[[Batch, str], Outputs]
Backward = Callable[[Tensor], None]

OTHER_DROPOUT = 0x5DEECE66D
"""Added to the keys of the rows, it gives R-Drop's second pass dropout of its own."""


@dataclass(frozen=True)
class Step:
    """One optimizer step's micro-batches of this process, which can go through the model any number of times.

    Args:
        batches: on the model's device; their rows' ``key`` decides the dropout.
        forward: the model, batch and purpose to outputs.
        head: whose loss it is.
        backward: runs a loss backward (with loss scaling, if there is any).
        parallel: the processes that share the step.
        idle: batches that count for nothing, run because processes that share their weights out must all run the
            model equally often.
        clock: is told the phases ``forward`` and ``backward``.
        r_drop: weight of the divergence between two passes with different dropout; None: one pass.
    """

    batches: Sequence[Batch]
    forward: Forward
    head: Head
    backward: Backward
    parallel: Parallel
    idle: Sequence[Batch] = ()
    clock: Clock = field(default_factory=Clock)
    r_drop: float | None = None

    def run(self, weight: float = 1.0) -> tuple[float, int]:
        """Adds ``weight`` times the gradients of the SUM of this process's loss terms to the parameters.

        Returns:
            the sum of the loss terms and their number, of this process.
        """
        if self.head.needs_whole_step and (len(self.batches) > 1 or self.parallel.world > 1):
            return self._run_whole_step(weight)
        losses: list[Tensor] = []
        terms = 0
        for batch in self.batches:
            loss, count = self._loss(batch)
            self.clock("forward")
            self.backward(loss * weight if weight != 1.0 else loss)
            self.clock("backward")
            losses.append(loss.detach())
            terms += count
        for batch in self.idle:
            self.backward(self._loss(batch)[0] * 0.0)
        # read once: on a GPU every look at a number waits for all that was asked for before
        return (float(torch.stack(losses).double().sum()) if losses else 0.0), terms

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        first = self._outputs(batch)
        loss, count = self.head.loss(first, batch)
        if self.r_drop is None:
            return loss, count
        second = self._outputs(batch | {"key": batch["key"] + OTHER_DROPOUT})
        other, _ = self.head.loss(second, batch)
        return (loss + other) / 2 + self.r_drop * self.head.divergence(first, second, batch), count

    def _outputs(self, batch: Batch) -> Outputs:
        # layers with a dropout of their own kind draw from here; the others from the rows' keys
        torch.manual_seed(int(batch["key"].sum()) & 0x7FFFFFFFFFFFFFFF)
        return self.forward(batch, "train")

    def _run_whole_step(self, weight: float) -> tuple[float, int]:
        with torch.no_grad():
            outputs = [self._outputs(batch) for batch in [*self.batches, *self.idle]][: len(self.batches)]
        # targets of such heads are numbers a row, so they concatenate whatever the widths of the batches
        targets = [{key: value for key, value in batch.items() if value.ndim == 1} for batch in self.batches]
        everyone = self.parallel.gathered((_on_cpu(outputs), _on_cpu(targets)))
        every_output = _joined([part for outputs, _ in everyone for part in outputs], self.parallel.device)
        every_target = _joined([part for _, targets in everyone for part in targets], self.parallel.device)
        for value in every_output.values():
            value.requires_grad_()
        loss, count = self.head.loss(every_output, every_target)
        slopes = dict(
            zip(every_output, torch.autograd.grad(loss * weight, list(every_output.values())), strict=True)
        )
        at = sum(
            len(next(iter(part.values()))) for others, _ in everyone[: self.parallel.rank] for part in others
        )
        for batch in self.batches:
            again = self._outputs(batch)
            rows = len(next(iter(again.values())))
            self.clock("forward")
            products = [(value * slopes[name][at : at + rows]).sum() for name, value in again.items()]
            self.backward(torch.stack(products).sum())
            self.clock("backward")
            at += rows
        for batch in self.idle:
            self.backward(torch.stack([value.sum() for value in self._outputs(batch).values()]).sum() * 0.0)
        # everyone has the same loss of the whole step: it counts once
        return (float(loss.detach()), count) if self.parallel.first else (0.0, 0)


def _on_cpu(parts: Iterable[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{key: value.detach().cpu() for key, value in part.items()} for part in parts]


def _joined(parts: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    common = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: torch.cat([part[key] for part in parts]).to(device) for key in common}
