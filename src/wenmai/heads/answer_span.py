"""Where an answer starts and where it ends: two scores a token."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE, INITIAL_DEVIATION, Head, Outputs, widened

MASKED = -1e4
"""Score of what can't be chosen: finite also in half precision, with exp(score) exactly 0."""


class AnswerSpanHead(Head):
    """Start and end of the answer as two softmax decisions over the tokens of a window (Devlin et al. 2019).

    The first token, ``[CLS]``, stands for: the answer is not here. There is no bias, which a softmax would cancel.

    Outputs:
        ``start`` and ``end`` (B, T).

    Targets:
        ``answers`` (B, N, 2), first and last token (inclusive) of each place that is right, (0, 0) for none in this
        window, padded with IGNORE; a row of padding only has no terms. ``content`` (B, 1, 2), the tokens [start, stop)
        of the context: a place can only be there or at the first token.

    The loss is ``-log Σ p_start - log Σ p_end``, each sum over the different tokens that are right (Clark and Gardner
    2018 for several places; of one, cross-entropy); the count is two a row. So is the divergence of two passes.

    Args:
        hidden_size: H.
        dropout: rate on the hidden states, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"start": (1,), "end": (1,)}

    def __init__(self, hidden_size: int, *, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, 2, bias=False)
        nn.init.normal_(self.output.weight, std=INITIAL_DEVIATION)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        start_BT, end_BT = self.output(self.dropout(hidden_BTH)).unbind(dim=-1)
        return {"start": start_BT, "end": end_BT}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        counted_B = _counted(batch)
        total = outputs["start"].new_zeros((), dtype=widened(outputs["start"]).dtype)
        for name, place_BN in zip(("start", "end"), batch["answers"].unbind(dim=-1), strict=True):
            log_BT = _choosable(outputs[name], batch["content"]).log_softmax(dim=-1)
            gold_BT = _marked(place_BN, log_BT.size(1))
            right_B = log_BT.masked_fill(~gold_BT, MASKED).logsumexp(dim=-1)
            total = total - right_B.masked_fill(~counted_B, 0.0).sum()
        return total, 2 * int(counted_B.sum())

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        counted_B = _counted(batch)
        apart_B = sum(
            softmax_divergence(*(_choosable(outputs[name], batch["content"]) for outputs in (first, second)))
            for name in ("start", "end")
        )
        assert isinstance(apart_B, Tensor)
        return apart_B.masked_fill(~counted_B, 0.0).sum()


def _counted(batch: dict[str, Tensor]) -> Tensor:
    """Which rows have terms, booleans (B,)."""
    return (batch["answers"][..., 0] != IGNORE).any(dim=1)


def _choosable(scores_BT: Tensor, content_BN2: Tensor) -> Tensor:
    """The scores with ``MASKED`` where no answer can be: the question, special tokens but the first, padding."""
    scores_BT = widened(scores_BT)
    token_T = torch.arange(scores_BT.size(1), device=scores_BT.device)
    first_B1, stop_B1 = content_BN2[:, 0, :1], content_BN2[:, 0, 1:]
    allowed_BT = (token_T == 0) | ((token_T >= first_B1) & (token_T < stop_B1))
    return scores_BT.masked_fill(~allowed_BT, MASKED)


def _marked(place_BN: Tensor, tokens: int) -> Tensor:
    """Places padded with IGNORE -> booleans (B, T)."""
    # padding is written to one column too many, which is then cut off
    column_BN = torch.where(place_BN == IGNORE, tokens, place_BN)
    marked = torch.zeros(place_BN.size(0), tokens + 1, dtype=torch.bool, device=place_BN.device)
    return marked.scatter(1, column_BN, True)[:, :tokens]
