"""Boxes of tokens for the encoders that read them: LayoutLM and its kin."""

from __future__ import annotations

import torch
from torch import Tensor

BOX = ("box_left", "box_top", "box_right", "box_bottom")
"""Inputs of a row: each (B, T), in thousandths of the page. The same names as in ``wenmai.heads.box_embeddings``,
written again because heads and backbones do not import each other."""
ARGUMENT = "bbox"
"""What all of these encoders call them together, (B, T, 4)."""


def with_boxes(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its boxes as the encoders take them; as it is if it has none."""
    if BOX[0] not in batch:
        return batch
    return {**batch, ARGUMENT: torch.stack([batch[name] for name in BOX], dim=-1)}
