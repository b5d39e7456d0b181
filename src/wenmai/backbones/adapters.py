"""An adapter in a backbone: put in, frozen around, saved and found again.

LoRA's changes lie in the model's own modules; prompts and prefixes are modules of the backbone beside the model. What
they have in common is here: the encoder stands still but for ``train_also``, and the adapter's weights have names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.dropout import RowKeys
from wenmai.backbones.interface import ARGUMENT, PADDED, Rows, takes_our_attention
from wenmai.backbones.load import ADAPTER_PREFIX, Backbone, load_backbone
from wenmai.backbones.lora import put_in_lora
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.virtual_tokens import Prefix, Prompt, Vectors, start_from_words
from wenmai.errors import BundleError, UserError


def attach_adapter(backbone: Backbone, tokenizer: Tokenizer) -> None:
    """Puts the adapter of ``backbone.adapter`` in, in place; nothing where there is none, or where it is in already.

    Its weights are drawn with PyTorch's global random state. Call it when the vocabulary is the one that will stay:
    what the encoder has by then stands still.

    Raises:
        UserError: the architecture can't have it.
    """
    config = backbone.adapter
    if config is None or backbone.adapter_names():
        return
    if config.save == "adapter" and backbone.fingerprint is None:
        backbone.fingerprint = fingerprint(backbone.model)
    device = backbone.word_embeddings.weight.device
    if config.method == "lora":
        put_in_lora(backbone.model, config)
    elif config.method in ("prompt_tuning", "p_tuning"):
        backbone.prompt = _prompt(backbone, config, tokenizer).to(device)
    else:
        backbone.prefix = _prefix(backbone, config).to(device)
    _freeze(backbone, config)


def _prompt(backbone: Backbone, config: AdapterConfig, tokenizer: Tokenizer) -> Prompt:
    if backbone.care is not None:
        raise UserError(
            f"backbone.adapter.method: {config.method}: {backbone.config.model_type} models lay their rows out in a "
            "way of their own, which vectors in front would disturb; take lora"
        )
    words = backbone.word_embeddings
    width = words.embedding_dim
    hidden = config.encoder_hidden_size or width
    vectors = Vectors(config.virtual_tokens, width, inner=width, encoder=config.encoder, hidden=hidden)
    if config.method == "prompt_tuning":
        ids = tokenizer.encode(config.initial_text or "").ids
        if config.initial_text is not None and not ids:
            raise UserError(
                f"backbone.adapter.initial_text: {config.initial_text!r} has no token: give words, or remove it"
            )
        start_from_words(vectors, words, ids)
    return Prompt(vectors, placeholder=words.num_embeddings // 2)


def _prefix(backbone: Backbone, config: AdapterConfig) -> Prefix:
    shapes = _attention_modules(backbone.model) if backbone.care is None else {}
    if len(set(shapes.values())) != 1:
        raise UserError(
            f"backbone.adapter.method: {config.method}: {backbone.config.model_type} models compute attention in a way "
            "of their own, which can't be given keys and values; take lora, prompt_tuning or p_tuning"
        )
    heads, each = next(iter(shapes.values()))
    hidden = config.encoder_hidden_size or backbone.hidden_size
    vectors = Vectors(
        config.virtual_tokens,
        len(shapes) * 2 * heads * each,
        inner=backbone.hidden_size,
        encoder=config.encoder,
        hidden=hidden,
    )
    return Prefix(vectors, list(shapes), heads)


@torch.no_grad()
def _attention_modules(model: Any) -> dict[nn.Module, tuple[int, int]]:
    """The modules that ask for attention, in order, with heads of keys and numbers a head; found by trying."""
    shapes: dict[nn.Module, tuple[int, int]] = {}

    def told(module: nn.Module, key_BATD: Tensor) -> None:
        shapes.setdefault(module, (key_BATD.size(1), key_BATD.size(3)))

    if not takes_our_attention(model):
        return shapes
    training, implementation = model.training, model.config._attn_implementation
    ids_BT = torch.full((1, 4), model.get_input_embeddings().num_embeddings // 2, device=model.device)
    model.eval()
    model.config._attn_implementation = PADDED
    try:
        # arguments that its layers do not pass on: nothing is told
        with suppress(TypeError):
            model(input_ids=ids_BT, **{ARGUMENT: Rows(RowKeys(), told=told)})
    finally:
        model.train(training)
        model.config._attn_implementation = implementation
    return shapes


def _freeze(backbone: Backbone, config: AdapterConfig) -> None:
    """Lets the adapter learn, and of the encoder what ``train_also`` names."""
    own = [name for name, _ in backbone.named_parameters() if not backbone.is_adapter(name)]
    for pattern in config.train_also:
        if not any(fnmatchcase(f"backbone.{name}", pattern) for name in own):
            raise UserError(
                f"backbone.adapter.train_also: {pattern!r} fits none of the encoder's {len(own)} parameters, which are "
                f"called like backbone.{own[0]}: correct it or remove it"
            )
    for name, parameter in backbone.named_parameters():
        also = any(fnmatchcase(f"backbone.{name}", pattern) for pattern in config.train_also)
        parameter.requires_grad_(also or backbone.is_adapter(name))


def fingerprint(model: nn.Module) -> str:
    """Of an encoder's weights: two that have the same answer the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    """The adapter's weights, for a file in which other weights may lie beside them."""
    return {
        ADAPTER_PREFIX + name: tensor.detach().contiguous()
        for name, tensor in backbone.state_dict().items()
        if backbone.is_adapter(name)
    }


def load_adapter_state(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Takes the weights of :func:`adapter_state`; others are passed over.

    Raises:
        BundleError: weights are missing, too many, or of another shape.
    """
    own = {
        name.removeprefix(ADAPTER_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(ADAPTER_PREFIX)
    }
    wanted = set(backbone.adapter_names())
    try:
        _, unexpected = backbone.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise BundleError(f"the adapter's weights don't fit the model: {error}") from error
    if wanted != set(own) or unexpected:
        raise BundleError(
            f"the adapter's weights don't belong to this model: {len(wanted - set(own))} missing, "
            f"{len(set(own) - wanted)} unknown"
        )


def referred_backbone(reference: Mapping[str, Any]) -> tuple[Backbone, Tokenizer]:
    """The encoder that a bundle without one was trained on.

    Args:
        reference: of :func:`reference_to`.

    Raises:
        UserError: it is not to be had, or is another one by now.
    """
    config = BackboneConfig.model_validate(reference["backbone"])
    backbone, tokenizer = load_backbone(config)
    if fingerprint(backbone.model) != reference["fingerprint"]:
        raise UserError(
            f"{config.title}: is not the encoder that the adapter was trained on, its weights differ; "
            "bring that one back, or train again"
        )
    backbone.fingerprint = reference["fingerprint"]
    return backbone, tokenizer


def reference_to(backbone: Backbone) -> dict[str, Any]:
    """What finds the encoder again, as JSON."""
    assert backbone.source is not None and backbone.fingerprint is not None, (
        "only begun runs leave their encoder out"
    )
    source = backbone.source
    if source.model is not None and Path(source.model).expanduser().is_dir():
        source = source.model_copy(update={"model": str(Path(source.model).expanduser().resolve())})
    # the adapter is told beside it
    return {
        "backbone": source.model_dump(mode="json", exclude={"adapter"}),
        "fingerprint": backbone.fingerprint,
    }
