"""Optuna: draws the values of the next trial, says when a trial is not worth going on with, and which keys mattered.

Its study is built anew from the trials before every draw. So the draw of trial n depends on the seed, on n and on the
trials before it, and on nothing else: a study that is killed and resumed draws what the unbroken one would have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from wenmai.config import TuneConfig
from wenmai.config.space import Axis
from wenmai.errors import UserError
from wenmai.experiments.trials import Trial

if TYPE_CHECKING:
    import optuna

GOOD = 0.25
"""The share of the trials that count as good when keys are weighed: five of twenty."""


class Draw:
    """The values of one trial, and the judge of its evaluations.

    Args:
        trials: all earlier ones.
        seed: of the whole search.
    """

    def __init__(self, settings: TuneConfig, space: Sequence[Axis], trials: Sequence[Trial], seed: int):
        self._trial = _study(settings, space, trials, seed).ask(_distributions(space))
        self.values = {axis.key: _given(axis, self._trial.params[axis.key]) for axis in space}
        self.evaluations: list[float] = []
        self.stop = False

    @property
    def notes(self) -> dict[str, Any]:
        """What sampler and pruner keep for themselves."""
        return dict(self._trial.study.trials[-1].system_attrs)

    def judge(self, evaluations: Sequence[float]) -> bool:
        """Whether the trial is to stop.

        Args:
            evaluations: all so far; those that were judged before are not judged again.
        """
        for value in evaluations[len(self.evaluations) :]:
            self.evaluations.append(value)
            self._trial.report(value, len(self.evaluations))
            self.stop = self._trial.should_prune()
        return self.stop


def importance(settings: TuneConfig, space: Sequence[Axis], trials: Sequence[Trial]) -> dict[str, float]:
    """Each key's share in what sets good trials apart; empty where there are too few to tell.

    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255) over the trials that ran to their end.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if len(space) < 2 or len({trial.value for trial in complete}) < 4:
        return {}
    module = installed().importance
    evaluator = module.PedAnovaImportanceEvaluator(target_quantile=GOOD)
    found = module.get_param_importances(_study(settings, space, complete, seed=0), evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}


def installed() -> ModuleType:
    """Optuna, silent.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError('wenmai tune needs Optuna: pip install "wenmai[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(settings: TuneConfig, space: Sequence[Axis], trials: Sequence[Trial], seed: int) -> optuna.Study:
    """Optuna's study of these trials, about to draw the next one."""
    library = installed()
    drawn = np.random.SeedSequence([seed, len(trials)]).generate_state(1)
    study: optuna.Study = library.create_study(
        study_name="wenmai",  # hyperband draws its brackets by the name
        direction="maximize",
        sampler=library.samplers.TPESampler(seed=int(drawn[0])),
        pruner=_pruner(settings, trials),
    )
    states = {
        "complete": library.trial.TrialState.COMPLETE,
        "pruned": library.trial.TrialState.PRUNED,
        "failed": library.trial.TrialState.FAIL,
    }
    for trial in trials:
        study.add_trial(
            library.trial.create_trial(
                state=states[trial.state],
                value=None if trial.state == "failed" else trial.value,
                params={axis.key: _drawn(axis, trial.values[axis.key]) for axis in space},
                distributions=_distributions(space),
                intermediate_values=dict(enumerate(trial.evaluations, start=1)),
                system_attrs=trial.notes,
            )
        )
    return study


def _pruner(settings: TuneConfig, trials: Sequence[Trial]) -> optuna.pruners.BasePruner:
    """By the number of an evaluation, not its step: trials may differ in the size of their steps.

    Median: Golovin et al. 2017 (https://doi.org/10.1145/3097983.3098043). Hyperband: Li et al. 2018
    (https://arxiv.org/abs/1603.06560); it has to know how many evaluations a whole trial has.
    """
    pruners = installed().pruners
    whole = next((len(trial.evaluations) for trial in trials if trial.state == "complete"), 0)
    pruner: optuna.pruners.BasePruner
    if settings.pruner == "median":
        pruner = pruners.MedianPruner()
    elif settings.pruner == "hyperband" and whole > 1:
        pruner = pruners.HyperbandPruner(max_resource=whole)
    else:
        pruner = pruners.NopPruner()
    return pruner


def _distributions(space: Sequence[Axis]) -> dict[str, optuna.distributions.BaseDistribution]:
    kinds = installed().distributions
    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for axis in space:
        of = axis.dimension
        if of.choices is not None:
            found[axis.key] = kinds.CategoricalDistribution([_drawn(axis, choice) for choice in of.choices])
            continue
        assert of.low is not None and of.high is not None
        high = of.high if of.step is None else _last_step(of.low, of.high, of.step)
        if axis.whole:
            found[axis.key] = kinds.IntDistribution(int(of.low), int(high), of.log, int(of.step or 1))
        else:
            found[axis.key] = kinds.FloatDistribution(of.low, high, of.log, of.step)
    return found


def _last_step(low: float, high: float, step: float) -> float:
    """The highest value that steps from the lowest one reach, in the decimals that people write: 0.1 is not a tenth."""
    first, last, width = (Decimal(str(number)) for number in (low, high, step))
    return float(first + (last - first) // width * width)


def _drawn(axis: Axis, value: Any) -> Any:
    """A value as Optuna draws it: its choices can't be lists or sections, so all are JSON."""
    return value if axis.dimension.choices is None else json.dumps(value, ensure_ascii=False)


def _given(axis: Axis, value: Any) -> Any:
    return value if axis.dimension.choices is None else json.loads(value)
