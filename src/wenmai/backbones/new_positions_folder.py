"""A model folder to one with more positions: nothing else in it changes, and that is looked at before it is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wenmai.atomic import writing_folder
from wenmai.backbones.architecture import position_table
from wenmai.backbones.e5 import MANIFEST as E5_MANIFEST
from wenmai.backbones.load import Backbone, load_folder
from wenmai.backbones.model_files import WEIGHT_FILES
from wenmai.backbones.positions import extend_positions
from wenmai.backbones.settings import PositionMethod
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError

TOLERANCE = 1e-6
"""How far hidden states of inputs that fitted before may be from what they were."""


@dataclass(frozen=True)
class Extension:
    """What was done to a model.

    Args:
        positions_before, positions: tokens of the longest input.
        method: by which the new ones were made.
        compared_lengths: of the inputs, in tokens, whose hidden states were compared.
        largest_difference: between theirs before and after.
    """

    positions_before: int
    positions: int
    method: PositionMethod
    compared_lengths: list[int]
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_extended(
    source: Path, output: Path, *, to: int, method: PositionMethod, alpha: float, seed: int
) -> Extension:
    """Writes a copy of a model folder, or of a bundle, whose model has more positions.

    All weights are kept, those of heads too. The folder takes its place only after it was opened and gave the hidden
    states of ``source`` for inputs that fit into it.

    Args:
        source: ``config.json``, tokenizer and weights, and whatever else.
        output: must not exist.
        to, method, alpha: see :func:`~wenmai.backbones.positions.extend_positions`.
        seed: of ``random``.

    Raises:
        UserError: the model can't be read or extended, or the folder not written.
    """
    if output.exists():
        raise UserError(f"{output}: is there already; choose another folder or remove it")
    backbone, tokenizer = load_folder(source)
    before = backbone.max_length
    inputs = list(_inputs(backbone, tokenizer))
    expected = _hidden(backbone, inputs)
    extend_positions(
        backbone,
        tokenizer,
        to=to,
        method=method,
        alpha=alpha,
        generator=torch.Generator().manual_seed(seed),
    )
    assert before is not None  # it had a table
    with writing_folder(output) as beside:
        _copy(source, beside)
        _save(source, beside, backbone, tokenizer)
        found = _hidden(load_folder(beside)[0], inputs)
        largest = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
        if not largest <= TOLERANCE:
            raise UserError(
                f"{source}: hidden states of short inputs moved by {largest:.1e}, which they must not: nothing was "
                "written; please report it with the name of the model"
            )
    lengths = [batch["input_ids"].size(1) for batch in inputs]
    return Extension(before, to, method, lengths, largest)


@torch.no_grad()
def _hidden(backbone: Backbone, inputs: list[dict[str, Tensor]]) -> list[Tensor]:
    return [backbone(batch) for batch in inputs]


def _inputs(backbone: Backbone, tokenizer: Tokenizer) -> Iterator[dict[str, Tensor]]:
    """Rows of ordinary tokens: short ones, and one as long as the model reads."""
    longest = backbone.max_length or 0
    draws = torch.Generator().manual_seed(0)
    ordinary = torch.tensor(sorted(set(range(tokenizer.vocab_size)) - tokenizer.special_ids))
    for length in sorted({min(length, longest) for length in (1, 20, longest)}):
        ids_BT = ordinary[torch.randint(len(ordinary), (1, length), generator=draws)]
        yield {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def _copy(source: Path, folder: Path) -> None:
    """All that is neither weights nor what is written anew; e5-small's manifest has checksums of what it was."""
    for path in source.iterdir():
        weights = path.name in WEIGHT_FILES or path.suffix in (".safetensors", ".bin")
        if path.is_file() and not weights and path.name not in ("config.json", E5_MANIFEST):
            shutil.copyfile(path, folder / path.name)


def _save(source: Path, folder: Path, backbone: Backbone, tokenizer: Tokenizer) -> None:
    state = _state(source)
    table = position_table(backbone.model)
    (inside,) = (name for name, module in backbone.model.named_modules() if module is table)
    names = [name for name in state if f".{name}".endswith(f".{inside}.weight")]
    if table is None or len(names) != 1:
        raise UserError(
            f"{source}: {len(names)} weights of the file are called {inside}.weight, expected one: "
            "open the model and save it again, then extend that"
        )
    state[names[0]] = table.weight.detach().to(state[names[0]].dtype)
    # numbers 0, 1, 2 ... that old versions of transformers kept among the weights
    kept = {name: tensor.contiguous() for name, tensor in state.items() if not name.endswith("position_ids")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(folder)
    backbone.config.dtype = state[names[0]].dtype  # ours are fp32, whatever the file holds
    backbone.config.save_pretrained(folder)


def _state(source: Path) -> dict[str, Tensor]:
    """All weights of the folder, whoever reads them."""
    name = next(name for name in WEIGHT_FILES if (source / name).is_file())
    files = [name]
    if name.endswith(".index.json"):
        files = sorted(set(json.loads((source / name).read_text(encoding="utf-8"))["weight_map"].values()))
    state: dict[str, Tensor] = {}
    for file in files:
        path = source / file
        state |= (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    return {key: tensor.clone() for key, tensor in state.items()}  # shared ones can't be saved twice
