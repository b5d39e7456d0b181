"""How an architecture of transformers names its layers, dropout and positions, and how they are changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from wenmai.errors import UserError

LAYER_PATHS = ("encoder.layer", "encoder.layers", "transformer.layer", "layers", "h", "layer")
"""Where the list of layers is kept: BERT and kin, DistilBERT, ModernBERT and decoders, GPT-2, XLNet."""

DROPOUT_NAMES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "hidden_dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)


def encoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """The layers from input to output, or None if the architecture keeps them at a place unknown here."""
    for path in LAYER_PATHS:
        found: Any = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    return None


def keep_layers(config: Any, count: int) -> None:
    """Makes the configuration one of the first ``count`` layers.

    Raises:
        UserError: the model has fewer, or does not say how many it has.
    """
    available = getattr(config, "num_hidden_layers", None)
    if not isinstance(available, int):
        raise UserError(
            f"backbone.layers: {config.model_type} models don't say how many layers they have; remove it"
        )
    if count > available:
        raise UserError(
            f"backbone.layers: {count} given, but the model has {available} layers; give 1 to {available}"
        )
    # before the number itself: the configuration checks such lists (layer_types) against it
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == available and available > 1:
            setattr(config, name, value[:count])
    config.num_hidden_layers = count


def check_kept_layers(model: nn.Module, count: int) -> None:
    """Makes sure that the model really has ``count`` layers: some architectures share or nest them.

    Raises:
        UserError: it has not, or its layers are not found.
    """
    layers = encoder_layers(model)
    if layers is None or len(layers) != count:
        raise UserError(
            f"backbone.layers: can't cut a {type(model).__name__}: its layers are not one list "
            f"(looked at {', '.join(LAYER_PATHS)}); remove backbone.layers or take another model"
        )


def set_dropout(config: Any, rate: float) -> None:
    """Replaces every dropout rate inside the encoder.

    Raises:
        UserError: the architecture has none.
    """
    present = config.to_dict()
    names = [name for name in DROPOUT_NAMES if isinstance(present.get(name), int | float)]
    if not names:
        raise UserError(
            f"backbone.dropout: {config.model_type} models have no dropout rate; remove backbone.dropout"
        )
    for name in names:
        setattr(config, name, rate)


POSITION_TABLES = ("position_embeddings", "wpe")
"""What the table with a trained vector a position is called: BERT and kin, GPT-2."""

RELATIVE = ("deberta", "deberta-v2", "funnel", "xlnet")
"""Whose attention sees how far apart tokens are: what their configuration says of positions limits nothing, unless
they have a table too."""


def position_table(model: nn.Module) -> nn.Embedding | None:
    """The table with a trained vector a position; None if the architecture computes positions."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in POSITION_TABLES and isinstance(module, nn.Embedding):
            return module
    return None


def position_limit(model: nn.Module, config: Any) -> int | None:
    """The longest input in tokens, special tokens included; None if the architecture has no limit.

    RoBERTa and its kin count positions from ``padding_idx + 1``, so those rows are never used.
    """
    limit = getattr(config, "max_position_embeddings", None)
    table = position_table(model)
    if not isinstance(limit, int) or limit <= 0 or (table is None and config.model_type in RELATIVE):
        return None
    return limit - (0 if table is None or table.padding_idx is None else table.padding_idx + 1)


@torch.no_grad()
def looks_back_only(model: Any) -> bool:
    """Whether the hidden state of a token does not depend on those after it; the model is in evaluation mode."""
    vocabulary = model.get_input_embeddings().num_embeddings
    device = next(model.parameters()).device
    # from the middle of the vocabulary: no special tokens
    ids_BT = vocabulary // 2 + torch.tensor([[0, 1, 0], [0, 0, 1]], device=device)
    training = model.training
    model.eval()
    try:
        hidden = model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).last_hidden_state
    finally:
        model.train(training)
    first, other = hidden[:, 0].float()
    return bool((first - other).abs().max() <= 1e-6 * first.abs().max())


@torch.no_grad()
def differs_by_dropout(model: Any) -> bool:
    """Whether two passes in training mode over the same input differ."""
    vocabulary = model.get_input_embeddings().num_embeddings
    device = next(model.parameters()).device
    # from the middle of the vocabulary: no special tokens
    ids_BT = torch.full((1, 16), vocabulary // 2, device=device)
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first, second = (
                model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).last_hidden_state
                for _ in range(2)
            )
    finally:
        model.train(training)
    return not torch.equal(first, second)
