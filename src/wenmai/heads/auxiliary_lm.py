"""A decision about a row, and beside it the row's own words: the auxiliary loss of GPT-1."""

from __future__ import annotations

import torch
from torch import Tensor

from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.classification import ClassificationHead, RegressionHead
from wenmai.heads.head import Head, Outputs
from wenmai.heads.vocabulary_loss import vocabulary_loss


class WithLanguageModel(Head):
    """``L2 + λ L1`` (Radford et al. 2018): the decision's loss, and λ times how badly the row's tokens are foretold.

    As in their code a row's tokens are averaged before rows are added, so both terms are per row and share one number,
    that of the decision's loss: accumulation and processes can't change their proportion. Helps where labelled texts
    are many; their ablation found it to help on larger sets only.

    Outputs:
        the decision's; in training also ``language_model`` (1,), the sum over rows of the mean over their tokens of
        ``-log p`` of the token that follows, special tokens behind the text included.

    Targets:
        the decision's. What follows is read off ``input_ids``. Rows that the decision doesn't count don't count.

    Args:
        decision: what the row is about.
        language_model: over the same hidden states.
        weight: λ; 0.5 in the paper.
    """

    defines_divergence = True

    def __init__(
        self, decision: ClassificationHead | RegressionHead, language_model: CausalLMHead, *, weight: float
    ):
        super().__init__()
        self.decision = decision
        self.language_model = language_model
        self.weight = weight

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return None if purpose == "train" else self.decision.tokens_read(batch, purpose)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return self.decision.forward(hidden_BTH, mask_BT)

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        ids_BT, real_BT = batch["input_ids"], mask_BT.bool()
        said_BT = torch.zeros_like(real_BT)
        said_BT[:, :-1] = real_BT[:, :-1] & real_BT[:, 1:]
        said_BT &= self.decision.counted(batch)[:, None]
        share_BT = said_BT / said_BT.sum(dim=1, keepdim=True).clamp(min=1)
        loss = vocabulary_loss(
            hidden_BTH[said_BT],
            self.language_model.weight,
            ids_BT.roll(-1, dims=1)[said_BT],
            share_M=share_BT[said_BT],
        )
        return {**self.decision.training_outputs(hidden_BTH, mask_BT, batch), "language_model": loss[None]}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Takes the outputs of :meth:`training_outputs`."""
        loss, count = self.decision.loss(outputs, batch)
        return loss + self.weight * outputs["language_model"].sum(), count

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        """Of the decision."""
        return self.decision.divergence(first, second, batch)
