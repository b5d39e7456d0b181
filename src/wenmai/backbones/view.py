"""Which tokens of its own row a token may look at: all, those before it, those near it, or a sparse choice.

Shape letters: T tokens of a row that look, K tokens that they look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class View:
    """Distance decides; a token always sees itself.

    Args:
        causal: only what stands before it.
        window: only what is nearer than this; None: whatever the distance.
        stride: beside the window also every token whose distance is a multiple of this (Child et al. 2019).
    """

    causal: bool = False
    window: int | None = None
    stride: int | None = None

    def whole(self, length: int) -> bool:
        """Whether distance excludes nothing in rows of this length."""
        return self.window is None or length <= self.window

    def mask(self, looking: int, device: torch.device, *, looked_at: int | None = None) -> Tensor | None:
        """Booleans (T, K), True where a token may look; None: everywhere.

        Args:
            looking: T.
            looked_at: K, the last of which are those that look: more of them where some are kept from before.
        """
        looked_at = looking if looked_at is None else looked_at
        near = self.whole(looked_at)
        if near and not self.causal:
            return None
        back_TK = torch.arange(looked_at - looking, looked_at, device=device)[:, None] - torch.arange(
            looked_at, device=device
        )
        seen_TK = torch.ones_like(back_TK, dtype=torch.bool)
        if not near:
            assert self.window is not None
            seen_TK = back_TK.abs() < self.window
            if self.stride is not None:
                seen_TK |= back_TK % self.stride == 0
        return seen_TK & (back_TK >= 0) if self.causal else seen_TK

    @property
    def reach(self) -> tuple[int, int] | None:
        """How far to the left and to the right, as kernels for windows want it (-1: any); None: they can't."""
        if self.window is None:
            return -1, 0 if self.causal else -1
        return None if self.stride else (self.window - 1, 0 if self.causal else self.window - 1)


def view_of(module: nn.Module, is_causal: bool | None, window: int | None) -> View:
    """What an attention module of transformers means, by the rules of its own attention functions.

    Args:
        is_causal, window: as the module was called; without a word about it, it is causal.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    return sparse_view(module) or View(causal, window)


def sparse_view(module: nn.Module) -> View | None:
    """Of every second layer where the network was described with ``sparse_attention``, else None.

    GPT-3 (Brown et al. 2020) alternates dense and locally banded layers, the first one dense.
    """
    config: Any = getattr(module, "config", None)
    sparse = getattr(config, "sparse_attention", None)
    layer = getattr(module, "layer_idx", None)
    if not sparse or layer is None or layer % 2 == 0:
        return None
    return View(True, sparse["window"], sparse.get("stride"))
