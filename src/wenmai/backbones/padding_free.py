"""An encoder's forward on real tokens only: how it is run, and which models can.

Shape letters: B rows, T tokens of a padded row, N real tokens of all rows, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from wenmai.backbones.dropout import RowKeys, token_keys
from wenmai.backbones.interface import ARGUMENT, PACKED, PADDED, Rows, takes_our_attention
from wenmai.backbones.lean import Prefixes, is_lean, lean_forward
from wenmai.backbones.packing import Packing

TOLERANCE = 1e-3
"""Of the largest hidden state: far above rounding, far below what a token in the wrong place changes."""


def packed_forward(
    model: Any,
    inputs: dict[str, Tensor],
    packing: Packing,
    *,
    keys: RowKeys,
    row_key_B: Tensor | None = None,
    perturbation_BTH: Tensor | None = None,
    read_BT: Tensor | None = None,
    prefix: Prefixes = MappingProxyType({}),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Tensor:
    """The hidden states of the real tokens.

    Args:
        model: an encoder of transformers.
        inputs: what it reads, padded: (B, T) or (B, T, ...).
        packing: where the real tokens are.
        keys: where the model's dropout looks for its keys.
        row_key_B: the rows' keys, int64; None: the dropout is PyTorch's.
        perturbation_BTH: added to the word embeddings.
        read_BT: which hidden states anyone will look at; the others may be left out.
        prefix: of attention modules, keys and values that stand before those of every row.
        options: arguments of its forward that are no tensors.

    Returns:
        (B, T, H), zeros for padding and for what was left out.
    """
    packed = {name: packing.pack(value) for name, value in inputs.items() if name != "attention_mask"}
    if "position_ids" not in packed:
        packed["position_ids"] = packing.pack(positions(model, inputs["input_ids"]))
    perturbation_NH = None if perturbation_BTH is None else packing.pack(perturbation_BTH)
    with keys.of(*_both(row_key_B, packing)):
        if is_lean(model):
            read_N = None if read_BT is None else packing.pack(read_BT.bool())
            hidden = lean_forward(
                model,
                packed,
                packing,
                keys=keys,
                perturbation_NH=perturbation_NH,
                read_N=read_N,
                prefix=prefix,
            )
            return packing.unpack(hidden, read_N)
        one_row = {name: value[None] for name, value in packed.items()}
        with perturbed(model, perturbation_NH), _no_masks(model):
            found: Tensor = model(
                **one_row, **options, **{ARGUMENT: Rows(keys, packing, prefix)}
            ).last_hidden_state
    return packing.unpack(found[0])


def _both(row_key_B: Tensor | None, packing: Packing) -> tuple[Tensor, ...]:
    """Keys of the packed tokens as (N,) and as one row (1, N)."""
    if row_key_B is None:
        return ()
    token_N = token_keys(row_key_B[packing.row_N], packing.place_N)
    return token_N, token_N[None]


@contextmanager
def _no_masks(model: Any) -> Iterator[None]:
    model.config._attn_implementation = PACKED
    try:
        yield
    finally:
        # ours still: a layer that is computed again looks its attention up again
        model.config._attn_implementation = PADDED


def positions(model: Any, ids_BT: Tensor) -> Tensor:
    """The position of every token as the model counts: from 0, or RoBERTa's way, which skips padding ids."""
    embeddings: Any = getattr(model, "embeddings", None)
    counted = getattr(embeddings, "create_position_ids_from_input_ids", None)
    if counted is not None:
        found: Tensor = counted(ids_BT, embeddings.padding_idx)
        return found
    return torch.arange(ids_BT.size(1), device=ids_BT.device).expand_as(ids_BT)


@contextmanager
def perturbed(model: Any, perturbation: Tensor | None) -> Iterator[None]:
    """Inside, the model's word embeddings have something added to them, of their shape but for dimensions of 1."""
    if perturbation is None:
        yield
        return
    if model.config.model_type == "xlnet":
        perturbation = perturbation.transpose(0, 1)  # its rows stand in the second dimension
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output + perturbation.reshape(output.shape)
    )
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def leaves_padding_out(model: Any, names: list[str]) -> bool:
    """Whether the model gives the same hidden states packed, found out by trying.

    Layers that mix tokens outside attention (convolutions, pooling), biases by relative place and attention of their
    own all show in three short rows, or in one longer than the window of local attention.

    Args:
        model: an encoder of transformers.
        names: the inputs it takes.
    """
    if "position_ids" not in names or not takes_our_attention(model):
        return False
    sparse = getattr(model.config, "sparse_attention", None) or {}
    window = getattr(model.config, "sliding_window", None) or sparse.get("window", 0)
    lengths = (9, 4, 7 + int(window))
    device = next(model.parameters()).device
    mask_BT = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
    place_BT = torch.arange(mask_BT.numel(), device=device).view_as(mask_BT)
    # ids from the middle of the vocabulary: no special tokens
    ids_BT = model.get_input_embeddings().num_embeddings // 2 + place_BT % 5
    padding = getattr(model.config, "pad_token_id", None) or 0
    inputs = {"input_ids": torch.where(mask_BT, ids_BT, padding)}
    training, implementation = model.training, model.config._attn_implementation
    model.eval()
    try:
        expected = model(**inputs, attention_mask=mask_BT.long()).last_hidden_state[mask_BT]
        found = packed_forward(model, inputs, Packing.of(mask_BT), keys=RowKeys())[mask_BT]
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False  # its forward takes other arguments, or its layers other shapes
    finally:
        model.train(training)
        model.config._attn_implementation = implementation
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
