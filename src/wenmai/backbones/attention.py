"""Attention over packed rows, and over padded ones, with dropout that belongs to the row.

Without dropout PyTorch's fused kernel is the fastest there is. With dropout it has none on a CPU and would write the
masked scores several times; here every block of equally long rows takes six matrix products and a few passes.

Shape letters: B rows, T tokens of a row, N real tokens of all rows, A heads, D numbers a head; R rows of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention

from wenmai.backbones.dropout import Rate, RowKeys, head_keys, noise
from wenmai.backbones.packing import Block, Packing
from wenmai.backbones.view import View

varlen_attn: Callable[..., Any] | None
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # PyTorch before 2.10
    varlen_attn = None

EVERYTHING = View()
SCORES_AT_ONCE = 1 << 20
"""Scores that are worked on together: more would not stay in the processor's cache."""


@dataclass(frozen=True)
class AttentionDropout:
    """Which attention probabilities are dropped.

    Args:
        rate: share of them.
        keys: of the tokens, (N,) or (B, T), int64; None: drawn from PyTorch's random state.
        salt: of the attention module.
    """

    rate: Rate
    keys: Tensor | None
    salt: int

    def kept(self, tokens: slice | None, shape: tuple[int, int, int, int], like: Tensor) -> Tensor:
        """1 or 0 for every probability (R, A, T, T) of a run of tokens (None: all) of equally long rows."""
        rows, heads, length, width = shape
        if self.keys is None:
            drawn = torch.randint(-32768, 32768, shape, dtype=torch.int16, device=like.device)
            return self.rate.kept(drawn, like.dtype)
        keys = self.keys if tokens is None else self.keys[tokens]
        keys_RAT = head_keys(keys.view(rows, length), heads).transpose(1, 2)
        return self.rate.kept(noise(keys_RAT, self.salt, width), like.dtype)


def attention_dropout(
    module: nn.Module, rate: float, leading: tuple[int, ...], keys: RowKeys
) -> AttentionDropout | None:
    """The dropout of an attention module for tokens of these leading dimensions; None when it drops nothing."""
    if not module.training or rate == 0.0:
        return None
    found = keys.find(leading) if module in keys.salts else None
    return AttentionDropout(Rate.of(rate), found, keys.salts.get(module, 0))


