"""What can't be asked of a run whose processes share out more than the examples; said before any work starts."""

from __future__ import annotations

from importlib.util import find_spec

from wenmai.config import RunConfig
from wenmai.errors import ConfigError, Problem
from wenmai.training.parallel import Parallel
from wenmai.training.zero import zero_config

WHOLE_WEIGHTS = ("adversarial", "ema_decay", "swa_start", "unfreeze_every", "l1")
"""Keys of what moves, copies or reads whole weights or gradients in the middle of training."""


def refuse_unshareable(config: RunConfig, precision: str, parallel: Parallel) -> None:
    """Makes sure that ``train.parallel`` can be had, and everything else together with it.

    Args:
        precision: as it was resolved.

    Raises:
        ConfigError: it can't.
    """
    train, how = config.train, config.train.parallel
    if how == "ddp":
        return
    unfit = [f"train.{key}" for key in WHOLE_WEIGHTS if getattr(train, key)]
    if config.backbone.adapter is not None:
        unfit.append("backbone.adapter")
    if how == "fsdp" and train.padding_free == "on":
        unfit.append("train.padding_free: on")
    if how == "deepspeed" and train.optimizer != "adamw":
        unfit.append(f"train.optimizer: {train.optimizer}")
    problems = [
        Problem(place, f"can't be used with train.parallel: {how}; remove it, or set train.parallel: ddp")
        for place in unfit
    ]
    if config.tasks:
        message = f"several tasks can't be trained with train.parallel: {how}; set train.parallel: ddp"
        problems.append(Problem("tasks", message))
    if precision == "fp16":
        problems.append(
            Problem("precision", f"fp16 can't be used with train.parallel: {how}; take bf16 or fp32")
        )
    if parallel.world == 1:
        problems.append(
            Problem("train.parallel", f"{how} needs several processes: start with --processes N, or set ddp")
        )
    if how == "deepspeed" and find_spec("deepspeed") is None:
        problems.append(
            Problem(
                "train.parallel",
                "deepspeed needs the package deepspeed, which is not installed: "
                'pip install "wenmai[deepspeed]", or set fsdp, which needs nothing',
            )
        )
    if problems:
        raise ConfigError("the configuration can't be used:", problems)
    if how == "deepspeed":
        zero_config()  # its refusals come before the long work
