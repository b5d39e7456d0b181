"""Adversarial training: what ``train.adversarial`` moves, from which step on, and how.

Used by the loop in place of the step's own gradients::

    adversary = build_adversary(config.adversarial, model)
    ...
    loss, terms = adversary(step) if adversary.active(number, total) else step.run()

Dropout is a function of each row's key, so all passes of a step drop the same: a method sees what its move did, and
not other dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from wenmai.config.train import AdversarialConfig, Steps
from wenmai.errors import ConfigError, Problem
from wenmai.tasks.model import Model
from wenmai.training.gradients import Step
from wenmai.training.perturbation import MovedWeights, MovedWords
from wenmai.training.schedules import step_count

PLACE = "train.adversarial.parameters"


@dataclass(frozen=True)
class Adversary:
    """Args:
    gradients: fills in a step's gradients instead of ``step.run()``.
    start: the first steps are clean, so many or (below 1) such a share of all; None: none.
    """

    gradients: Callable[[Step], tuple[float, int]]
    start: Steps | None = None

    def active(self, step: int, total: int) -> bool:
        """Whether optimizer step ``step`` (from 0) of ``total`` is adversarial."""
        if self.start is None:
            return True
        return step >= step_count(self.start, total)

    def __call__(self, step: Step) -> tuple[float, int]:
        """Fills in the gradients of the step's parameters, which have none yet, as sums over this process's terms.

        FGM, PGD, AWP: clean plus adversarial gradients, and the loss is the clean one. FreeLB, which has no clean
        pass: the mean of its passes, both.

        Returns:
            the sum of the loss terms and their number, of this process.
        """
        return self.gradients(step)


def build_adversary(config: AdversarialConfig, model: Model) -> Adversary:
    """Finds what the method moves: by default the word embeddings (fgm, pgd) or all matrices that train (awp).

    Raises:
        ConfigError: ``train.adversarial.parameters`` matches nothing or nothing that trains, or the default does
            not, or patterns are given for freelb, which moves no weights.
    """
    if config.method == "freelb":
        if config.parameters is not None:
            raise _refusal(
                "given, but freelb moves each text's embedded words and no weights: remove it, "
                "or set train.adversarial.method to fgm, pgd or awp"
            )
        return Adversary(
            MovedWords(
                words=model.backbone.word_embeddings,
                epsilon=config.epsilon,
                step_size=config.step_size,
                steps=config.steps,
            ),
            config.start,
        )
    moving = _moving(config, model)
    layer_wise, one_step = config.method == "awp", config.method == "fgm"
    return Adversary(
        MovedWeights(
            groups=[[weight] for weight in moving] if layer_wise else [moving],
            everything=list(model.parameters()),
            epsilon=config.epsilon,
            step_size=config.epsilon if one_step else config.step_size,
            steps=1 if one_step else config.steps,
            relative=layer_wise,
        ),
        config.start,
    )


def _moving(config: AdversarialConfig, model: Model) -> list[nn.Parameter]:
    """What may move. Of several weights some may be frozen (gradual unfreezing): those stay while they are."""
    named = dict(model.named_parameters())
    if config.parameters is not None:
        return _matching(config.parameters, named)
    if config.method == "awp":
        matrices = [p for p in named.values() if p.ndim >= 2]
        if not any(p.requires_grad for p in matrices):
            raise _refusal("no matrix of the model trains: take some out of train.freeze, or turn awp off")
        return matrices
    name, words = next((name, p) for name, p in named.items() if p is model.backbone.word_embeddings.weight)
    if not words.requires_grad:
        raise _refusal(
            f"by default {config.method} moves the word embeddings ({name}), which do not train: take them out of "
            "train.freeze, name weights that train, or set train.adversarial.method to freelb or awp"
        )
    return [words]


def _matching(patterns: Sequence[str], named: dict[str, nn.Parameter]) -> list[nn.Parameter]:
    problems = [] if patterns else ["no pattern given: name some weights, or remove the key"]
    for pattern in patterns:
        found = [p for name, p in named.items() if fnmatchcase(name, pattern)]
        if not found:
            problems.append(
                f"{pattern!r} matches none of the model's {len(named)} parameters ({', '.join([*named][:3])} ...)"
            )
        elif not any(p.requires_grad for p in found):
            problems.append(
                f"{pattern!r} matches only parameters that do not train: take them out of train.freeze, "
                "or name others"
            )
    if problems:
        raise _refusal(*problems)
    return [p for name, p in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _refusal(*messages: str) -> ConfigError:
    return ConfigError("the configuration can't be used:", [Problem(PLACE, message) for message in messages])
