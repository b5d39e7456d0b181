"""Our attention inside the forward of transformers' own modules, for every architecture that leaves it a choice.

transformers asks a table of functions for the attention and the mask (``AttentionInterface``). Two entries of ours go
in: ``wenmai`` for padded batches and ``wenmai_packed`` for packed ones, which need no mask. What the function must know
of the batch travels as an argument through the layers, so a layer that is computed again gets it again.

Shape letters: B rows, T tokens of a row, N real tokens of all rows, A heads, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from wenmai.backbones.attention import (
    attention_dropout,
    packed_attention,
    padded_attention,
    with_prefix,
)
from wenmai.backbones.dropout import RowKeys
from wenmai.backbones.packing import Packing
from wenmai.backbones.view import sparse_view, view_of

PADDED, PACKED = "wenmai", "wenmai_packed"
ARGUMENT = "wenmai_rows"
"""Under which the layers pass :class:`Rows` on."""


@dataclass(frozen=True)
class Rows:
    """What attention must know of a batch.

    Args:
        keys: of the dropout.
        packing: of the tokens, which are then one row (1, N); None: they are padded.
        prefix: of attention modules, keys and values (A, P, D) each, which every token sees beside those of its row.
        told: called with every module that asks for attention, and its keys.
    """

    keys: RowKeys
    packing: Packing | None = None
    prefix: Mapping[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)
    told: Callable[[nn.Module, Tensor], None] | None = None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: (B, A, T, D) three times -> (B, T, A, D)."""
    rows: Rows | None = kwargs.pop(ARGUMENT, None)
    tokens = (query.size(2),) if rows and rows.packing else (query.size(0), query.size(2))
    if rows is not None and rows.told is not None:
        rows.told(module, key)
    prefix = None if rows is None else rows.prefix.get(module)
    unkeyed = dropout == 0.0 or rows is None or rows.keys.find(tokens) is None
    if rows is None or (rows.packing is None and unkeyed and prefix is None):
        sparse = sparse_view(module)
        if sparse is not None:
            seen_TK = sparse.mask(query.size(2), query.device, looked_at=key.size(2))
            attention_mask = _both_masks(attention_mask, seen_TK)
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    drop = attention_dropout(module, dropout, tokens, rows.keys)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    view = view_of(module, kwargs.get("is_causal"), sliding_window)
    if key.size(1) < query.size(1):  # several heads of queries share one of keys and values
        times = query.size(1) // key.size(1)
        key, value = (part.repeat_interleave(times, dim=1) for part in (key, value))
        if prefix is not None:
            prefix = (prefix[0].repeat_interleave(times, dim=0), prefix[1].repeat_interleave(times, dim=0))
    if rows.packing is None:
        if attention_mask is None or sparse_view(module) is not None:
            attention_mask = _both_masks(attention_mask, view.mask(query.size(2), query.device))
        if prefix is not None:
            key, value, attention_mask = with_prefix(prefix, key, value, attention_mask)
        mixed_BATD = padded_attention(query, key, value, attention_mask, scale=scale, dropout=drop)
        return mixed_BATD.transpose(1, 2).contiguous(), None
    qkv_N3AD = torch.stack([part[0].transpose(0, 1) for part in (query, key, value)], dim=1)
    mixed_NAD = packed_attention(qkv_N3AD, rows.packing, scale=scale, dropout=drop, view=view, prefix=prefix)
    return mixed_NAD[None], None


def _both_masks(mask: Tensor | None, seen_TK: Tensor | None) -> Tensor | None:
    """What both let through. Masks of transformers' fused attention are booleans (B, 1, T, K)."""
    return seen_TK if mask is None else mask if seen_TK is None else mask & seen_TK


def takes_our_attention(model: Any) -> bool:
    """Whether the model asks the table, and nobody has put another entry of it in force."""
    return bool(model._supports_attention_backend) and model.config._attn_implementation in (
        "sdpa",
        PADDED,
        PACKED,
    )


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


for name in (PADDED, PACKED):
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PADDED, sdpa_mask)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _no_mask)
