"""GlobalPointer's loss over all pairs of tokens and many labels, without a score for each pair and label in memory.

In the efficient form (:class:`wenmai.heads.global_pointer.GlobalPointerHead`) only two vectors know the label::

    score(i, j, l) = s(i, j) + first(i, l) + last(j, l),    s(i, j) = q_i · k_j / √D

so the sum over all pairs, which the loss needs of every label, is a product of matrices::

    Σ_ij exp score(i, j, l) = Σ_i exp first(i, l) · Σ_j exp s(i, j) · exp last(j, l)

It takes T² + T L numbers where L T² would be needed: for 256 tokens and 44 predicates 40 times fewer. Only labels that
a row has gold pairs of, a few, are computed pair by pair, so that gold pairs are left out of the sum exactly and not by
subtraction, which would lose them in rounding once they score high.

Shape letters: B rows, T tokens, D width of query and key, L labels, F = 2 D + 2 L, N gold pairs of a row, K pairs of a
row and a label that it has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from wenmai.heads.global_pointer import MASKED, span_loss
from wenmai.heads.head import IGNORE, widened


class Factors(NamedTuple):
    """``score(i, j, l) = pairs[i, j] + first[i, l] + last[j, l]``; impossible pairs are -inf."""

    pairs_BTT: Tensor
    first_BTL: Tensor
    last_BTL: Tensor


def factors_of(factors_BTF: Tensor, labels: int, real_BT: Tensor, *, ordered: bool) -> Factors:
    """The scores' parts from :meth:`GlobalPointerHead.factors`, in single precision or better.

    Args:
        factors_BTF: query (D), key (D), and of each label a score as first and as last token (L each).
        labels: L.
        real_BT: booleans, False at padding.
        ordered: the second token of a pair does not come before the first.
    """
    factors_BTF = widened(factors_BTF)
    # autocast would take the products in half precision again
    with torch.autocast(factors_BTF.device.type, enabled=False):
        return _factors(factors_BTF, labels, real_BT, ordered)


def _factors(factors_BTF: Tensor, labels: int, real_BT: Tensor, ordered: bool) -> Factors:
    width = (factors_BTF.size(-1) - 2 * labels) // 2
    query, key, first_BTL, last_BTL = torch.split(factors_BTF, [width, width, labels, labels], dim=-1)
    pairs_BTT = query @ key.transpose(-1, -2) / width**0.5
    possible_BTT = real_BT[:, :, None] & real_BT[:, None, :]
    if ordered:
        position_T = torch.arange(real_BT.size(1), device=real_BT.device)
        possible_BTT = possible_BTT & (position_T[:, None] <= position_T)
    return Factors(pairs_BTT.masked_fill(~possible_BTT, -torch.inf), first_BTL, last_BTL)


def pair_loss(factors: Factors, gold_BN3: Tensor) -> Tensor:
    """Su's multi-label cross-entropy (2020), summed over rows and labels: that of ``span_loss``.

    Args:
        gold_BN3: first token, second token and label id of the gold pairs, padded with IGNORE; repetitions count once.
    """
    has_BL = _has(gold_BN3, factors.first_BTL.size(-1))
    without_gold = softplus(sums(factors)).masked_fill(has_BL, 0.0).sum()
    row_K, label_K = has_BL.nonzero(as_tuple=True)
    its_KN3 = gold_BN3[row_K]
    mine_KN = its_KN3[..., 2] == label_K[:, None]
    own_KN3 = torch.cat([its_KN3[..., :2], torch.zeros_like(its_KN3[..., 2:])], dim=-1)
    own_KN3 = own_KN3.masked_fill(~mine_KN[..., None], IGNORE)
    return without_gold + span_loss(dense(factors, row_K, label_K)[:, None], own_KN3)


def sums(factors: Factors) -> Tensor:
    """(B, L): the logarithm of the sum over all possible pairs of exp(score), for every row and label."""
    pairs_BTT, first_BTL, last_BTL = factors
    real_BT1 = pairs_BTT.isfinite().any(dim=-1, keepdim=True)
    # the largest of each row of pairs and of each label's last tokens is taken out, so that no exp overflows
    highest_BT1 = pairs_BTT.detach().amax(dim=-1, keepdim=True).masked_fill(~real_BT1, 0.0)
    top_B1L = last_BTL.detach().masked_fill(~real_BT1, -torch.inf).amax(dim=1, keepdim=True)
    weights_BTL = (last_BTL - top_B1L).masked_fill(~real_BT1, -torch.inf).exp()
    with torch.autocast(pairs_BTT.device.type, enabled=False):
        inner_BTL = (pairs_BTT - highest_BT1).exp() @ weights_BTL
    smallest = torch.finfo(inner_BTL.dtype).tiny
    scores_BTL = inner_BTL.clamp(min=smallest).log() + highest_BT1 + top_B1L + first_BTL
    return scores_BTL.masked_fill(~real_BT1, -torch.inf).logsumexp(dim=1)


def dense(factors: Factors, row_K: Tensor, label_K: Tensor) -> Tensor:
    """(K, T, T): the scores of some rows and labels, ``MASKED`` at impossible pairs."""
    pairs_BTT, first_BTL, last_BTL = factors
    first_KT, last_KT = first_BTL[row_K, :, label_K], last_BTL[row_K, :, label_K]
    scores_KTT = pairs_BTT[row_K] + first_KT[:, :, None] + last_KT[:, None, :]
    return scores_KTT.masked_fill(pairs_BTT[row_K] == -torch.inf, MASKED)


def _has(gold_BN3: Tensor, labels: int) -> Tensor:
    """(B, L): whether a row has a gold pair of a label."""
    label_BN = gold_BN3[..., 2]
    counts_BL = torch.zeros(len(gold_BN3), labels, dtype=torch.long, device=gold_BN3.device)
    return counts_BL.scatter_add(1, label_BN.clamp(min=0), (label_BN != IGNORE).long()) > 0
