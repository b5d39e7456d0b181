"""The gradients of one optimizer step, from any number of micro-batches and processes, as if they were one batch.

A head returns the sum of its loss terms and their number. Sums add up exactly; the division by the number of terms of
the WHOLE step happens once, after the last micro-batch of the last process. Where the loss compares rows with each
other (in-batch negatives) adding up is not enough: then the outputs of all micro-batches are computed first, the loss
and its gradient at the outputs once for all of them, and each micro-batch is run again to send its share back (gradient
caching, Gao et al. 2021).

Dropout is a function of each row's ``key``, so running the same rows again gives the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wenmai.data.rows import Batch
from wenmai.heads.head import Head, Outputs
from wenmai.heads.multi_task import MultiTaskHead, wanted
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
        parameters: of the model; only several tasks need them.
        task_losses: gets the mean loss of each task in the step, where there are several.
    """

    batches: Sequence[Batch]
    forward: Forward
    head: Head
    backward: Backward
    parallel: Parallel
    idle: Sequence[Batch] = ()
    clock: Clock = field(default_factory=Clock)
    r_drop: float | None = None
    parameters: Sequence[Tensor] = ()
    task_losses: dict[str, float] = field(default_factory=dict)

    def run(self, weight: float = 1.0) -> tuple[float, int]:
        """Adds ``weight`` times the gradients of the SUM of this process's loss terms to the parameters.

        Returns:
            the sum of the loss terms and their number, of this process.
        """
        if isinstance(self.head, MultiTaskHead):
            return self._run_tasks(self.head, weight)
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

    def _run_tasks(self, head: MultiTaskHead, weight: float) -> tuple[float, int]:
        """A step of several tasks, whose losses are means of different things (tokens, texts, pairs).

        Each is divided by its own number of terms in the whole step. Then it counts as much as its share of the step's
        real tokens, times its weight: on average over an epoch that gives the same gradient however tasks are put
        together to steps. The result is the mean already, so its number of terms is 1.
        """
        assert self.parameters, "gradients of several tasks are scaled one by one"
        own = {name: [batch for batch in self.batches if wanted(name) in batch] for name in head.tasks}
        tokens = dict(zip(own, self.parallel.sums(*map(_real_tokens, own.values())), strict=True))
        total, whole = sum(tokens.values()), 0.0
        for name in (name for name in own if tokens[name]):
            with _added_up(self.parameters) as scale:
                part = replace(self, batches=own[name], head=head.heads[name])
                loss, terms = self.parallel.sums(*part.run(weight))
                share = head.weights[name] * tokens[name] / total / max(1.0, terms)
                scale(share)
            whole += loss * share
            # several passes over a step: the first one is the clean one
            self.task_losses.setdefault(name, loss / max(1.0, terms))
        return (whole, 1) if self.parallel.first else (0.0, 0)

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


def _real_tokens(batches: Sequence[Batch]) -> float:
    return float(torch.stack([batch["attention_mask"].sum() for batch in batches]).sum()) if batches else 0.0


@contextmanager
def _added_up(parameters: Sequence[Tensor]) -> Iterator[Callable[[float], None]]:
    """Inside, gradients begin empty and may be scaled; afterwards the earlier ones are added."""
    earlier = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None

    def scale(factor: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)

    yield scale
    for p, gradient in zip(parameters, earlier, strict=True):
        if gradient is not None:
            p.grad = gradient if p.grad is None else gradient.add_(p.grad)


def _on_cpu(parts: Iterable[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{key: value.detach().cpu() for key, value in part.items()} for part in parts]


def _joined(parts: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    common = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: torch.cat([part[key] for part in parts]).to(device) for key in common}
