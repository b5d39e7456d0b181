"""Which parameters learn how fast: groups, and schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from wenmai.config import TrainConfig
from wenmai.tasks.model import Model


def warmup_steps(given: int | float, total: int) -> int:
    """Steps of warm-up; ``given`` below 1 is a share of all steps."""
    return math.ceil(given * total) if given < 1 else int(given)


def schedule_factor(schedule: str, step: int, *, total: int, warmup: int) -> float:
    """What the learning rate is multiplied by in optimizer step ``step`` (from 0).

    Linear warm-up from 0, then ``constant``, ``linear`` to 0, or ``cosine`` to 0 (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if schedule == "constant":
        return 1.0
    raise AssertionError(schedule)


def parameter_groups(model: Model, config: TrainConfig) -> list[dict[str, object]]:
    """Backbone and head, each with and without weight decay (biases, norms and other vectors have none)."""
    head_rate = config.head_learning_rate or config.learning_rate
    groups = []
    for name, part, rate in (
        ("backbone", model.backbone, config.learning_rate),
        ("head", model.head, head_rate),
    ):
        trained = [p for p in part.parameters() if p.requires_grad]
        for suffix, decay, chosen in (
            ("decay", config.weight_decay, [p for p in trained if p.ndim >= 2]),
            ("no_decay", 0.0, [p for p in trained if p.ndim < 2]),
        ):
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "name": f"{name}.{suffix}",
                        "lr": rate,
                        "base_lr": rate,
                        "weight_decay": decay,
                    }
                )
    return groups


def build_optimizer(model: Model, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(
        parameter_groups(model, config),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group's rate to its base rate times ``factor``; returns them by group name."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def gradients_divided_by(parameters: Iterable[nn.Parameter], count: int) -> None:
    """Turns gradients of a sum of ``count`` terms into gradients of their mean, in place."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_div_(gradients, float(max(1, count)))
