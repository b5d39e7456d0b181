"""One of several rows that belong together: a score a row, a softmax over the rows of an example."""

from __future__ import annotations

import torch
from torch import Tensor

from wenmai.heads.classification import RowScoreHead
from wenmai.heads.divergence import QUARTER
from wenmai.heads.head import IGNORE, Outputs, widened


class ChoiceHead(RowScoreHead):
    """Multiple choice: every choice is a row, and the rows of an example compete (Radford et al. 2018).

    Targets:
        ``chosen`` (B,), 1 for the right row, 0 for the others, IGNORE where it is not known, and ``group`` (B,), equal
        for the rows of an example, all of which must be in the batch. The loss is ``-log`` of the right row's share of
        the softmax over its group, the count groups with a right row. So is the divergence of two passes.
    """

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        right_B = batch["chosen"] == 1
        log_B = log_shares(outputs["score"], batch["group"])
        return -log_B.masked_fill(~right_B, 0.0).sum(), int(right_B.sum())

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        first_B, second_B = (log_shares(outputs["score"], batch["group"]) for outputs in (first, second))
        apart_B = QUARTER * (first_B.exp() - second_B.exp()) * (first_B - second_B)
        return apart_B.masked_fill(batch["chosen"] == IGNORE, 0.0).sum()


def log_shares(score_B: Tensor, group_B: Tensor) -> Tensor:
    """The logarithm of each row's share of the softmax over the rows of its group, (B,)."""
    score_B = widened(score_B)
    groups, number_B = torch.unique(group_B, return_inverse=True)
    highest_G = score_B.detach().new_full((len(groups),), -torch.inf)
    highest_G = highest_G.scatter_reduce(0, number_B, score_B.detach(), "amax")
    shifted_B = score_B - highest_G[number_B]
    total_G = torch.zeros_like(highest_G).scatter_add(0, number_B, shifted_B.exp())
    return shifted_B - total_G.log()[number_B]
