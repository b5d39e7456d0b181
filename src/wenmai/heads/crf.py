"""One label a token, decided for the whole row at once: the linear-chain conditional random field."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wenmai.heads.chain import chain_of, gold_scores, log_totals, marginals
from wenmai.heads.divergence import QUARTER
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

    There is no label smoothing and no focal loss here: the answer is one of L^T sequences, and a share of the
    target spread over all of them would go to forbidden and absurd ones.

    The divergence of two passes is that of whole sequences, over the same sequences as the loss. It is exact,
    and needs only the probabilities μ of tags at tokens: both passes have the same transitions, so
    ``KL(p‖q) + KL(q‖p) = Σ (μp - μq)(logits p - logits q)`` over tokens and tags.

    Args:
        hidden_size: H.
        tags: L.
        dropout: rate on the hidden states, training only.
        allowed: booleans (L + 2, L) in the layout of the transitions; None allows everything.
    """

    defines_divergence = True
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

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        logits = (first["logits"], second["logits"])
        return chain_divergences(*logits, first["transitions"][0], batch["tags"], self.allowed).sum()


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
    chain = chain_of(logits_BTL, transitions, tags_BT, allowed)
    losses_B = torch.where(chain.length_B > 0, log_totals(chain) - gold_scores(chain), 0.0)
    return losses_B.to(widened(logits_BTL).dtype)


def chain_divergences(
    first_BTL: Tensor, second_BTL: Tensor, transitions: Tensor, tags_BT: Tensor, allowed: Tensor
) -> Tensor:
    """How far apart the probabilities of each row's sequences are after two passes, as :class:`CRFHead` says.

    Args:
        first_BTL, second_BTL: logits of the passes.
        transitions, tags_BT, allowed: as for :func:`chain_losses`.

    Returns:
        (B,), a quarter of the two directions; 0 for rows without tags.
    """
    # one loop for both passes
    both = chain_of(torch.cat([first_BTL, second_BTL]), transitions, tags_BT.repeat(2, 1), allowed)
    (first, second), (p, q) = both.logits_BWL.chunk(2), marginals(both).chunk(2)
    return (QUARTER * ((p - q) * (first - second)).sum(dim=(1, 2))).to(widened(first_BTL).dtype)
