"""The masked-LM head that a model was pre-trained with: read from its files, where AutoModel leaves it behind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wenmai.backbones.hub import model_folder
from wenmai.backbones.load import HEAD_PREFIX, Backbone
from wenmai.backbones.model_files import WEIGHT_FILES
from wenmai.backbones.settings import BackboneConfig
from wenmai.errors import UserError

Scheme = tuple[str, str, str]
SCHEMES: tuple[Scheme, ...] = (
    (f"{HEAD_PREFIX}dense", f"{HEAD_PREFIX}norm", f"{HEAD_PREFIX}bias"),
    (f"{HEAD_PREFIX}lm.dense", f"{HEAD_PREFIX}lm.norm", f"{HEAD_PREFIX}lm.bias"),
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    ("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
)
"""How we, BERT and ERNIE, RoBERTa, ELECTRA, ALBERT and DistilBERT call the dense layer, the norm and the bias."""


def pretrained_lm_head(backbone: Backbone, *, required: bool = True) -> dict[str, Tensor] | None:
    """The weights by the names of :class:`wenmai.heads.masked_lm.MaskedLMHead`, in fp32.

    Pieces that the vocabulary got since have the bias 0; so have all of them where the vocabulary was replaced.

    Returns:
        None for a backbone that was drawn, and so has no head either; also where there is no head that fits, if none is
        required.

    Raises:
        UserError: one is required, and the model was saved without, or with one of another kind.
    """
    source = backbone.source
    if source is None or source.model is None or source.weights == "random":
        return None
    own_matrix = (
        not backbone.ties_embeddings and backbone.word_embeddings.embedding_dim == backbone.hidden_size
    )
    state = None if own_matrix else _read_head(backbone, source)
    if state is not None or not required:
        return state
    if own_matrix:
        raise UserError(
            f"{source.title}: its masked-LM head has an output matrix of its own (tie_word_embeddings: false), which "
            "is not supported; take a model that shares it with the word embeddings"
        )
    raise UserError(
        f"{source.title}: its files hold no masked-LM head, so it can't say which words fill a gap; take a model that "
        "was saved with one (wenmai-tiny-zh, a BertForMaskedLM ...), or train one with the task masked_lm"
    )


def _read_head(backbone: Backbone, source: BackboneConfig) -> dict[str, Tensor] | None:
    folder = model_folder(source)
    found = _named(folder)
    for dense, norm, bias in SCHEMES:
        names = {
            "dense.weight": [f"{dense}.weight"],
            "dense.bias": [f"{dense}.bias"],
            "norm.weight": [f"{norm}.weight", f"{norm}.gamma"],
            "norm.bias": [f"{norm}.bias", f"{norm}.beta"],
            "bias": [bias],
        }
        chosen = {
            own: next((name for name in theirs if name in found), None) for own, theirs in names.items()
        }
        if None not in chosen.values():
            wanted = {str(name): own for own, name in chosen.items()}
            state = {wanted[name]: tensor.float() for name, tensor in _read(folder, found, wanted).items()}
            state["bias"] = _fitted(state["bias"], backbone, replaced=source.tokenizer is not None)
            return state
    return None


def _fitted(bias_V: Tensor, backbone: Backbone, *, replaced: bool) -> Tensor:
    """As many numbers as the vocabulary has pieces."""
    wanted = bias_V.new_zeros(backbone.word_embeddings.num_embeddings)
    if not replaced:
        shared = min(len(wanted), len(bias_V))
        wanted[:shared] = bias_V[:shared]
    return wanted


def _named(folder: Path) -> dict[str, str]:
    """Which file each weight is in."""
    try:
        for name in WEIGHT_FILES:
            path = folder / name
            if not path.is_file():
                continue
            if path.suffix == ".json":
                weight_map: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
                return weight_map
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    return dict.fromkeys(file.keys(), name)
            return dict.fromkeys(_pickled(path), name)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder}: the weights can't be read: {error}") from error
    return {}


def _read(folder: Path, found: dict[str, str], wanted: dict[str, str]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file_name in {found[name] for name in wanted}:
        path = folder / file_name
        here = [name for name in wanted if found[name] == file_name]
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state |= {name: file.get_tensor(name) for name in here}
        else:
            tensors = _pickled(path)
            state |= {name: tensors[name] for name in here}
    return state


def _pickled(path: Path) -> dict[str, Tensor]:
    """Tensors only: anything else in such a file is refused."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
