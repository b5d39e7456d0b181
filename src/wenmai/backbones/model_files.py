"""Configuration and weights from a model folder, and what is wrong with them in plain words."""

from __future__ import annotations

import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel

from wenmai.backbones.reading import quiet, refusal
from wenmai.errors import UserError

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_config(folder: Path) -> Any:
    """The configuration of transformers in a model folder.

    Raises:
        UserError: it is missing, damaged, of an unknown architecture, or of an encoder with a decoder.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no config.json; a model folder holds config.json, the tokenizer and the weights"
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json: {refusal(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{folder}: {config.model_type} is an encoder with a decoder; a backbone is an encoder alone "
            "(bert, roberta, electra, ernie ...)"
        )
    return config


def refuse_adapters(folder: Path) -> None:
    """Makes sure that the folder's encoder is all there is of it, so that another model may begin with it.

    Raises:
        UserError: it is a bundle whose adapter stands in front of its encoder, or whose encoder lies elsewhere.
    """
    try:
        manifest = json.loads((folder / "wenmai.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(manifest, dict) and "adapter" in manifest:
        raise UserError(
            f"{folder}: is a bundle with an adapter ({manifest['adapter'].get('method')}) beside its encoder, on which "
            "no other model can be built; take the encoder it was trained on, or train with backbone.adapter.method: "
            "lora and save: whole, which is merged"
        )


def model_class(config: Any, folder: Path, kind: Any = AutoModel) -> Any:
    """The class of transformers that gives hidden states, or what else ``kind`` says.

    Args:
        kind: ``AutoModel``, or one of its relatives for models with a head.

    Raises:
        UserError: there is none.
    """
    try:
        found = kind._model_mapping[type(config)]
    except KeyError as error:
        wanted = "plain encoder" if kind is AutoModel else kind.__name__.removeprefix("AutoModelFor")
        raise UserError(
            f"{folder}: transformers has no {wanted} for {config.model_type} models; take another model"
        ) from error
    return found[0] if isinstance(found, tuple | list) else found


def model_options(config: Any, folder: Path, kind: Any = AutoModel) -> dict[str, Any]:
    # no task reads the pooler: its weights would only be trained, saved and reported missing
    parameters = inspect.signature(model_class(config, folder, kind).__init__).parameters
    return {
        "dtype": torch.float32,
        **({"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}),
    }


def read_weights(config: Any, folder: Path, kind: Any = AutoModel) -> Any:
    """The model with the weights of a folder, in fp32.

    Args:
        kind: see :func:`model_class`.

    Raises:
        UserError: they are missing, damaged or of another architecture.
    """
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise UserError(
            f"{folder}: no weights (looked for {', '.join(WEIGHT_FILES)}); copy them there, "
            "or set backbone.weights: random to train from nothing"
        )
    try:
        with quiet():
            model, report = model_class(config, folder, kind).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                weights_only=True,
                output_loading_info=True,
                **model_options(config, folder, kind),
            )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder}: the weights can't be read: {refusal(error)}") from error
    missing = sorted(name for name in report["missing_keys"] if kind is not AutoModel or "pooler" not in name)
    if missing:
        part = "encoder" if kind is AutoModel else "model with its head"
        raise UserError(
            f"{folder}: {len(missing)} weights of the {config.model_type} {part} are not in the file "
            f"({some(missing)}); they would be random; "
            "the file belongs to another architecture or is incomplete: get it again"
        )
    return model


def some(names: list[str], shown: int = 5) -> str:
    """The first of many names, for a message."""
    return ", ".join([*names[:shown], *(["..."] if len(names) > shown else [])]) or "none"
