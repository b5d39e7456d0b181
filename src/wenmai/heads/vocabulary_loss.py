"""Cross-entropy over a whole vocabulary for many tokens, without ever holding all logits.

The logits of a step of 8,192 tokens over 21,128 pieces are 0.7 GB, twice that with their gradient. Here a few hundred
tokens at a time become logits, loss and gradient (p - 1 at the gold piece) at once, so nothing of size tokens x
vocabulary stays (the idea of Hsu et al. 2024, Liger Kernel); no product is computed twice.

Shape letters: M tokens, H hidden width, V pieces of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

from wenmai.heads.head import widened

LOGITS_AT_ONCE = 1 << 22


def vocabulary_loss(
    hidden_MH: Tensor,
    weight_VH: Tensor,
    target_M: Tensor,
    *,
    label_smoothing: float = 0.0,
    share_M: Tensor | None = None,
) -> Tensor:
    """The sum (scalar, fp32 or better) of ``-log softmax(W h)[target]`` over the tokens.

    Args:
        hidden_MH: of the tokens that count.
        weight_VH: the output matrix W.
        target_M: ids of the vocabulary, none of them IGNORE.
        label_smoothing: share of the target that is spread evenly over the vocabulary.
        share_M: what each token's term is multiplied with; None: 1.
    """
    found: Tensor = _VocabularyLoss.apply(hidden_MH, weight_VH, target_M, label_smoothing, share_M)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def token_losses(hidden_MH: Tensor, weight_VH: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """Of each token ``-log p`` of its target, and whether that is the best guess (1 or 0); both (M,)."""
    losses, hits = [], []
    for chosen in _portions(len(hidden_MH), len(weight_VH)):
        logits = widened(linear(hidden_MH[chosen], weight_VH))
        losses.append(cross_entropy(logits, target_M[chosen], reduction="none"))
        hits.append((logits.argmax(dim=-1) == target_M[chosen]).to(logits.dtype))
    if not losses:
        nothing = widened(hidden_MH).new_zeros(0)
        return nothing, nothing
    return torch.cat(losses), torch.cat(hits)


def _portions(tokens: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    for first in range(0, tokens, size):
        yield slice(first, min(tokens, first + size))


class _VocabularyLoss(torch.autograd.Function):
    """The gradients are made in the forward pass, for a slope of 1, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        target_M: Tensor,
        label_smoothing: float,
        share_M: Tensor | None,
    ) -> Tensor:
        device = hidden_MH.device.type
        halved = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if halved else weight_VH.dtype
        with torch.autocast(device, enabled=False):
            h_MH, w_VH = hidden_MH.to(dtype), weight_VH.to(dtype)
            want_h, want_w = ctx.needs_input_grad[:2]
            grad_h = torch.empty_like(hidden_MH) if want_h else None
            grad_w = torch.zeros_like(weight_VH) if want_w else None
            total = widened(hidden_MH).new_zeros(())
            for chosen in _portions(len(h_MH), len(w_VH)):
                logits, target = widened(h_MH[chosen] @ w_VH.T), target_M[chosen]
                share = None if share_M is None else share_M[chosen].to(logits.dtype)
                terms = cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
                total += terms.sum() if share is None else terms @ share
                if not (want_h or want_w):
                    continue
                slope = torch.softmax(logits, dim=-1)
                slope.sub_(label_smoothing / len(w_VH)) if label_smoothing else None
                slope[torch.arange(len(target), device=target.device), target] -= 1 - label_smoothing
                slope = (slope if share is None else slope * share[:, None]).to(dtype)
                if grad_h is not None:
                    grad_h[chosen] = (slope @ w_VH).to(grad_h.dtype)
                if grad_w is not None:
                    grad_w += (slope.T @ h_MH[chosen]).to(grad_w.dtype)
        ctx.gradients = grad_h, grad_w
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_w = ctx.gradients
        return (
            None if grad_h is None else grad_h * slope.to(grad_h.dtype),
            None if grad_w is None else grad_w * slope.to(grad_w.dtype),
            None,
            None,
            None,
        )
