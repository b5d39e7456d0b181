"""The gradients of one optimizer step, from any number of micro-batches, as if they were one batch.

A head returns the sum of its loss terms and their number. Sums add up exactly; the division by the number of terms of
the WHOLE step happens once, after the last micro-batch. Where the loss compares rows with each other (in-batch
negatives) adding up is not enough: then the outputs of all micro-batches are computed first, the loss and its gradient
at the outputs once for all of them, and each micro-batch is run again to send its share back (gradient caching,
Gao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wenmai.data.rows import Batch
from wenmai.heads.head import Head, Outputs

Forward = Callable[[Batch, str], Outputs]
Backward = Callable[[Tensor], None]


def accumulate(
    forward: Forward, head: Head, batches: Sequence[Batch], seeds: Sequence[int], backward: Backward
) -> tuple[float, int]:
    """Adds the gradients of the SUM of a step's loss terms to the parameters.

    Args:
        forward: the model, batch and purpose to outputs.
        head: whose loss it is.
        batches: the micro-batches of the step, on the model's device.
        seeds: one a micro-batch: dropout is a function of it.
        backward: runs a loss backward (with loss scaling, if there is any).

    Returns:
        the sum of the loss terms and their number.
    """
    if head.needs_whole_step and len(batches) > 1:
        return _whole_step(forward, head, batches, seeds, backward)
    total, terms = 0.0, 0
    for batch, seed in zip(batches, seeds, strict=True):
        torch.manual_seed(seed)
        loss, count = head.loss(forward(batch, "train"), batch)
        backward(loss)
        total += float(loss.detach())
        terms += count
    return total, terms


def _whole_step(
    forward: Forward, head: Head, batches: Sequence[Batch], seeds: Sequence[int], backward: Backward
) -> tuple[float, int]:
    parts: list[Outputs] = []
    with torch.no_grad():
        for batch, seed in zip(batches, seeds, strict=True):
            torch.manual_seed(seed)
            parts.append(forward(batch, "train"))
    names = list(parts[0])
    outputs = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in names}
    # targets of such heads are numbers a row, so they concatenate whatever the widths of the batches
    targets = {
        key: torch.cat([batch[key] for batch in batches])
        for key in batches[0]
        if all(batch[key].ndim == 1 for batch in batches)
    }
    loss, count = head.loss(outputs, targets)
    slopes = torch.autograd.grad(loss, [outputs[name] for name in names])
    sizes = [len(part[names[0]]) for part in parts]
    shares = zip(*(torch.split(slope, sizes) for slope in slopes), strict=True)
    for batch, seed, share in zip(batches, seeds, shares, strict=True):
        torch.manual_seed(seed)
        again = forward(batch, "train")
        backward(
            torch.stack([(again[name] * slope).sum() for name, slope in zip(names, share, strict=True)]).sum()
        )
    return float(loss.detach()), count
