"""The losses that embeddings are learned by: each a sum of terms and their number, of rows that stand in any order.

A row's example is its ``group``; what the row is to it, its ``role``: ANCHOR, POSITIVE or HARD_NEGATIVE.

Shape letters: B rows, D width, A anchors, C candidates (rows that are no anchors), P pairs of an anchor and a positive
of its example, N hard negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize as to_unit_length

ANCHOR, POSITIVE, HARD_NEGATIVE = 0, 1, 2
"""What a row is to its example: the values of the target ``role``."""


def info_nce_loss(
    embedding_BD: Tensor,
    group_B: Tensor,
    role_B: Tensor,
    part_B: Tensor | None = None,
    *,
    temperature: float,
) -> tuple[Tensor, int]:
    """InfoNCE (van den Oord et al. 2018), with the batch's other texts as negatives (SimCSE, Gao et al. 2021)::

        -log( exp(s(a, p) / τ) / (exp(s(a, p) / τ) + Σ_n exp(s(a, n) / τ)) )        s: dot product

    Every anchor must pick its positive among all positives and hard negatives of the step. A term is an anchor that has
    a positive. Of several positives each is picked in turn, the others left out, and the anchor's loss is their mean.

    Args:
        part_B: which of its example's texts a row is of. Then an anchor's positives are those of its own text, and the
            example's other texts are neither positives nor negatives: nobody says how near they are.
    """
    anchor_B, candidate_B = role_B == ANCHOR, role_B != ANCHOR
    # half precision would round the differences that a low temperature makes large
    with torch.autocast(embedding_BD.device.type, enabled=False):
        scores_AC = embedding_BD[anchor_B] @ embedding_BD[candidate_B].T / temperature
    own_AC = group_B[anchor_B][:, None] == group_B[candidate_B]
    positive_AC = own_AC & (role_B[candidate_B] == POSITIVE)
    lowest = torch.finfo(scores_AC.dtype).min
    if part_B is not None:
        same_AC = part_B[anchor_B][:, None] == part_B[candidate_B]
        positive_AC = positive_AC & same_AC
        scores_AC = scores_AC.masked_fill(own_AC & ~same_AC, lowest)
    kept_A = positive_AC.any(dim=1)
    scores_AC, positive_AC = scores_AC[kept_A], positive_AC[kept_A]
    if not len(scores_AC):
        return embedding_BD.sum() * 0.0, 0
    negatives_A1 = scores_AC.masked_fill(positive_AC, lowest).logsumexp(dim=1, keepdim=True)
    losses_AC = (torch.logaddexp(scores_AC, negatives_A1) - scores_AC).masked_fill(~positive_AC, 0.0)
    return (losses_AC.sum(dim=1) / positive_AC.sum(dim=1)).sum(), len(scores_AC)


def cosent_loss(
    embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, score_B: Tensor, *, temperature: float
) -> tuple[Tensor, int]:
    """CoSENT (Su 2022) over all two pairs i, j of the step of which i has the higher score::

        log(1 + Σ exp((cos_j - cos_i) / τ))

    It learns only the order, which is what rank correlation measures. The sum stands inside the logarithm, so a step is
    one term, or none if no two scores differ.
    """
    cosine_P, score_P = _pairs(embedding_BD, group_B, role_B, score_B)
    scaled_P = cosine_P / temperature
    higher, lower = torch.nonzero(score_P[:, None] > score_P, as_tuple=True)
    if not len(higher):
        return embedding_BD.sum() * 0.0, 0
    inverted = (scaled_P[lower] - scaled_P[higher]).logsumexp(dim=0)
    return torch.logaddexp(inverted, torch.zeros_like(inverted)), 1


def cosine_loss(embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, score_B: Tensor) -> tuple[Tensor, int]:
    """The squared error ``(cos - score)²`` of each pair (Reimers & Gurevych 2019); a term is a pair.

    Args:
        score_B: the cosine that the pair should have.
    """
    cosine_P, score_P = _pairs(embedding_BD, group_B, role_B, score_B)
    return (cosine_P - score_P).square().sum(), len(cosine_P)


def triplet_loss(
    embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, *, margin: float
) -> tuple[Tensor, int]:
    """The margin loss of triplets (Schroff et al. 2015), over all (anchor, positive, hard negative) of an example::

        max(0, margin - cos(a, p) + cos(a, n))

    A term is a triplet. For vectors of length 1 it is half the paper's loss, whose squared distances are 2 - 2 cos and
    whose margin is twice as large.
    """
    unit_BD = to_unit_length(embedding_BD, dim=-1)
    anchor_P, positive_P = _pair_rows(group_B, role_B)
    (negative_N,) = torch.nonzero(role_B == HARD_NEGATIVE, as_tuple=True)
    own_PN = group_B[anchor_P][:, None] == group_B[negative_N]
    near_P = (unit_BD[anchor_P] * unit_BD[positive_P]).sum(dim=-1)
    with torch.autocast(embedding_BD.device.type, enabled=False):
        far_PN = unit_BD[anchor_P] @ unit_BD[negative_N].T
    loss_PN = (margin - near_P[:, None] + far_PN).clamp(min=0.0)
    return loss_PN.masked_fill(~own_PN, 0.0).sum() + embedding_BD.sum() * 0.0, int(own_PN.sum())


def _pair_rows(group_B: Tensor, role_B: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of each pair of an anchor and a positive of its example."""
    anchor_P, positive_P = torch.nonzero(
        (role_B == ANCHOR)[:, None] & (role_B == POSITIVE) & (group_B[:, None] == group_B), as_tuple=True
    )
    return anchor_P, positive_P


def _pairs(embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, score_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and score of each pair."""
    unit_BD = to_unit_length(embedding_BD, dim=-1)
    anchor_P, positive_P = _pair_rows(group_B, role_B)
    return (unit_BD[anchor_P] * unit_BD[positive_P]).sum(dim=-1), score_B[anchor_P]
