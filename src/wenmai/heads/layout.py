"""A page: what each of its words is part of, and which entities belong together."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenmai.heads.box_embeddings import BoxEmbeddings, boxes_of
from wenmai.heads.cross_entropy import one_of_labels
from wenmai.heads.divergence import sigmoid_divergence, softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs
from wenmai.heads.page_links import IMPOSSIBLE, LinkFactors, LinkScorer, link_loss, link_scores
from wenmai.heads.tagging import TaggingHead

TOKEN, LABEL, BOX_AT = 0, 1, slice(2, 6)
"""Columns of ``entities``."""


class LayoutHead(Head):
    """Tags of words and links between entities, from one encoder; see :class:`wenmai.heads.page_links.LinkScorer`.

    A word is represented by its first token, as in LayoutLM, and an entity by its first word (as in SPADE, Hwang et
    al. 2021, arXiv:2005.00642). Links are learned between the gold entities of a row.

    For an encoder that reads no boxes the head has :class:`BoxEmbeddings`, which are added to the embedded words.

    Outputs:
        ``logits`` (B, T, L) of tags. ``keys`` and ``values`` (B, T, D), ``places`` (B, 2, P, P), ``types`` (B, C, C):
        :func:`page_link_scores` makes scores between any entities of them. Parts that are left out give nothing.

    Targets:
        ``tags`` (B, T): of words' first tokens, else IGNORE. ``entities`` (B, N, 6): first token, label and the four
        sides of the box of each entity that begins in the row; ``links`` (B, M, 2): key and value, as numbers of these.

    The loss is the cross-entropy of the words' tags plus λ times the loss of the links, both summed over what the page
    holds. The count is words; without tags, entities. The divergence of two passes is summed over the same decisions.

    Args:
        hidden_size: H.
        tags: L; 0 leaves them out.
        link_size: D; 0 leaves links out.
        possible: (C, C): between which labels of entities links are possible.
        link_weight: λ.
        boxes: E, the width of box embeddings; 0: there are none.
        dropout: rate on the hidden states, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"logits": (1,), "keys": (1,), "values": (1,)}

    def __init__(
        self,
        hidden_size: int,
        *,
        tags: int,
        link_size: int,
        possible: NDArray[np.bool_],
        link_weight: float,
        boxes: int,
        dropout: float,
    ):
        super().__init__()
        self.link_weight = link_weight
        self.tags = TaggingHead(hidden_size, tags, dropout=dropout) if tags else None
        self.dropout = torch.nn.Dropout(dropout)
        self.boxes = BoxEmbeddings(boxes) if boxes else None
        self.links = (
            LinkScorer(hidden_size, link_size, len(possible), torch.tensor(possible)) if link_size else None
        )

    def added_to_words(self, batch: dict[str, Tensor]) -> Tensor | None:
        box_BT4 = boxes_of(batch)
        if self.boxes is None or box_BT4 is None:
            return None
        added: Tensor = self.boxes(box_BT4)
        return added

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        outputs = {} if self.tags is None else self.tags(hidden_BTH, mask_BT)
        if self.links is not None:
            keys, values, places, types = self.links(self.dropout(hidden_BTH))
            rows = hidden_BTH.size(0)
            outputs |= {
                "keys": keys,
                "values": values,
                "places": places.expand(rows, *places.shape),
                "types": types.expand(rows, *types.shape),
            }
        return outputs

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        terms = []
        count = 0
        if self.links is not None:
            scores_BNN, entity_BN = self._scores(outputs, batch)
            terms.append(self.link_weight * link_loss(scores_BNN, _gold(scores_BNN, batch), entity_BN))
            count = int(entity_BN.sum())
        if self.tags is not None:
            tagged, count = one_of_labels(outputs["logits"].flatten(0, 1), batch["tags"].flatten())
            terms.append(tagged)
        return torch.stack(terms).sum(), count

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        terms = []
        if self.tags is not None:
            known_BT = batch["tags"] != IGNORE
            terms.append(softmax_divergence(first["logits"][known_BT], second["logits"][known_BT]).sum())
        if self.links is not None:
            (one_BNN, entity_BN), (other_BNN, _) = (self._scores(part, batch) for part in (first, second))
            real_BNN = entity_BN[:, :, None] & entity_BN[:, None, :] & (one_BNN > IMPOSSIBLE / 2)
            apart = sigmoid_divergence(one_BNN[real_BNN], other_BNN[real_BNN])
            terms.append(self.link_weight * apart.sum())
        return torch.stack(terms).sum()

    def _scores(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (B, N, N) between the gold entities of each row, and which of them are none (B, N)."""
        entities_BN6 = batch["entities"]
        entity_BN = entities_BN6[..., LABEL] != IGNORE
        known_BN6 = entities_BN6.clamp(min=0)
        row_B1 = torch.arange(len(entity_BN), device=entity_BN.device)[:, None]
        at = (row_B1, known_BN6[..., TOKEN])
        factors = LinkFactors(
            outputs["keys"][at], outputs["values"][at], outputs["places"][0], outputs["types"][0]
        )
        return link_scores(factors, known_BN6[..., LABEL], known_BN6[..., BOX_AT]), entity_BN


def _gold(scores_BNN: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """(B, N, N), True where the first entity is a key of the second."""
    links_BM2 = batch["links"]
    gold_BNN = torch.zeros_like(scores_BNN, dtype=torch.bool)
    row_L, link_L = (links_BM2[..., 0] != IGNORE).nonzero(as_tuple=True)
    key_L, value_L = links_BM2[row_L, link_L].unbind(dim=-1)
    return gold_BNN.index_put((row_L, key_L, value_L), torch.tensor(True, device=gold_BNN.device))


def page_link_scores(
    outputs: dict[str, NDArray[Any]], label_N: NDArray[np.int64], box_N4: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(N, N): the score of each entity as the key of each other; see :func:`wenmai.heads.page_links.link_scores`.

    Args:
        outputs: ``keys`` and ``values`` (N, D) at the entities' first tokens, ``places`` and ``types`` of a row.
    """
    factors = LinkFactors(*(torch.from_numpy(outputs[name]) for name in LinkFactors._fields))
    found: NDArray[np.float32] = link_scores(
        factors, torch.from_numpy(label_N), torch.from_numpy(box_N4)
    ).numpy()
    return found
