"""Averages of the weights over the steps, which often score better than the last weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from wenmai.config.train import TrainConfig
from wenmai.errors import Problem
from wenmai.tasks.model import Model
from wenmai.training.parts import refusal
from wenmai.training.schedules import step_count

COUNT = "n_averaged"
"""The name, beside those of the parameters, under which the number of averaged steps is saved."""

Rule = Callable[..., Any]
"""What :class:`AveragedModel` calls: averages, new weights and their number so far; changes the averages in place."""


class Average:
    """A running average of a model's trained parameters, kept beside them.

    Frozen parameters equal their average, and buffers have none: both stay those of the model. A parameter that is
    shared (the word embeddings under a masked-LM head) is one parameter here too.

    Args:
        model: on the device it is trained on; parameters that do not train at this moment are left out.
        rule: how new weights come in.
        start: steps before the first whose weights count.
    """

    def __init__(self, model: nn.Module, rule: Rule, *, start: int = 0):
        self.start = start
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._names = list(trained)
        # only the parameters: the model itself may hold what can't be copied
        self._live = nn.ParameterList(trained.values())
        self._average = AveragedModel(self._live, multi_avg_fn=rule)
        self._applied = False

    def update(self, step: int) -> None:
        """Takes in the weights after ``step`` steps; call it after every optimizer step.

        The first weights that count are the average as they are.
        """
        assert not self._applied, "the model has its averaged weights"
        if step > self.start:
            self._average.update_parameters(self._live)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has its averaged weights; after it, bit for bit those it is trained with.

        Before there is any average nothing changes.
        """
        assert not self._applied, "the model has its averaged weights"
        if not int(self._average.n_averaged):
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_for_saving(self) -> dict[str, Tensor]:
        """The averages by the names of the parameters, and under :data:`COUNT` how many steps they are of."""
        assert not self._applied, "the model has its averaged weights"
        return {**dict(zip(self._names, self._tensors(), strict=True)), COUNT: self._average.n_averaged}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what :meth:`state_for_saving` gave.

        Raises:
            KeyError: a parameter is missing.
            RuntimeError: a parameter is of another shape.
        """
        saved = [state[name] for name in self._names]
        own = {f"module.{place}": tensor for place, tensor in enumerate(saved)}
        self._average.load_state_dict({COUNT: state[COUNT], **own})

    def _tensors(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._average.module.parameters()]

    @torch.no_grad()
    def _swap(self) -> None:
        # one tensor at a time and in place: no second copy of the model, and whoever shares a weight sees it change
        for live, average in zip(self._live, self._tensors(), strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)
        self._applied = not self._applied


def build_average(model: Model, config: TrainConfig, total_steps: int) -> Average | None:
    """What ``train.ema_decay`` or ``train.swa_start`` asks for.

    * ``ema_decay`` d: average <- d * average + (1 - d) * weights after every step (Polyak and Juditsky 1992).
    * ``swa_start``: the plain mean of the weights after every later step (SWA, Izmailov et al. 2018, who take one a
      pass over the data). It gains most where the rate stays high: schedule ``constant_with_warmup``.

    Call it after :func:`~wenmai.training.freezing.freeze` and before anything is held back for later.

    Raises:
        ConfigError: ``swa_start`` leaves no step to average.
    """
    if config.ema_decay is not None:
        return Average(model, get_ema_multi_avg_fn(config.ema_decay))  # type: ignore[no-untyped-call]
    if config.swa_start is None:
        return None
    start = step_count(config.swa_start, total_steps)
    if start >= total_steps:
        message = (
            f"{config.swa_start} leaves none of the run's {total_steps} steps to average: start earlier, "
            "for example at 0.75 of all steps"
        )
        raise refusal(Problem("train.swa_start", message))
    return Average(model, get_swa_multi_avg_fn(), start=start)  # type: ignore[no-untyped-call]
