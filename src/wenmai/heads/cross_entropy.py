"""Cross-entropy, smoothed or focal, as a sum of terms: the loss of every head that decides between labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

from wenmai.heads.head import IGNORE, widened


def refuse_both(label_smoothing: float, focal_gamma: float) -> None:
    """Label smoothing and the focal loss exclude each other.

    Both keep a model from being sure, and focal weights shrink the term of the right answer only: for a yes or no
    smoothed to 0.95, γ = 2 would move the best answer down to 0.75.

    Raises:
        ValueError: both are set.
    """
    if label_smoothing and focal_gamma:
        raise ValueError(
            f"label_smoothing {label_smoothing:g} and focal_gamma {focal_gamma:g} exclude each other: "
            "set one of them to 0"
        )


def one_of_labels(
    logits_NL: Tensor, label_N: Tensor, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0
) -> tuple[Tensor, int]:
    """The sum over decisions between L labels, and how many count.

    ``-log p`` of the gold label's probability p, the softmax of its logit; smoothed by ε (Szegedy et al. 2016)
    ``-(1 - ε) log p - ε/L Σ log p_j`` over all labels; focal (Lin et al. 2017) ``-(1 - p)^γ log p``, without their α.

    Args:
        logits_NL: any precision; the sum is fp32 or better.
        label_N: gold labels; IGNORE gives no term.
        label_smoothing: ε.
        focal_gamma: γ, 0 for cross-entropy; 2 is usual.
    """
    logits_NL = widened(logits_NL)
    known_N = label_N != IGNORE
    count = int(known_N.sum())
    if not focal_gamma:
        loss = cross_entropy(
            logits_NL, label_N, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="sum"
        )
        return loss, count
    label_N1 = label_N.clamp(min=0)[:, None]
    log_NL = logits_NL.log_softmax(dim=-1)
    gold_N = log_NL.gather(1, label_N1).squeeze(1)
    # log(1 - p) from the other labels: 1 - p itself would round to 0, where (1 - p)^γ may have no slope
    lowest = torch.finfo(log_NL.dtype).min
    others_N = log_NL.scatter(1, label_N1, lowest).logsumexp(dim=1)
    loss_N = -(focal_gamma * others_N).exp() * gold_N
    return loss_N.masked_fill(~known_N, 0.0).sum(), count


def each_label(
    logits_BL: Tensor, holds_BL: Tensor, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0
) -> Tensor:
    """The sum over all B x L decisions whether a label holds.

    ``-log p`` of the right answer's probability p, a sigmoid; smoothed by ε ``-(1 - ε/2) log p - ε/2 log (1 - p)``;
    focal ``-(1 - p)^γ log p``, without α.

    Args:
        logits_BL: any precision; the sum is fp32 or better.
        holds_BL: booleans.
        label_smoothing, focal_gamma: ε and γ.
    """
    logits_BL = widened(logits_BL)
    if not focal_gamma:
        target_BL = holds_BL.to(logits_BL.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return binary_cross_entropy_with_logits(logits_BL, target_BL, reduction="sum")
    right_BL = torch.where(holds_BL, logits_BL, -logits_BL)
    return -((focal_gamma * logsigmoid(-right_BL)).exp() * logsigmoid(right_BL)).sum()
