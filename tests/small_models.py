"""Whole models of a few hundred weights, and the gradients of a step, for tests of what happens to weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from wenmai.backbones.load import Backbone
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.tasks.model import Model

VOCABULARY, HIDDEN = 13, 8


def small_model(*, layers: int = 3, seed: int = 0, shared: bool = True) -> Model:
    """A BERT under a masked-LM head that shares its word embeddings, or has constant ones; no dropout."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(BertModel(config, add_pooling_layer=False))
        words = backbone.word_embeddings
        return Model(
            backbone, MaskedLMHead(HIDDEN, words if shared else deepcopy(words).requires_grad_(False))
        )


def random_batch(step: int, *, rows: int = 4, length: int = 7) -> dict[str, Tensor]:
    """Texts with the originals to guess, a function of the step."""
    draws = torch.Generator().manual_seed(step)
    ids_BT = torch.randint(VOCABULARY, (rows, length), generator=draws)
    return {
        "input_ids": ids_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "original": ids_BT.roll(1, dims=1),
    }


def add_gradients(model: Model, step: int) -> int:
    """Adds the gradients of the sum of the step's loss terms; returns their number."""
    batch = random_batch(step)
    loss, terms = model.head.loss(model(batch, "train"), batch)
    loss.backward()
    return terms


def weights(model: Model) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
