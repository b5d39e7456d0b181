"""A model folder or bundle with a larger vocabulary, written as a new folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wenmai.atomic import unwritable, writing_folder
from wenmai.backbones.load import ADAPTER_PREFIX, HEAD_PREFIX, Backbone, load_backbone, load_folder
from wenmai.backbones.new_tokens import (
    Added,
    Checked,
    NewToken,
    check_unchanged,
    extend_vocabulary,
    extended,
)
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress

WEIGHTS = "model.safetensors"
OF_A_BUNDLE = ("wenmai.json", "README.md")
OF_THE_VOCABULARY, NOT_OF_IT = ("bias", "output.weight"), ("dense.bias", "norm.bias", "output.bias")
"""How the weights are called, and are not, by which heads guess tokens: a number or a row for each of them."""


@dataclass(frozen=True)
class Extension:
    """What was done.

    Args:
        tokens, rows: of the vocabulary and of the embedding, now.
        added: the new tokens.
        checked: what the comparison with the model before saw.
    """

    tokens: int
    rows: int
    added: list[Added]
    checked: Checked


def extend_model(
    model: str,
    tokens: Sequence[NewToken],
    output: Path,
    *,
    texts: Iterable[str] = (),
    revision: str | None = None,
    progress: Progress = SILENT,
) -> Extension:
    """Writes the model with new tokens into another folder, once it has shown that old inputs stay the same.

    A bundle stays a bundle, with the adapter beside its encoder; where a head guesses tokens, its bias or its own
    output matrix grows too. Of any other folder the encoder and the tokenizer are written.

    Args:
        model: a bundle, a model folder, a name on the hub or a shipped name.
        texts: lines that are compared as well; those that hold a new token are counted.

    Raises:
        UserError: the model can't be read, a token can't be added, or a text without new tokens changed.
    """
    if output.exists():
        raise UserError(f"{output}: is there already; choose another folder or remove it")
    folder = Path(model)
    is_bundle = (folder / OF_A_BUNDLE[0]).is_file()

    def opened() -> tuple[Backbone, Tokenizer]:
        if is_bundle:
            return load_folder(folder)
        return load_backbone(BackboneConfig(model=model, revision=revision))

    before, after = opened(), opened()
    larger, added = extend_vocabulary(*after, tokens)
    checked = check_unchanged(before, (after[0], larger), added, texts, progress=progress)
    old_rows = before[0].word_embeddings.num_embeddings
    weights = {**after[0].state_for_saving(), **(_beside(folder, old_rows, added) if is_bundle else {})}
    with writing_folder(output) as fresh:
        after[0].save_config(fresh)
        larger.save(fresh)
        try:
            save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise unwritable(output, OSError(str(error))) from error
        for name in OF_A_BUNDLE if is_bundle else ():
            if (folder / name).is_file():
                shutil.copyfile(folder / name, fresh / name)
    return Extension(larger.vocab_size, after[0].word_embeddings.num_embeddings, added, checked)


def _beside(folder: Path, rows: int, added: Sequence[Added]) -> dict[str, Tensor]:
    """The weights of head and adapter; what has a row for each token of the vocabulary gets those of the new ones."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith((HEAD_PREFIX, ADAPTER_PREFIX))]  # noqa: SIM118, not a dict
        found: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    return {
        name: extended(tensor, added) if _guesses(name) and len(tensor) == rows else tensor
        for name, tensor in found.items()
    }


def _guesses(name: str) -> bool:
    own = name.removeprefix(HEAD_PREFIX)
    return name.startswith(HEAD_PREFIX) and own.endswith(OF_THE_VOCABULARY) and not own.endswith(NOT_OF_IT)
