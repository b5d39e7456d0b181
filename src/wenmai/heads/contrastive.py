"""Embeddings of whole rows, learned by comparing rows with each other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize as to_unit_length

from wenmai.heads.head import Head, Outputs, linear, widened
from wenmai.heads.pooling import Pooling, pool, tokens_pooled

ANCHOR, POSITIVE, HARD_NEGATIVE = 0, 1, 2
"""What a row is to its example: the values of the target ``role``."""


class ContrastiveHead(Head):
    """Texts that belong together come near to each other, others move apart.

    Outputs:
        ``embedding`` (B, D).

    Targets:
        ``group`` (B,), an id of the row's example, unique in the whole optimizer step; ``role`` (B,), ANCHOR,
        POSITIVE or HARD_NEGATIVE; and for pairs with a degree of similarity ``score`` (B,), the same on both
        rows of the pair.

        Without ``score``: InfoNCE (van den Oord et al. 2018; SimCSE, Gao et al. 2021). Every anchor must pick
        its positive among all positives and hard negatives of the step; the count is anchors that have a
        positive. Of several positives each is picked in turn, the others left out, and the anchor's loss is
        their mean.

        With ``score``: CoSENT (Su 2022), ``log(1 + Σ exp((cos_j - cos_i) / τ))`` over all two pairs i, j of
        the step with score i > score j. It learns only the order, which is what rank correlation measures.
        The sum stands inside the logarithm, so a step is one term: the count is 1, or 0 if no two scores
        differ.

    There are no probabilities of a row's own here, so R-Drop is not defined; nor is label smoothing, the
    texts that an anchor is compared with being no labels.

    Args:
        pooling: how T vectors become one.
        temperature: τ; 0.05 is usual for cosines. Lower looks more at the nearest negatives.
        normalize: whether embeddings have length 1, so that dot products are cosines.
        projection: (H, D) of a linear layer after pooling; None leaves D = H.
    """

    needs_whole_step: ClassVar[bool] = True

    def __init__(
        self,
        *,
        pooling: Pooling,
        temperature: float,
        normalize: bool = True,
        projection: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.pooling = pooling
        self.temperature = temperature
        self.normalize = normalize
        self.projection = linear(*projection) if projection is not None else None

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return tokens_pooled(batch["attention_mask"], self.pooling)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        row_BD = pool(hidden_BTH, mask_BT, self.pooling)
        if self.projection is not None:
            row_BD = self.projection(row_BD)
        row_BD = widened(row_BD)
        return {"embedding": to_unit_length(row_BD, dim=-1) if self.normalize else row_BD}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        embedding_BD = widened(outputs["embedding"])
        if "score" in batch:
            return cosent_loss(
                embedding_BD, batch["group"], batch["role"], batch["score"], temperature=self.temperature
            )
        return info_nce_loss(embedding_BD, batch["group"], batch["role"], temperature=self.temperature)


def info_nce_loss(
    embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, *, temperature: float
) -> tuple[Tensor, int]:
    """InfoNCE as :class:`ContrastiveHead` describes it: the sum over anchors, and their number."""
    anchor_B, candidate_B = role_B == ANCHOR, role_B != ANCHOR
    # half precision would round the differences that a low temperature makes large
    with torch.autocast(embedding_BD.device.type, enabled=False):
        scores_AC = embedding_BD[anchor_B] @ embedding_BD[candidate_B].T / temperature
    own_AC = group_B[anchor_B][:, None] == group_B[candidate_B]
    positive_AC = own_AC & (role_B[candidate_B] == POSITIVE)
    kept_A = positive_AC.any(dim=1)
    scores_AC, positive_AC = scores_AC[kept_A], positive_AC[kept_A]
    lowest = torch.finfo(scores_AC.dtype).min
    if not len(scores_AC):
        return embedding_BD.sum() * 0.0, 0
    negatives_A1 = scores_AC.masked_fill(positive_AC, lowest).logsumexp(dim=1, keepdim=True)
    losses_AC = (torch.logaddexp(scores_AC, negatives_A1) - scores_AC).masked_fill(~positive_AC, 0.0)
    return (losses_AC.sum(dim=1) / positive_AC.sum(dim=1)).sum(), len(scores_AC)


def cosent_loss(
    embedding_BD: Tensor, group_B: Tensor, role_B: Tensor, score_B: Tensor, *, temperature: float
) -> tuple[Tensor, int]:
    """CoSENT as :class:`ContrastiveHead` describes it: one term, or none if no two pairs differ in score."""
    unit_BD = to_unit_length(embedding_BD, dim=-1)
    anchor, partner = torch.nonzero(
        (role_B == ANCHOR)[:, None] & (role_B == POSITIVE) & (group_B[:, None] == group_B), as_tuple=True
    )
    cosine_P = (unit_BD[anchor] * unit_BD[partner]).sum(dim=-1) / temperature
    score_P = score_B[anchor]
    higher, lower = torch.nonzero(score_P[:, None] > score_P, as_tuple=True)
    if not len(higher):
        return embedding_BD.sum() * 0.0, 0
    inverted = (cosine_P[lower] - cosine_P[higher]).logsumexp(dim=0)
    return torch.logaddexp(inverted, torch.zeros_like(inverted)), 1
