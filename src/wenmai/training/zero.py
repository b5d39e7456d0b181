"""Gradients and optimizer states shared out over the processes by DeepSpeed (ZeRO; Rajbhandari et al. 2020).

Every process has the whole weights, so the forward pass is that of data-parallel training. Each keeps the gradients and
the optimizer's state of its share only, updates that share of the weights and gives it to the others.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor

from wenmai.errors import ConfigError, Problem
from wenmai.tasks.model import Model
from wenmai.training.parallel import Parallel

STATES = ("exp_avg", "exp_avg_sq")
"""AdamW's, a tensor of the parameter's shape each."""


class ZeroOptimizer(torch.optim.Optimizer):
    """AdamW whose gradients and state are shared out. Seen from outside it has whole parameters and whole states.

    Settings of DeepSpeed come from where accelerate finds them, ``accelerate launch --config_file`` or its environment
    variables: the ZeRO stage (1 or 2, the default) and the sizes of what it sends. What decides the result
    (accumulation, clipping, precision) is the run's own configuration's.

    Args:
        model: on its device; its gradients are DeepSpeed's from here on.
        optimizer: AdamW over its parameters.

    Raises:
        ConfigError: accelerate's settings ask for what we don't do.
    """

    def __init__(self, model: Model, optimizer: torch.optim.Optimizer, parallel: Parallel):
        super().__init__([dict(group) for group in optimizer.param_groups], optimizer.defaults)
        self.world = parallel.world
        os.environ.setdefault("DS_ACCELERATOR", parallel.device.type)
        with redirect_stdout(sys.stderr):  # where DeepSpeed prints and logs from its import on
            import deepspeed

            engine, self.shares, _, _ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=zero_config(), dist_init_required=False
            )
        self.engine: Any = engine
        self._make_states(optimizer)

    def backward(self, passes: int) -> Callable[[Tensor], None]:
        """What runs the losses of one step backward, ``passes`` of them; the last one must know that it is."""
        left = passes

        def backward(loss: Tensor) -> None:
            nonlocal left
            left -= 1
            self.engine.set_gradient_accumulation_boundary(left == 0)
            self.engine.backward(loss)

        return backward

    def finish_gradients(self, terms: float, max_norm: float | None) -> float:
        """As :func:`wenmai.training.optimizer.finish_gradients`."""
        # DeepSpeed's gradients are means over the processes; what it divides by before the update is its loss scale
        divisor = max(1.0, float(terms)) / self.world
        norm = float(self.shares.scaled_global_norm()) / divisor
        if norm < 0:
            return math.nan  # its word for not finite
        self.shares.loss_scale = divisor * max(1.0, norm / max_norm if max_norm else 1.0)
        return norm

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for own, theirs in zip(self.param_groups, self.shares.param_groups, strict=True):
            theirs["lr"] = own["lr"]
        self.engine.step()
        self.shares.loss_scale = 1.0  # the next losses go backward as they are

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.shares.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Whole states, as an AdamW without shares has them; all processes must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        whole = super().state_dict()
        steps = self._steps()
        whole["state"] = {
            index: {"step": step.clone()} | {key: safe_get_full_optimizer_state(p, key) for key in STATES}
            for index, (p, step) in enumerate(zip(self._parameters(), steps, strict=True))
        }
        return whole

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes whole states, and the model's weights of now."""
        from deepspeed.utils import safe_set_full_optimizer_state

        self.shares.refresh_fp32_params()
        for index, (p, step) in enumerate(zip(self._parameters(), self._steps(), strict=True)):
            given = state_dict["state"][index]
            step.copy_(given["step"])
            for key in STATES:
                safe_set_full_optimizer_state(p, given[key].to(p.device), key)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _steps(self) -> list[Tensor]:
        """AdamW's count of steps, of the share that each parameter's group is flattened into."""
        return [
            self.shares.optimizer.state[theirs["params"][0]]["step"]
            for own, theirs in zip(self.param_groups, self.shares.param_groups, strict=True)
            for _ in own["params"]
        ]

    def _make_states(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes AdamW's states, which DeepSpeed does at the first step only: too late to load some."""
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
            for share in group["params"]:
                share.grad = torch.zeros_like(share)
        optimizer.step()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            for share in group["params"]:
                share.grad = None
                optimizer.state[share]["step"].zero_()
        self.shares._lazy_init_hp_params_optimizer_state()


def zero_config() -> dict[str, Any]:
    """DeepSpeed's configuration.

    Raises:
        ConfigError: accelerate's settings ask for what we don't do.
    """
    from accelerate import DeepSpeedPlugin

    plugin = DeepSpeedPlugin()
    problems = []
    if plugin.zero_stage not in (1, 2):
        problems.append(
            f"accelerate's settings ask for ZeRO {plugin.zero_stage}, we use 1 or 2, which share out gradients and "
            "optimizer states: set the stage to 2 there, or train.parallel: fsdp, which shares out weights too"
        )
    if plugin.offload_optimizer_device not in (None, "none"):
        problems.append(
            f"accelerate's settings ask to move the optimizer's state to {plugin.offload_optimizer_device}, which we "
            "don't: set offload_optimizer_device to none there"
        )
    if problems:
        raise ConfigError(
            "the configuration can't be used:", [Problem("train.parallel", problem) for problem in problems]
        )
    return {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants a number and does nothing with it
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "steps_per_print": sys.maxsize,
        "zero_optimization": plugin.deepspeed_config["zero_optimization"],
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
