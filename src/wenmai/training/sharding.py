"""Weights, gradients and optimizer states shared out over the processes (FSDP), for models too large for one.

Each layer's weights are put together just before they are needed and let go after (``fully_shard`` of PyTorch; Zhao et
al. 2023). Everything else stays as it is in data-parallel training: the same step, the same checkpoint files, which
either way of training can go on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from wenmai.config import TrainConfig
from wenmai.errors import ConfigError, Problem
from wenmai.tasks.model import Model
from wenmai.training.parallel import Parallel

NOT_SHARDED = ("adversarial", "ema_decay", "swa_start", "unfreeze_every")
"""What moves or copies whole weights in the middle of training."""


def refuse_with_shards(config: TrainConfig, parallel: Parallel) -> None:
    """Raises:
    ConfigError: the run asks for what only whole weights allow, or it has but one process.
    """
    problems = [
        Problem(
            f"train.{key}", f"can't be used with train.parallel: {config.parallel}; take ddp, or remove it"
        )
        for key in NOT_SHARDED
        if getattr(config, key) is not None
    ]
    if config.l1:
        problems.append(
            Problem("train.l1", "can't be used with train.parallel: fsdp; take ddp, or remove it")
        )
    if parallel.world == 1:
        problems.append(
            Problem("train.parallel", f"{config.parallel} needs several processes: start with --processes N")
        )
    if problems:
        raise ConfigError("the configuration can't be used:", problems)


def shard(model: Model, parallel: Parallel) -> Model:
    """Shares the model's weights out over the processes, in place.

    Returns:
        a copy with whole weights on the CPU, to fill by :func:`gather_into` and to save from.
    """
    whole = deepcopy(model).cpu()
    # the lean forward reads the layers' weights without calling the layers, which would leave them in shards
    model.backbone.set_padding_free("off")
    mesh = init_device_mesh(parallel.device.type, (parallel.world,))
    for layer in model.backbone.layers or ():
        fully_shard(layer, mesh=mesh)
    # gradients are sums over all processes here, not means: the loop divides by the number of loss terms
    sharded = fully_shard(model, mesh=mesh)
    for module in sharded.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(1.0)
    return whole


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which this process has a shard; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_into(target: Model, model: Model) -> None:
    """Copies the weights of a sharded model into one with whole weights; all processes must ask."""
    target.load_state_dict({name: whole(tensor).cpu() for name, tensor in model.state_dict().items()})


def load_whole(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads whole weights into a model, sharded or not."""
    own = model.state_dict()
    model.load_state_dict(
        {name: like(own[name], value) if name in own else value for name, value in state.items()}
    )


def like(target: Tensor, value: Tensor) -> Tensor:
    """The value in shards, if the target is."""
    if isinstance(target, DTensor):
        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    return value
