"""One label a token, decided for the whole row at once: the linear-chain conditional random field."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened
from wenmai.heads.viterbi import FORBIDDEN, Allowed


class CRFHead(Head):
    """Scores of tags and of steps between them (Lafferty, McCallum & Pereira 2001), on top of a backbone.

    Against :class:`wenmai.heads.tagging.TaggingHead` it learns which tags follow each other, so spans are
    less often torn; a training step costs a loop over the tokens. ``transitions`` starts at 0 and wants a far
    higher learning rate than the backbone (1e-3 to 1e-2); it is a parameter of its own so that the optimizer
    can tell.

    Outputs:
        ``logits`` (B, T, L); ``transitions`` (B, L + 2, L), the same for every row, in the layout of
        :mod:`wenmai.heads.viterbi`, forbidden steps as ``FORBIDDEN``: decoding needs nothing else.

    Targets:
        ``tags`` (B, T), ids or IGNORE. Tokens with IGNORE (special tokens, padding) are outside the chain.
        The loss is the negative log-likelihood of the whole sequence, the count sequences of at least one
        token.

    Forbidden steps have no part in the likelihood. Where the gold tags take one (a window that begins inside
    an entity), that one step is scored by the logits alone, so the row still teaches and its loss stays
    finite.

    Args:
        hidden_size: H.
        tags: L.
        dropout: rate on the hidden states, training only.
        allowed: booleans (L + 2, L) in the layout of the transitions; None allows everything.
    """

    token_axes: ClassVar = {"logits": (1,)}

    allowed: Tensor

    def __init__(self, hidden_size: int, tags: int, *, dropout: float, allowed: Allowed | None = None):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = linear(hidden_size, tags)
        self.transitions = nn.Parameter(torch.zeros(tags + 2, tags))
        legal = torch.ones(tags + 2, tags, dtype=torch.bool) if allowed is None else torch.tensor(allowed)
        # follows from the labels, so it is not saved with the weights
        self.register_buffer("allowed", legal, persistent=False)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        transitions = self.transitions.masked_fill(~self.allowed, FORBIDDEN)
        return {
            "logits": self.output(self.dropout(hidden_BTH)),
            "transitions": transitions.expand(hidden_BTH.size(0), -1, -1),
        }

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        tags_BT = batch["tags"]
        losses_B = chain_losses(outputs["logits"], outputs["transitions"][0], tags_BT, self.allowed)
        return losses_B.sum(), int((tags_BT != IGNORE).any(dim=1).sum())


def chain_losses(logits_BTL: Tensor, transitions: Tensor, tags_BT: Tensor, allowed: Tensor) -> Tensor:
    """Negative log-likelihood of each row's tags, ``log Σ exp(score of a path) - score of the gold path``.

    Args:
        logits_BTL: score of every tag at every token.
        transitions: (L + 2, L), layout of :mod:`wenmai.heads.viterbi`.
        tags_BT: gold tags; the chain runs over those that are not IGNORE.
        allowed: booleans (L + 2, L); a gold step that is not allowed leaves its transition scores out.

    Returns:
        (B,), 0 for rows without tags.
    """
    labels = logits_BTL.size(-1)
    transitions = widened(transitions)
    steps, start, stop = transitions[:labels], transitions[labels], transitions[labels + 1]

    inside_BT = tags_BT != IGNORE
    length_B = inside_BT.sum(dim=1)
    width = max(1, int(length_B.max()))
    # the chain's tokens to the left, in order
    order_BT = (~inside_BT).int().argsort(dim=1, stable=True)[:, :width]
    # a constant a token changes no probability; this one keeps long sums near 0, where fp32 is exact
    logits_BTL = widened(logits_BTL).log_softmax(dim=-1)
    logits_BTL = logits_BTL.gather(1, order_BT[..., None].expand(-1, -1, labels))
    tags_BT = tags_BT.gather(1, order_BT).clamp(min=0)
    inside_BT = torch.arange(width, device=tags_BT.device) < length_B[:, None]
    last_B1 = tags_BT.gather(1, (length_B - 1).clamp(min=0)[:, None])

    before_BT = torch.cat([torch.full_like(last_B1, labels), tags_BT[:, :-1]], dim=1)
    # 1 where transition scores count, 0 where the gold tags break the rules
    bound_BT = allowed[before_BT, tags_BT].to(logits_BTL.dtype)
    bound_B1 = allowed[labels + 1][last_B1].to(logits_BTL.dtype)

    emitted_BT = logits_BTL.gather(2, tags_BT[..., None]).squeeze(2)
    moved_BT = bound_BT * transitions[before_BT, tags_BT]
    gold_B = (emitted_BT + moved_BT).masked_fill(~inside_BT, 0.0).sum(dim=1)
    gold_B = gold_B + (bound_B1 * stop[last_B1]).squeeze(1)

    # alpha_BL[b, j]: log sum of exp(score) of all paths over the row's tokens so far that end in tag j
    alpha_BL = logits_BTL[:, 0] + bound_BT[:, :1] * start
    for t in range(1, width):
        paths_BLL = torch.addcmul(alpha_BL[:, :, None], bound_BT[:, t, None, None], steps)
        longer_BL = paths_BLL.logsumexp(dim=1) + logits_BTL[:, t]
        alpha_BL = torch.where(inside_BT[:, t, None], longer_BL, alpha_BL)
    total_B = (alpha_BL + bound_B1 * stop).logsumexp(dim=1)
    return torch.where(length_B > 0, total_B - gold_B, 0.0)
