"""BERT's encoder on packed tokens, with the modules of transformers and without their detours.

BERT (Devlin et al. 2019) and the models built like it differ in names only, so one function runs them all. It reads
the parameters of the transformers modules, which stay what they are: trained, saved and hooked as before. Against the
modules' own forward it computes real tokens only, queries, keys and values in one product, dropout and the residual in
one pass, and attention without masks.

Shape letters: N real tokens of all rows, H hidden width, A heads, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wenmai.backbones.attention import attention_dropout, packed_attention
from wenmai.backbones.dropout import KeyedDropout, RowKeys
from wenmai.backbones.linear import linear
from wenmai.backbones.packing import Packing

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie")
"""Whose layers are BERT's, parameter by parameter."""

LAYER_PARAMETERS = {
    f"{module}.{kind}"
    for module in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    )
    for kind in ("weight", "bias")
}
PLAIN = (nn.Linear, nn.LayerNorm, nn.Embedding)

Prefixes = Mapping[nn.Module, tuple[Tensor, Tensor]]


def is_lean(model: Any) -> bool:
    """Whether :func:`lean_forward` computes what the model's own forward does.

    It does not where something sits in the modules that only their own call takes notice of: hooks (of observers or
    of sharded training), adapters in the place of linear layers, sharded parameters.
    """
    return _built_like_bert(model) and not any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in model.modules()
    )


def _built_like_bert(model: Any) -> bool:
    config = model.config
    if config.model_type not in MODEL_TYPES or config.is_decoder:
        return False
    for layer in model.encoder.layer:
        if {name for name, _ in layer.named_parameters()} != LAYER_PARAMETERS:
            return False
    return all(
        type(module) in PLAIN and all(type(parameter) is nn.Parameter for parameter in module.parameters())
        for module in model.modules()
        if next(module.parameters(recurse=False), None) is not None
    )


def lean_forward(
    model: Any,
    inputs_N: dict[str, Tensor],
    packing: Packing,
    *,
    keys: RowKeys,
    perturbation_NH: Tensor | None = None,
    read_N: Tensor | None = None,
    prefix: Prefixes = MappingProxyType({}),
) -> Tensor:
    """The hidden states of packed tokens.

    Args:
        model: an encoder of transformers for which :func:`is_lean` holds.
        inputs_N: ``input_ids``, ``position_ids`` and, where the model has types, ``token_type_ids``, packed.
        packing: whose row each token is of.
        keys: of the dropout; the same object that the model's dropout modules have.
        perturbation_NH: added to the word embeddings.
        read_N: which tokens anyone will look at; the last layer leaves the others out behind its attention.
        prefix: of attention modules, keys and values (A, P, D) that stand before those of every row.

    Returns:
        (N, H), or (M, H) of the M tokens read.
    """
    hidden_NH = _embedded(model, inputs_N, perturbation_NH)
    layers = list(model.encoder.layer)
    for number, layer in enumerate(layers):
        read = read_N if number == len(layers) - 1 else None
        if model.gradient_checkpointing and model.training:
            again = keys.remembering(_layer)
            hidden_NH = checkpoint(again, layer, hidden_NH, packing, keys, read, prefix, use_reentrant=False)
        else:
            hidden_NH = _layer(layer, hidden_NH, packing, keys, read, prefix)
    return hidden_NH


def _embedded(model: Any, inputs_N: dict[str, Tensor], perturbation_NH: Tensor | None) -> Tensor:
    parts = model.embeddings
    words_NH = parts.word_embeddings(inputs_N["input_ids"])
    if perturbation_NH is not None:
        words_NH = words_NH + perturbation_NH
    types = inputs_N.get("token_type_ids")
    type_weight = parts.token_type_embeddings.weight
    hidden_NH = words_NH + (type_weight[0] if types is None else parts.token_type_embeddings(types))
    hidden_NH = hidden_NH + parts.position_embeddings(inputs_N["position_ids"])
    if getattr(parts, "use_task_id", False):  # ERNIE 2: the task of ordinary text is 0
        hidden_NH = hidden_NH + parts.task_type_embeddings.weight[0]
    hidden_NH = parts.dropout(parts.LayerNorm(hidden_NH))
    if hasattr(model, "embeddings_project"):  # ELECTRA's narrow embeddings
        hidden_NH = model.embeddings_project(hidden_NH)
    embedded: Tensor = hidden_NH
    return embedded


def _layer(
    layer: Any,
    hidden_NH: Tensor,
    packing: Packing,
    keys: RowKeys,
    read_N: Tensor | None,
    prefix: Prefixes,
) -> Tensor:
    attention = layer.attention.self
    three = (attention.query, attention.key, attention.value)
    weight, bias = torch.cat([each.weight for each in three]), torch.cat([each.bias for each in three])
    heads, width = attention.num_attention_heads, attention.attention_head_size
    context_NAD = packed_attention(
        linear(hidden_NH, weight, bias).view(-1, 3, heads, width),
        packing,
        scale=attention.scaling,
        dropout=attention_dropout(attention, attention.dropout.p, (len(hidden_NH),), keys),
        prefix=prefix.get(attention),
    )
    context_NH = context_NAD.flatten(1)
    if read_N is None:
        return _behind_attention(layer, context_NH, hidden_NH)
    with keys.among(read_N):
        return _behind_attention(layer, context_NH[read_N], hidden_NH[read_N])


def _behind_attention(layer: Any, context_NH: Tensor, hidden_NH: Tensor) -> Tensor:
    mixed, output = layer.attention.output, layer.output
    hidden_NH = mixed.LayerNorm(_added(mixed.dropout, _dense(mixed.dense, context_NH), hidden_NH))
    inner = layer.intermediate.intermediate_act_fn(_dense(layer.intermediate.dense, hidden_NH))
    normed: Tensor = output.LayerNorm(_added(output.dropout, _dense(output.dense, inner), hidden_NH))
    return normed


def _dense(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _added(dropout: nn.Module, x_NH: Tensor, residual_NH: Tensor) -> Tensor:
    if isinstance(dropout, KeyedDropout):
        return dropout.add(x_NH, residual_NH)
    dropped: Tensor = dropout(x_NH)
    return dropped + residual_NH
