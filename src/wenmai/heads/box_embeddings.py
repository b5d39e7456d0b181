"""Where a token stands on its page, as something to add to its word embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BOX = ("box_left", "box_top", "box_right", "box_bottom")
"""Inputs of a row: each (B, T), in thousandths of the page. The same names as in ``wenmai.backbones.boxes``, written
again because heads and backbones do not import each other."""
PLACES = 1001
"""From 0 to 1000, both included."""


class BoxEmbeddings(nn.Module):
    """LayoutLM's 2-D positions (Xu et al. 2020, arXiv:1912.13318) for an encoder that was trained without them.

    ``x[left] + x[right] + y[top] + y[bottom] + w[right - left] + h[bottom - top]``, each a learned vector: those of
    both sides come from one table, so that "ends where another begins" is the same vector twice.

    They are added to the word embeddings, which is where LayoutLM has them too: an encoder sums up words, positions and
    types before its first normalisation. So it works with any encoder, packed or padded. They begin as 0, so that
    training begins with the encoder as it is, and learn at its rate: at a head's they drown the words.

    Args:
        width: E, that of the word embeddings.
    """

    joins_embeddings = True
    """Read by the optimizer: learns like the encoder's embeddings, though it lies in the head."""

    def __init__(self, width: int):
        super().__init__()
        self.x, self.y, self.w, self.h = (nn.Embedding(PLACES, width) for _ in range(4))
        for table in (self.x, self.y, self.w, self.h):
            nn.init.zeros_(table.weight)

    def forward(self, box_BT4: Tensor) -> Tensor:
        """(B, T, E)."""
        left, top, right, bottom = box_BT4.unbind(dim=-1)
        across = self.x(left) + self.x(right) + self.w((right - left).clamp(min=0))
        down = self.y(top) + self.y(bottom) + self.h((bottom - top).clamp(min=0))
        added: Tensor = across + down
        return added


def boxes_of(batch: dict[str, Tensor]) -> Tensor | None:
    """(B, T, 4) of a batch; None if its rows have no boxes."""
    return torch.stack([batch[name] for name in BOX], dim=-1) if BOX[0] in batch else None
