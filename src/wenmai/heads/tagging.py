"""One label a token, each decided by itself."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened


class TaggingHead(Head):
    """Softmax over the tags of every token.

    The plain choice for flat spans; :func:`wenmai.heads.viterbi.best_tags` keeps its decoding legal. Against
    :class:`wenmai.heads.crf.CRFHead` it trains faster and knows nothing of neighbouring tags beyond the
    hidden states.

    Outputs:
        ``logits`` (B, T, L).

    Targets:
        ``tags`` (B, T), ids or IGNORE (special tokens, padding). The loss is cross-entropy, the count
        labelled tokens.

    Args:
        hidden_size: H.
        tags: L.
        dropout: rate on the hidden states, training only.
    """

    token_axes: ClassVar = {"logits": (1,)}

    def __init__(self, hidden_size: int, tags: int, *, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = linear(hidden_size, tags)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self.output(self.dropout(hidden_BTH))}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        logits_NL = widened(outputs["logits"]).flatten(0, 1)
        tags_N = batch["tags"].flatten()
        loss = cross_entropy(logits_NL, tags_N, ignore_index=IGNORE, reduction="sum")
        return loss, int((tags_N != IGNORE).sum())
