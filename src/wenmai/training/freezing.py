"""Parameters that do not learn: at all, or not yet."""

from __future__ import annotations

import torch

from wenmai.config.train import Steps, TrainConfig
from wenmai.errors import Problem
from wenmai.tasks.model import Model
from wenmai.training.parts import check_patterns, heights, matched, refusal
from wenmai.training.schedules import step_count


def freeze(model: Model, config: TrainConfig) -> None:
    """Takes out of the training what ``train.freeze`` names, and what ``train.learning_rates`` gives the rate 0.

    Call it before the optimizer is built, which takes what is left.

    Raises:
        ConfigError: a pattern of ``train.freeze`` fits no parameter, nothing is left to learn, or
            ``train.unfreeze_every`` can't be followed.
    """
    names = [name for name, _ in model.named_parameters()]
    check_patterns(config.freeze, names, lambda pattern: "train.freeze")
    for name, parameter in model.named_parameters():
        own_rate = matched(name, config.learning_rates)
        stands_still = own_rate is not None and config.learning_rates[own_rate] == 0
        if stands_still or matched(name, config.freeze) is not None:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        key = "train.freeze" if config.freeze else "train.learning_rates"
        raise refusal(Problem(key, "no parameter is left that learns: freeze less, or give a rate above 0"))
    if config.unfreeze_every is not None:
        heights(model, "train.unfreeze_every")
        if not any(parameter.requires_grad for parameter in model.head.parameters()):
            raise refusal(
                Problem(
                    "train.unfreeze_every",
                    f"the head learns first, but this {type(model.head).__name__} has nothing that does: remove it",
                )
            )


def unfrozen_layers(step: int, every: int, layers: int) -> int:
    """How many layers, counted from the top, learn in optimizer step ``step`` (from 0) besides the head.

    None in the first ``every`` steps, then one more each time; ``layers`` + 1 means that the embeddings learn too
    (ULMFiT's gradual unfreezing, Howard and Ruder 2018).

    Args:
        every: steps, at least 1.
        layers: how many the backbone has.
    """
    return min(layers + 1, step // every)


def apply_unfreezing(
    model: Model, optimizer: torch.optim.Optimizer, every: Steps | None, step: int, total: int
) -> None:
    """Lets those parameters learn whose turn it is in this step; the same whatever happened before.

    The optimizer holds all that ever learns, and passes over what has no gradient: a layer that waits neither moves,
    nor decays, nor gets a state. What :func:`freeze` took out is not in the optimizer and stays as it is.

    Args:
        every: ``train.unfreeze_every``; None: nothing is ever held back, and nothing is done.
        step: the coming optimizer step, from 0.
        total: how many there are.
    """
    if every is None:
        return
    learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    height_of = heights(model, "train.unfreeze_every")
    layers = max(height_of.values())
    top = unfrozen_layers(step, step_count(every, total), layers)
    for name, parameter in model.named_parameters():
        if id(parameter) in learning and name in height_of:
            parameter.requires_grad_(height_of[name] > layers - top)
