"""One decision about two marked parts of a row: how the entities of a pair are related."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wenmai.heads.cross_entropy import one_of_labels, refuse_both
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened

Representation = Literal["entity_starts", "entity_means", "r_bert", "cls"]

SUBJECT, OBJECT, SUBJECT_START, OBJECT_START = 1, 2, 4, 8
"""Bits of ``pair_marks``: the tokens of each entity, and the one token at which it begins."""


class MarkedPairHead(Head):
    """A label for a pair of entities, from the hidden states at its places.

    * ``entity_starts``: the token at which each entity begins, the marker before it where there are markers, beside
      each other (Baldini Soares et al. 2019, arXiv:1906.03158, whose best form). The usual choice.
    * ``entity_means``: the mean of each entity's tokens, beside each other. Needs no markers.
    * ``r_bert``: the first token of the row and the means of both entities, each through tanh and a layer (one for both
      entities), beside each other (R-BERT, Wu & He 2019, arXiv:1905.08284). Knows the whole sentence; two more layers
      that start from nothing.
    * ``cls``: the first token alone, which knows the entities by their markers only. The baseline of both papers.

    Outputs:
        ``logits`` (B, L).

    Reads:
        ``pair_marks`` (B, T), sums of the bits at the top of this file. A bit that no token has is a vector of 0.

    Targets:
        ``label`` (B,), the id or IGNORE. The loss is cross-entropy, the count labelled rows
        (:func:`wenmai.heads.cross_entropy.one_of_labels`). So is the divergence of two passes.

    Args:
        hidden_size: H.
        labels: L.
        representation: see above.
        dropout: rate on what the decision is made from, training only.
        label_smoothing: share of the target that is spread evenly over all labels (Szegedy et al. 2016).
        focal_gamma: γ of the focal loss (Lin et al. 2017). 0 is cross-entropy.

    Raises:
        ValueError: both ``label_smoothing`` and ``focal_gamma``.
    """

    defines_divergence = True
    reads: ClassVar = ("pair_marks",)

    def __init__(
        self,
        hidden_size: int,
        labels: int,
        *,
        representation: Representation,
        dropout: float,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ):
        super().__init__()
        refuse_both(label_smoothing, focal_gamma)
        self.representation = representation
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        layered = representation == "r_bert"
        self.first = linear(hidden_size, hidden_size) if layered else None
        self.entity = linear(hidden_size, hidden_size) if layered else None
        self.inner_dropout = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        vectors = {"cls": 1, "r_bert": 3}.get(representation, 2)
        self.output = linear(vectors * hidden_size, labels)

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        marks_BT = batch["pair_marks"]
        starts = self.representation == "entity_starts"
        bits = SUBJECT_START | OBJECT_START if starts else SUBJECT | OBJECT
        read_BT = (marks_BT & bits) != 0 if self.representation != "cls" else torch.zeros_like(marks_BT) != 0
        read_BT[:, 0] = True
        return read_BT

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor, pair_marks_BT: Tensor | None = None) -> Outputs:
        assert pair_marks_BT is not None, "pair_marks is in `reads`"
        return {"logits": self.output(self._pair(hidden_BTH, pair_marks_BT))}

    def _pair(self, hidden_BTH: Tensor, marks_BT: Tensor) -> Tensor:
        """What the decision is made from, (B, 1 to 3 times H)."""
        vectors = [hidden_BTH[:, 0]] if self.representation in ("cls", "r_bert") else []
        if self.representation != "cls":
            starts = self.representation == "entity_starts"
            bits = (SUBJECT_START, OBJECT_START) if starts else (SUBJECT, OBJECT)
            vectors += [_mean(hidden_BTH, (marks_BT & bit) != 0) for bit in bits]
        pair = torch.cat(vectors, dim=-1)
        if self.first is not None and self.entity is not None:
            # dropped together: a module that drops several times in a pass would drop the same places each time
            first_BH, *entities = self.inner_dropout(torch.tanh(pair)).chunk(3, dim=-1)
            pair = torch.cat([self.first(first_BH), *(self.entity(each_BH) for each_BH in entities)], dim=-1)
        dropped: Tensor = self.dropout(pair)
        return dropped

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        return one_of_labels(
            outputs["logits"],
            batch["label"],
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        known_B = batch["label"] != IGNORE
        return softmax_divergence(first["logits"][known_B], second["logits"][known_B]).sum()


def _mean(hidden_BTH: Tensor, chosen_BT: Tensor) -> Tensor:
    """(B, H): the mean of the chosen tokens, 0 where none is."""
    # filled, not multiplied: padding may hold anything
    total_BH = widened(hidden_BTH).masked_fill(~chosen_BT[..., None], 0.0).sum(dim=1)
    return (total_BH / chosen_BT.sum(dim=1, keepdim=True).clamp(min=1)).to(hidden_BTH.dtype)
