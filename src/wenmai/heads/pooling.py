"""Many token vectors to one vector for the whole row."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wenmai.heads.head import widened

Pooling = Literal["mean", "cls", "max", "last", "weighted_mean"]


def pool(hidden_BTH: Tensor, mask_BT: Tensor, how: Pooling) -> Tensor:
    """One vector a row; padding has no part in it.

    ``cls`` takes the first token: right for backbones whose pre-training used it (BERT), and the cheapest.
    ``mean`` averages all tokens, special ones included: the usual choice for embeddings (Reimers & Gurevych
    2019), and what E5 was trained with. ``max`` takes the largest value of every dimension: for labels that
    one word decides. ``last`` takes the last token: right for decoders, in which it alone has seen all others
    (Radford et al. 2018). ``weighted_mean`` averages all tokens, the n-th counted n times: for decoders too, whose
    later tokens have seen more (SGPT, Muennighoff 2022).

    Args:
        hidden_BTH: hidden states of the backbone.
        mask_BT: 1 for tokens, 0 for padding.
        how: see above.

    Returns:
        (B, H) in the precision of ``hidden_BTH``; but for ``cls``, zeros for a row of nothing but padding.
    """
    if how == "cls":
        return hidden_BTH[:, 0]
    token_BT1 = mask_BT.bool()[..., None]
    if how == "last":
        last_BT1 = _last(mask_BT)[..., None]
        return hidden_BTH.masked_fill(~last_BT1, 0.0).sum(dim=1)
    if how == "mean":
        # filled, not multiplied by the mask: padding may hold anything, and NaN times 0 is NaN
        total_BH = widened(hidden_BTH).masked_fill(~token_BT1, 0.0).sum(dim=1)
        count_B1 = token_BT1.sum(dim=1).clamp(min=1)
        return (total_BH / count_B1).to(hidden_BTH.dtype)
    if how == "weighted_mean":
        weight_BT1 = (mask_BT.bool().long().cumsum(dim=1) * mask_BT.bool())[..., None]
        weighted_BTH = widened(hidden_BTH).masked_fill(~token_BT1, 0.0) * weight_BT1
        return (weighted_BTH.sum(dim=1) / weight_BT1.sum(dim=1).clamp(min=1)).to(hidden_BTH.dtype)
    lowest = torch.finfo(hidden_BTH.dtype).min
    highest_BH = hidden_BTH.masked_fill(~token_BT1, lowest).amax(dim=1)
    return highest_BH.masked_fill(~token_BT1.any(dim=1), 0.0)


def tokens_pooled(mask_BT: Tensor, how: Pooling) -> Tensor | None:
    """Which tokens :func:`pool` looks at, booleans (B, T); None: all."""
    if how == "last":
        return _last(mask_BT)
    if how != "cls":
        return None
    first_BT = torch.zeros_like(mask_BT, dtype=torch.bool)
    first_BT[:, 0] = True
    return first_BT


def _last(mask_BT: Tensor) -> Tensor:
    """True at the last token of each row, (B, T)."""
    token_BT = mask_BT.bool()
    return token_BT & (token_BT.long().cumsum(dim=1) == token_BT.sum(dim=1, keepdim=True))
