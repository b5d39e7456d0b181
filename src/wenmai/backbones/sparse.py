"""Encoders for which padding is not nothing: which rows they may compute together, and what they need besides.

Most encoders leave padding out by a mask, so rows of any lengths share a batch. Some do not: what Funnel pools,
ConvBERT convolves and FNet transforms takes padding in; BigBird's blocks are laid out by the longest row of the batch,
and once it has met a short one it attends in full for good. Here only rows go together that come out as each would
alone.

Longformer (Beltagy et al. 2020, arXiv:2004.05150) needs tokens that see everything: the first of each row, [CLS].

Shape letters: B rows, T tokens of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from wenmai.backbones.dropout import KeyedDropout, RowKeys

TAKE_PADDING_IN = ("funnel", "convbert", "fnet")
FULL, SPARSE = "original_full", "block_sparse"

Call = Callable[[dict[str, Tensor]], Tensor]


class Care(ABC):
    """How a batch goes through a model that can't take it as it is.

    Attributes:
        recomputes: whether layers may be computed again in the backward pass.
    """

    recomputes: ClassVar[bool] = True

    def __init__(self, model: Any, names: Sequence[str], keys: RowKeys):
        self.model, self.names, self.keys = model, names, keys

    @abstractmethod
    def __call__(self, call: Call, batch: dict[str, Tensor]) -> Tensor:
        """Hidden states (B, T, H) of a batch; ``call`` gives those of one that the model takes."""

    def chosen(self, batch: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """What the model reads of a batch, each (B, T, ...) changed alike."""
        read = {"attention_mask", *self.names, "perturbation"}
        return {name: change(batch[name]) for name in read if name in batch}

    def fill(self, batch: dict[str, Tensor], width: int) -> None:
        """Makes what was added behind ``width`` padding, as the model writes it."""
        for name in ("input_ids", "position_ids"):
            if name in batch:
                batch[name][:, width:] = self.model.config.pad_token_id or 0


def care_for(model: Any, names: Sequence[str], keys: RowKeys) -> Care | None:
    """What the architecture needs; None: nothing.

    Args:
        model: an encoder of transformers.
        names: the inputs it takes.
        keys: of its dropout.
    """
    config = model.config
    if config.model_type == "longformer":
        return WholeWindows(model, names, keys)
    if config.model_type == "big_bird" and config.attention_type == SPARSE:
        return EqualBlocks(model, names, keys)
    if config.model_type in TAKE_PADDING_IN:
        return EqualLengths(model, names, keys)
    return None


class EqualLengths(Care):
    """Rows of equal length go together, so there is no padding."""

    def group(self, length: int) -> int:
        """Rows of which lengths share a batch."""
        return length

    def width(self, group: int, longest: int) -> int:
        """How wide a group's batch is made."""
        return longest

    def before(self, group: int) -> None:
        """Called before the rows of a group are computed."""

    def __call__(self, call: Call, batch: dict[str, Tensor]) -> Tensor:
        mask_BT = batch["attention_mask"]
        width = mask_BT.size(1)
        place_T = torch.arange(1, width + 1, device=mask_BT.device)
        lengths = (mask_BT.bool() * place_T).amax(dim=1).clamp(min=1).tolist()
        groups: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            groups.setdefault(self.group(length), []).append(row)
        parts: list[Tensor] = []
        order: list[int] = []
        for group, rows in sorted(groups.items()):
            self.before(group)
            longest = max(lengths[row] for row in rows)
            hidden = call(self._part(batch, rows, longest, self.width(group, longest)))
            parts.append(pad(hidden[:, :width], (0, 0, 0, max(0, width - hidden.size(1)))))
            order += rows
        back_B = torch.tensor(order, device=mask_BT.device).argsort()
        return torch.cat(parts).index_select(0, back_B)

    def _part(self, batch: dict[str, Tensor], rows: list[int], longest: int, width: int) -> dict[str, Tensor]:
        at = torch.tensor(rows, device=batch["attention_mask"].device)
        part = self.chosen(batch, lambda value: _wider(value[at, :longest], width - longest))
        self.fill(part, longest)
        return {**part, "key": batch["key"][at]} if "key" in batch else part


class EqualBlocks(EqualLengths):
    """BigBird: rows of as many blocks go together; those too short for its blocks all do, with full attention."""

    recomputes = False  # by then the layers may be set for another group

    def group(self, length: int) -> int:
        block = int(self.model.config.block_size)
        shortest = (5 + 2 * int(self.model.config.num_random_blocks)) * block
        return 0 if length <= shortest else -(-length // block)

    def width(self, group: int, longest: int) -> int:
        # BigBird would add as much itself, and dropout then not find its rows' keys
        return group * int(self.model.config.block_size) or longest

    def before(self, group: int) -> None:
        kind = SPARSE if group else FULL
        if self.model.attention_type == kind:
            return
        attentions = [layer.attention for layer in self.model.encoder.layer]
        salts = [self.keys.salts.pop(attention.self, 0) for attention in attentions]
        self.model.set_attention_type(kind)  # new modules around the same weights
        for attention, salt in zip(attentions, salts, strict=True):
            self.keys.salts[attention.self] = salt
            if kind == FULL:
                dropout = KeyedDropout(attention.self.dropout.p, self.keys).train(attention.training)
                attention.self.dropout = dropout
                self.keys.salts[dropout] = salt ^ 1  # one of its own, the same after every change


class WholeWindows(Care):
    """Longformer: the width is made whole windows, and the first token of each row, [CLS], attends globally."""

    def __call__(self, call: Call, batch: dict[str, Tensor]) -> Tensor:
        config = self.model.config
        windows = config.attention_window
        window = windows if isinstance(windows, int) else max(windows)
        width = batch["input_ids"].size(1)
        missing = -width % window
        wide = self.chosen(batch, lambda value: _wider(value, missing))
        self.fill(wide, width)
        first_BT = torch.zeros_like(wide["input_ids"])
        first_BT[:, 0] = 1
        wide["global_attention_mask"] = first_BT
        if "key" in batch:
            wide["key"] = batch["key"]
        return call(wide)[:, :width]


def _wider(value: Tensor, missing: int) -> Tensor:
    """(B, T, ...) with zeros behind."""
    return pad(value, (0, 0) * (value.dim() - 2) + (0, missing))
