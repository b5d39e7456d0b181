"""Weights, gradients and optimizer states shared out over the processes (FSDP), for models too large for one.

Each layer's weights are put together just before they are needed and let go after (``fully_shard`` of PyTorch; Zhao et
al. 2023). Everything else stays as it is in data-parallel training: the same step, the same checkpoint files, which
either way of training can go on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from wenmai.tasks.model import Model
from wenmai.training.parallel import Parallel


def shard(model: Model, parallel: Parallel) -> Model:
    """Shares the model's weights out over the processes, in place.

    Returns:
        a copy without weights, for :func:`gathered`.
    """
    empty = deepcopy(model).to("meta")
    # the lean forward reads the layers' weights without calling the layers, which would leave them in shards
    model.backbone.set_padding_free("off")
    mesh = init_device_mesh(parallel.device.type, (parallel.world,))
    for layer in model.backbone.layers or ():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # gradients are sums over all processes here, not means: the loop divides by the number of loss terms
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return empty


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which this process has a shard; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def gathered(empty: Model, model: Model, parallel: Parallel) -> Iterator[Model]:
    """A model with the whole weights of a sharded one, on the CPU of the first process; all processes must ask.

    Args:
        empty: of :func:`shard`; lends its modules.
    """
    state = gathered_state(model.state_dict(), keep=parallel.first)
    if parallel.first:
        empty.load_state_dict(state, assign=True)
    try:
        yield empty
    finally:
        empty.to("meta")


def gathered_state(state: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU; all processes must ask.

    Args:
        keep: whether this process wants them; else it only gives its shards and gets nothing.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        put_together = whole(tensor.detach())
        if keep:
            found[name] = put_together.contiguous().cpu().clone()
    return found


def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
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
