"""All that a run needs to go on as if it had never stopped: weights, optimizer state, and where it was.

Random states are not kept, because nothing draws from a state: order, masks and dropout are functions of (seed, epoch,
step, sample). Tensors are safetensors, the rest is JSON that a person can read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wenmai.atomic import recover_folder, unwritable, writing_folder
from wenmai.errors import UserError
from wenmai.training.averaging import Average
from wenmai.training.sharding import gathered_state, like, load_whole


@dataclass
class TrainState:
    """Where a run is.

    Args:
        step: optimizer steps done.
        evaluated: the last step that was evaluated.
        best_metric, best_step: the best evaluation so far.
        without_gain: evaluations since then.
        tokens: real tokens trained on.
        window: sums since the last line of the log.
        scaler: state of fp16's loss scaling.
    """

    step: int = 0
    evaluated: int = 0
    best_metric: float | None = None
    best_step: int = 0
    without_gain: int = 0
    tokens: int = 0
    window: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    finished: bool = False


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    state: TrainState,
    fingerprint: str,
    *,
    write: bool = True,
) -> None:
    """Replaces the checkpoint at once; a kill at any moment leaves the old one or the new one.

    Args:
        average: of the weights, if one is kept.
        fingerprint: of everything that must be the same when the run goes on.
        write: whether this process writes; those that hold shards must all be here.
    """
    files = {"model": model.state_dict(), "optimizer": _optimizer_tensors(optimizer)}
    if average is not None:
        files["average"] = average.state_for_saving()
    if not write:
        for tensors in files.values():
            gathered_state(tensors, keep=False)
        return
    with writing_folder(folder) as beside:
        try:
            for name, tensors in files.items():
                save_file(gathered_state(tensors, keep=True), beside / f"{name}.safetensors")
        except SafetensorError as error:
            raise unwritable(folder, OSError(str(error))) from error
        content = {"fingerprint": fingerprint, "state": asdict(state)}
        (beside / "state.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def has_checkpoint(folder: Path) -> bool:
    recover_folder(folder)
    return (folder / "state.json").is_file()


def load_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    fingerprint: str,
) -> TrainState:
    """Puts model, optimizer and average back where they were.

    Raises:
        UserError: the folder is damaged, or belongs to another configuration or other data.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if content["fingerprint"] != fingerprint:
            raise UserError(
                f"{folder}: was made by another configuration or from other data, so training can't go on from it: "
                "restore them, or start again with --overwrite"
            )
        state = TrainState(**content["state"])
        load_whole(model, load_file(folder / "model.safetensors"))
        _load_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        if average is not None:
            average.load_state(load_file(folder / "average.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: is damaged ({error}): start again with --overwrite") from error
    return state


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{key}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for key, value in slots.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        owner = parameters[int(index)]
        slots.setdefault(int(index), {})[key] = like(owner, tensor) if tensor.shape == owner.shape else tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
