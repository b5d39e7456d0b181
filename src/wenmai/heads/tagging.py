"""One label a token, each decided by itself."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from wenmai.heads.cross_entropy import one_of_labels, refuse_both
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs, linear


class TaggingHead(Head):
    """Softmax over the tags of every token.

    The plain choice for flat spans; :func:`wenmai.heads.viterbi.best_tags` keeps its decoding legal. Against
    :class:`wenmai.heads.crf.CRFHead` it trains faster and knows nothing of neighbouring tags beyond the
    hidden states.

    Outputs:
        ``logits`` (B, T, L).

    Targets:
        ``tags`` (B, T), ids or IGNORE (special tokens, padding). The loss is cross-entropy, the count
        labelled tokens (:func:`wenmai.heads.cross_entropy.one_of_labels`). So is the divergence of two passes.

    Args:
        hidden_size: H.
        tags: L.
        dropout: rate on the hidden states, training only.
        label_smoothing: share of the target that is spread evenly over all tags (Szegedy et al. 2016).
        focal_gamma: γ of the focal loss (Lin et al. 2017): tokens that are nearly right, most of those
            outside of all spans, count less. 0 is cross-entropy.

    Raises:
        ValueError: both ``label_smoothing`` and ``focal_gamma``.
    """

    defines_divergence = True
    token_axes: ClassVar = {"logits": (1,)}

    def __init__(
        self,
        hidden_size: int,
        tags: int,
        *,
        dropout: float,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ):
        super().__init__()
        refuse_both(label_smoothing, focal_gamma)
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.dropout = nn.Dropout(dropout)
        self.output = linear(hidden_size, tags)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self.output(self.dropout(hidden_BTH))}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        return one_of_labels(
            outputs["logits"].flatten(0, 1),
            batch["tags"].flatten(),
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        known_BT = batch["tags"] != IGNORE
        return softmax_divergence(first["logits"][known_BT], second["logits"][known_BT]).sum()
