"""Which parameters learn how fast, the optimizer over them, and the last touch to its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from wenmai.config.train import TrainConfig
from wenmai.errors import Problem, UserError
from wenmai.tasks.model import Model
from wenmai.training.parts import check_patterns, heights, matched, refusal
from wenmai.training.zero import ZeroOptimizer


def build_optimizer(model: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer over :func:`parameter_groups`.

    * ``adamw`` (Loshchilov and Hutter 2019): PyTorch's fused one.
    * ``adafactor`` (Shazeer and Stern 2018): PyTorch's. A matrix's second moments are kept as one row and one column,
      so its state takes next to no memory. Rates are shares of each weight's own size (the root of its mean square,
      some 0.04 in BERT): set them about 25 times as high as AdamW's. ``adam_*`` say nothing here.
    * ``lion`` (Chen et al. 2023): of the package pytorch-optimizer. Steps by the sign of the momentum, one tensor of
      state a parameter. Rates 3 to 10 times lower than AdamW's, and so much more weight decay.

    Raises:
        ConfigError: a rate can't be given to the parts it names.
        UserError: the optimizer's package is not installed.
    """
    groups = parameter_groups(model, config)
    betas = (config.adam_beta1, config.adam_beta2)
    if config.optimizer == "adamw":
        adamw = torch.optim.AdamW(groups, betas=betas, eps=config.adam_epsilon, fused=True)
        adamw.register_step_post_hook(_forget_divisor)
        return adamw
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(groups)
    try:
        from pytorch_optimizer import Lion
    except ImportError as error:
        raise UserError(
            "train.optimizer: lion needs the package pytorch-optimizer, which is not installed: "
            'pip install "wenmai[optimizers]", or take adamw or adafactor'
        ) from error
    lion: torch.optim.Optimizer = Lion(groups, betas=betas)
    return lion


def parameter_groups(model: Model, config: TrainConfig) -> list[dict[str, Any]]:
    """All parameters that learn, in groups of one part, one rate and one weight decay.

    The first of these that applies gives a parameter its rate:

    1. ``learning_rates``: that of the first pattern its name fits; the part is called like the pattern.
    2. the head: ``head_learning_rate``, or ``learning_rate``. Part ``head``. But what the head adds to the embedded
       words (``joins_embeddings``) learns like the backbone's embeddings.
    3. ``layer_decay`` d: ``learning_rate * d ** k`` in the k-th layer below the top one, the embeddings one below the
       lowest (Sun et al. 2019; Clark et al. 2020). Parts ``backbone.layer.0`` ... and ``backbone.embeddings``.
    4. ``learning_rate``. Part ``backbone``.

    Weight decay is for matrices: biases, norms and other vectors are in groups ``*.no_decay``.

    Returns:
        of each group ``params``, ``name``, ``part``, ``lr`` and ``base_lr`` (both the highest rate), ``weight_decay``.

    Raises:
        ConfigError: a pattern of ``learning_rates`` decides about no parameter, or the layers that ``layer_decay``
            needs are not found.
    """
    named = dict(model.named_parameters())
    joining = {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if getattr(module, "joins_embeddings", False)
        for name, _ in module.named_parameters()
    }
    own_rate = {name: matched(name, config.learning_rates) for name in named}
    _check_rates(config, own_rate, named)
    height_of = {} if config.layer_decay is None else heights(model, "train.layer_decay")
    top = max(height_of.values(), default=0)

    def part_and_rate(name: str) -> tuple[str, float]:
        pattern = own_rate[name]
        if pattern is not None:
            return pattern, config.learning_rates[pattern]
        if name.startswith("head.") and name not in joining:
            return "head", config.head_learning_rate or config.learning_rate
        if config.layer_decay is None:
            return "backbone", config.learning_rate
        height = 0 if name in joining else height_of[name]
        part = f"backbone.layer.{height - 1}" if height else "backbone.embeddings"
        return part, config.learning_rate * config.layer_decay ** (top - height)

    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named.items():
        if not parameter.requires_grad:
            continue
        part, rate = part_and_rate(name)
        decays = parameter.ndim >= 2
        group_name = f"{part}.decay" if decays else f"{part}.no_decay"
        group = groups.setdefault(
            group_name,
            {
                "params": [],
                "name": group_name,
                "part": part,
                "lr": rate,
                "base_lr": rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _check_rates(
    config: TrainConfig, own_rate: dict[str, str | None], named: dict[str, nn.Parameter]
) -> None:
    """Makes sure that every pattern of ``learning_rates`` decides about some parameter."""
    check_patterns(config.learning_rates, list(named), lambda pattern: f"train.learning_rates.{pattern}")
    problems = []
    for pattern, rate in config.learning_rates.items():
        decided = [name for name, chosen in own_rate.items() if chosen == pattern]
        if not decided:
            message = "patterns before it already decide about every parameter it fits: put it before them"
        elif rate and not any(named[name].requires_grad for name in decided):
            message = "fits only parameters that train.freeze keeps from learning: remove it there or here"
        else:
            continue
        problems.append(Problem(f"train.learning_rates.{pattern}", message))
    if problems:
        raise refusal(*problems)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group's rate to its highest rate times ``factor``.

    Returns:
        the rates by part; the groups of one part with and without weight decay have the same.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def finish_gradients(
    optimizer: torch.optim.Optimizer, terms: float, max_norm: float | None, *, l1: float = 0.0
) -> float:
    """Gradients of a sum of loss terms -> the mean's, with the L1 penalty's, no longer than ``max_norm``.

    Call it when the gradients of the whole step are there (of all micro-batches and processes, unscaled if they were
    scaled for fp16), and the optimizer right after it. Whatever they are divided by in the end is one number, so one
    pass over them measures and one divides. The fused AdamW divides while it reads them anyway, which saves about a
    quarter of its step on a CPU: until then they stay sums.

    Args:
        optimizer: of the parameters.
        terms: the number of loss terms of the step; with none the gradients are 0 and stay so.
        max_norm: of all gradients as one vector; None: any.
        l1: the weight of the sum of the absolute values of all matrices in the loss, whose gradient is their signs'.

    Returns:
        the norm of the mean's gradient with the penalty's, before it is shortened.
    """
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.finish_gradients(terms, max_norm)
    divisor = max(1.0, float(terms))
    if l1:
        _add_signs(optimizer, l1 * divisor)
    gradients = [gradient for _, gradient in _with_gradients(optimizer)]
    if not gradients:
        return 0.0
    total = get_total_norm(gradients)
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total) / divisor
    if max_norm is not None:
        divisor *= max(1.0, norm / max_norm)
    if _divides_itself(optimizer, gradients):
        # the attribute that GradScaler sets for the same purpose; with unscaled gradients it leaves ours alone
        optimizer.grad_scale = torch.tensor(divisor, device=gradients[0].device)  # type: ignore[attr-defined]
    else:
        torch._foreach_div_(gradients, divisor)
    return norm


def _divides_itself(optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> bool:
    fused_adamw = isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults["fused"])
    return fused_adamw and not any(isinstance(gradient, DTensor) for gradient in gradients)


def _forget_divisor(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    # it is for one step; GradScaler removes the attribute itself, so it has to stay there
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def _add_signs(optimizer: torch.optim.Optimizer, weight: float) -> None:
    matrices = [(p.detach(), gradient) for p, gradient in _with_gradients(optimizer) if p.ndim >= 2]
    if matrices:
        weights, gradients = zip(*matrices, strict=True)
        torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=weight)


def _with_gradients(optimizer: torch.optim.Optimizer) -> Iterator[tuple[nn.Parameter, Tensor]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter, parameter.grad
