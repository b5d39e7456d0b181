"""A network that is described instead of loaded: the keys of transformers' own configuration, and random weights.

Vocabulary size and special ids are those of the tokenizer, so nobody has to write them twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig

from wenmai.backbones.architecture import looks_back_only
from wenmai.backbones.interface import takes_our_attention
from wenmai.backbones.view import sparse_view
from wenmai.errors import UserError

WELL_KNOWN = ("bert", "roberta", "electra", "modernbert", "roformer", "gpt2", "gpt_neo", "llama", "qwen3")
"""Named to those whose ``model_type`` transformers doesn't know: it knows some four hundred."""

_OF_THE_TOKENIZER = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id"} | {
    "sep_token_id",
    "mask_token_id",
}
SPARSE = "sparse_attention"
"""Our own key for decoders: ``{window, stride}`` of every second layer (:class:`wenmai.backbones.view.View`)."""

_OF_NO_USE = {"use_cache", "is_decoder", "add_cross_attention", "pretraining_tp"}
"""What would make another model of it, or says how it is run."""


def described(keys: Mapping[str, Any]) -> Any:
    """The configuration of transformers that the keys of ``backbone.architecture`` mean.

    Args:
        keys: ``model_type``, and what its configuration class knows; both names of a key that has two
            (``hidden_size`` and ``n_embd``) are fine.

    Raises:
        ValueError: a key is unknown or its value can't be used.
    """
    if "model_type" not in keys:
        raise ValueError(
            f"architecture.model_type: missing, the kind of network: {', '.join(WELL_KNOWN)} ..."
        )
    name = keys["model_type"]
    if name not in CONFIG_MAPPING or CONFIG_MAPPING[name] not in AutoModel._model_mapping:
        raise ValueError(
            f"architecture.model_type: transformers has no plain model for {name!r}; "
            f"{_near(str(name), list(CONFIG_MAPPING))}some of those it has: {', '.join(WELL_KNOWN)}"
        )
    record = CONFIG_MAPPING[name]
    allowed = [*architecture_keys(record), SPARSE]
    for key in keys:
        if key in _OF_THE_TOKENIZER:
            raise ValueError(f"architecture.{key}: is the tokenizer's; remove it here")
        if key != "model_type" and key not in allowed:
            raise ValueError(
                f"architecture.{key}: {name} has no such key; {_near(key, allowed)}allowed: {', '.join(allowed)}"
            )
    given: dict[str, Any] = {}
    for key, value in keys.items():
        real = record.attribute_map.get(key, key)
        if real in given:
            raise ValueError(f"architecture.{key}: is another name of {real}, which is there too; remove one")
        given[real] = value
    del given["model_type"]
    sparse = given.pop(SPARSE, None)
    try:
        config = record(**given)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"architecture: {name}: {' '.join(str(error).split())}") from error
    if sparse is not None:
        setattr(config, SPARSE, _checked_sparse(sparse))
    if config.is_encoder_decoder:
        raise ValueError(
            f"architecture.model_type: {name} is an encoder with a decoder; a backbone is one of the two"
        )
    return config


def _checked_sparse(given: Any) -> dict[str, int]:
    wanted = "expected {window: tokens} and, if wanted, stride: tokens, whole numbers of at least 2"
    if not isinstance(given, dict) or "window" not in given or not given.keys() <= {"window", "stride"}:
        raise ValueError(f"architecture.{SPARSE}: {wanted}; got {given!r}")
    if any(type(value) is not int or value < 2 for value in given.values()):
        raise ValueError(f"architecture.{SPARSE}: {wanted}; got {given!r}")
    return dict(given)


def architecture_keys(record: type[PreTrainedConfig]) -> list[str]:
    """What may be written beside ``model_type``, in the order of transformers' record, standard names first."""
    common = {field.name for field in fields(PreTrainedConfig)} | _OF_THE_TOKENIZER | _OF_NO_USE
    own = [field.name for field in fields(record) if field.name not in common]
    return [*(name for name, real in record.attribute_map.items() if real in own), *own]


def fit_tokenizer(config: Any, pretrained: Any) -> None:
    """Gives the configuration the tokenizer's vocabulary size and special ids.

    A vocabulary of BERT's kind has no tokens for the beginning and the end by name; [CLS] and [SEP] are these.
    """
    config.vocab_size = len(pretrained)
    ids = {
        "pad": pretrained.pad_token_id,
        "bos": pretrained.bos_token_id if pretrained.bos_token_id is not None else pretrained.cls_token_id,
        "eos": pretrained.eos_token_id if pretrained.eos_token_id is not None else pretrained.sep_token_id,
        "cls": pretrained.cls_token_id,
        "sep": pretrained.sep_token_id,
        "mask": pretrained.mask_token_id,
    }
    known = {field.name for field in fields(config)}
    for kind, token in ids.items():
        if f"{kind}_token_id" in known:
            setattr(config, f"{kind}_token_id", token)


def random_model(config: Any, model_class: Any, options: Mapping[str, Any]) -> Any:
    """The network with weights drawn from PyTorch's global random state.

    Raises:
        UserError: the sizes don't fit together.
    """
    try:
        model = model_class._from_config(config, **options)
    except (ValueError, TypeError, RuntimeError, AssertionError, KeyError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"backbone.architecture: no {config.model_type} can be built so: {reason}; correct the sizes"
        ) from error
    if getattr(config, SPARSE, None) is not None and not _can_be_sparse(model):
        raise UserError(
            f"backbone.architecture.{SPARSE}: is for decoders of two layers or more whose attention goes through "
            f"transformers' interface (gpt2, llama, qwen3 ...), not for {config.model_type}; remove it"
        )
    return model


def _can_be_sparse(model: Any) -> bool:
    layers = [view for module in model.modules() if (view := sparse_view(module)) is not None]
    return bool(layers) and takes_our_attention(model) and looks_back_only(model)


def _near(given: str, allowed: list[str]) -> str:
    close = get_close_matches(given, allowed, n=1)
    return f"did you mean '{close[0]}'? " if close else ""