def packed_attention(
    qkv_N3AD: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: AttentionDropout | None = None,
    view: View = EVERYTHING,
    prefix: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Every token attends to the tokens of its own row, or to those that it may look at.

    Args:
        qkv_N3AD: queries, keys and values of the packed tokens.
        packing: whose row each token is of.
        scale: the scores are multiplied with it.
        dropout: of the attention probabilities.
        view: which tokens of the row these are.
        prefix: keys and values (A, P, D) that every token sees besides.

    Returns:
        (N, A, D).
    """
    if prefix is not None:
        return _prefixed_attention(qkv_N3AD, packing, scale, dropout, view, prefix)
    if qkv_N3AD.is_cuda:
        return _on_gpu(qkv_N3AD, packing, scale, dropout, view)
    if dropout is not None:
        return _block_attention(qkv_N3AD, packing, scale, dropout, view)
    parts = []
    for block in packing.blocks:
        q, k, v = _rows_apart(qkv_N3AD[block.tokens], block).permute(2, 0, 3, 1, 4)
        if view.causal and view.whole(block.length):
            mixed_RATD = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        else:
            seen = view.mask(block.length, q.device)
            mixed_RATD = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
        parts.append(mixed_RATD.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def padded_attention(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    dropout: AttentionDropout | None = None,
) -> Tensor:
    """Attention of padded rows; ``mask`` is True (or 0.0) where a query (or all of a row) may look. (B, A, T, D)."""
    if dropout is None:
        return scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, attn_mask=mask, scale=scale)
    scores = torch.matmul(q_BATD * scale, k_BATD.transpose(-1, -2))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    shape = scores.shape
    kept = dropout.kept(None, (shape[0], shape[1], shape[2], shape[3]), scores)
    probabilities = scores.softmax(dim=-1) * kept * dropout.rate.scale
    return torch.matmul(probabilities.to(v_BATD.dtype), v_BATD)


def with_prefix(
    prefix: tuple[Tensor, Tensor], k_BATD: Tensor, v_BATD: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and a mask of booleans (..., T, K), with P more in front that all may look at.

    Args:
        prefix: (A, P, D) each.
    """
    rows, count = len(k_BATD), prefix[0].size(1)
    k_BATD, v_BATD = (
        torch.cat([part.to(own.dtype).expand(rows, -1, -1, -1), own], dim=2)
        for part, own in zip(prefix, (k_BATD, v_BATD), strict=True)
    )
    return k_BATD, v_BATD, None if mask is None else pad(mask, (count, 0), value=True)


def _prefixed_attention(
    qkv_N3AD: Tensor,
    packing: Packing,
    scale: float,
    dropout: AttentionDropout | None,
    view: View,
    prefix: tuple[Tensor, Tensor],
) -> Tensor:
    parts = []
    for block in _cut(packing.blocks, qkv_N3AD.size(2)):
        q, k, v = _rows_apart(qkv_N3AD[block.tokens], block).permute(2, 0, 3, 1, 4)
        k, v, mask = with_prefix(prefix, k, v, view.mask(block.length, q.device))
        own = dropout
        if dropout is not None and dropout.keys is not None:
            keys = dropout.keys[block.tokens].view(block.rows, block.length)
            own = AttentionDropout(dropout.rate, keys, dropout.salt)
        mixed_RATD = padded_attention(q, k, v, mask, scale=scale, dropout=own)
        parts.append(mixed_RATD.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if parts else qkv_N3AD[:, 0]


class _BlockAttention(torch.autograd.Function):
    """Attention with dropout, block by block of equally long rows; the gradient is written down, not recorded."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_N3AD: Tensor,
        packing: Packing,
        scale: float,
        dropout: AttentionDropout,
        view: View,
    ) -> Tensor:
        tokens, _, heads, width = qkv_N3AD.shape
        out_NAD = qkv_N3AD.new_empty(tokens, heads, width)
        ctx.blocks = list(_cut(packing.blocks, heads))
        ctx.scale, ctx.kept_scale = scale, dropout.rate.scale
        saved: list[Tensor] = []
        with torch.autocast(qkv_N3AD.device.type, enabled=False):
            for block in ctx.blocks:
                q, k, v = _by_head(qkv_N3AD[block.tokens], block)
                scores = _product(q, k.transpose(1, 2), scale)
                seen = view.mask(block.length, scores.device)
                if seen is not None:
                    scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)
                probability = scores.softmax(dim=-1)
                shape = (block.rows, heads, block.length, block.length)
                kept = dropout.kept(block.tokens, shape, probability).view_as(probability).mul_(probability)
                mixed = _product(kept, v, ctx.kept_scale)
                out_NAD[block.tokens] = _by_token(mixed, block)
                saved += [q, k, v, probability, kept]
        ctx.save_for_backward(out_NAD, *saved)
        return out_NAD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NAD: Tensor) -> tuple[Tensor | None, ...]:
        out_NAD, *saved = ctx.saved_tensors
        tokens, heads, width = grad_NAD.shape
        grad_qkv = grad_NAD.new_empty(tokens, 3, heads, width)
        # Σ_j p_ij · dp_ij of the softmax's gradient is the same as output · gradient of the output
        inner_NA1 = (out_NAD * grad_NAD).sum(dim=-1, keepdim=True)
        for number, block in enumerate(ctx.blocks):
            q, k, v, probability, kept = saved[5 * number : 5 * number + 5]
            grad = _by_head(grad_NAD[block.tokens].unsqueeze(1), block)[0]
            inner = _by_head(inner_NA1[block.tokens].unsqueeze(1), block)[0]
            grad_v = _product(kept.transpose(1, 2), grad, ctx.kept_scale)
            grad_scores = _product(grad, v.transpose(1, 2), ctx.kept_scale).mul_(kept)
            grad_scores.addcmul_(probability, inner, value=-1)
            grad_q = _product(grad_scores, k, ctx.scale)
            grad_k = _product(grad_scores.transpose(1, 2), q, ctx.scale)
            for place, part in enumerate((grad_q, grad_k, grad_v)):
                grad_qkv[block.tokens, place] = _by_token(part, block)
        return grad_qkv, None, None, None, None


def _block_attention(*inputs: Any) -> Tensor:
    mixed_NAD: Tensor = _BlockAttention.apply(*inputs)  # type: ignore[no-untyped-call]
    return mixed_NAD


def _cut(blocks: tuple[Block, ...], heads: int) -> Iterator[Block]:
    """Blocks of at most :data:`SCORES_AT_ONCE` scores each, or of one row."""
    for block in blocks:
        most = max(1, SCORES_AT_ONCE // (heads * block.length**2))
        for first in range(0, block.rows, most):
            rows = min(most, block.rows - first)
            yield Block(block.start + first * block.length, rows, block.length)


def _by_head(x: Tensor, block: Block) -> Tensor:
    """(R·T, k, A, D) -> (k, R·A, T, D), in one copy."""
    apart = _rows_apart(x, block).permute(2, 0, 3, 1, 4)
    return apart.reshape(x.size(1), block.rows * x.size(2), block.length, x.size(3))


def _by_token(x: Tensor, block: Block) -> Tensor:
    """(R·A, T, D) -> (R·T, A, D), a view where it can be."""
    apart = x.view(block.rows, -1, block.length, x.size(-1))
    return apart.transpose(1, 2).reshape(block.rows * block.length, -1, x.size(-1))


def _rows_apart(x: Tensor, block: Block) -> Tensor:
    """(R·T, ...) -> (R, T, ...)."""
    return x.view(block.rows, block.length, *x.shape[1:])


def _product(left: Tensor, right: Tensor, factor: float) -> Tensor:
    """``factor`` times the batched matrix product, in one pass."""
    out = left.new_empty(left.size(0), left.size(1), right.size(2))
    return torch.baddbmm(out, left, right, beta=0, alpha=factor)


def _on_gpu(
    qkv_N3AD: Tensor, packing: Packing, scale: float, dropout: AttentionDropout | None, view: View
) -> Tensor:
    half = qkv_N3AD.dtype in (torch.float16, torch.bfloat16)
    reach = view.reach
    if dropout is None and half and varlen_attn is not None and packing.blocks and reach is not None:
        borders, longest = packing.borders, packing.longest
        q, k, v = (part.contiguous() for part in qkv_N3AD.unbind(dim=1))
        found: Tensor = varlen_attn(
            q, k, v, borders, borders, longest, longest, scale=scale, window_size=reach
        )
        return found
    # a block is a launch of small kernels: on a GPU one padded batch is faster
    width = packing.longest
    rows, place = packing.row_N, packing.place_N
    flat = rows * width + place
    batch = qkv_N3AD.new_zeros(packing.shape[0] * width, *qkv_N3AD.shape[1:]).index_copy(0, flat, qkv_N3AD)
    q, k, v = batch.view(-1, width, *batch.shape[1:]).permute(2, 0, 3, 1, 4)
    looked_at = torch.zeros(packing.shape[0] * width, dtype=torch.bool, device=q.device)
    mask = looked_at.index_fill(0, flat, True).view(-1, 1, 1, width)
    seen = view.mask(width, q.device)
    if seen is not None:
        mask = mask & seen
    if dropout is not None and dropout.keys is not None:
        keys = dropout.keys.new_zeros(packing.shape[0] * width).index_copy(0, flat, dropout.keys)
        dropout = AttentionDropout(dropout.rate, keys.view(-1, width), dropout.salt)
    mixed_BTAD = padded_attention(q, k, v, mask, scale=scale, dropout=dropout).transpose(1, 2)
    return mixed_BTAD.flatten(0, 1).index_select(0, flat)
