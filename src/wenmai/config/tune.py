"""The ``tune:`` section: which keys are searched, between which values, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wenmai.config.problems import near_miss


class Dimension(BaseModel):
    """What one key may be: numbers between two ends, or a list of choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float | None = Field(default=None, description="lowest value")
    high: int | float | None = Field(default=None, description="highest value")
    log: bool = Field(default=False, description="draw orders of magnitude evenly, as learning rates want it")
    step: int | float | None = Field(
        default=None, gt=0, description="draw only low, low + step, low + 2 step ..."
    )
    choices: list[Any] | None = Field(
        default=None,
        min_length=1,
        description="draw one of these instead: texts, numbers, true or false, null, lists or whole sections",
    )

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        ends = (self.low, self.high)
        if self.choices is not None:
            if ends != (None, None) or self.log or self.step is not None:
                raise ValueError("choices stand alone: remove low, high, log and step, or the choices")
            if any(choice in self.choices[:i] for i, choice in enumerate(self.choices)):
                raise ValueError(f"choices {self.choices} repeat: give each once")
            return self
        if self.low is None or self.high is None:
            raise ValueError(
                "give low and high, as {low: 1.0e-5, high: 1.0e-4, log: true}, or {choices: [...]}"
            )
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs a low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: remove one of them")
        return self

    def ends(self) -> list[Any]:
        """The values between which all others lie, or all choices."""
        return [self.low, self.high] if self.choices is None else self.choices


def _dimension(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {{low: ..., high: ...}} or {{choices: [...]}}, got {value!r}")
    for name in value:
        if name not in Dimension.model_fields:
            allowed = list(Dimension.model_fields)
            raise ValueError(
                f"unknown key {name!r}; {near_miss(str(name), allowed)}allowed: {', '.join(allowed)}"
            )
    return value


class TuneConfig(BaseModel):
    """The ``tune:`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=20, ge=1, description="how many runs in all; the first 10 are drawn by lot")
    timeout: float | None = Field(
        default=None, gt=0, description="begin no trial after so many seconds of training"
    )
    metric: str | None = Field(
        default=None,
        description="of the dev set, higher is better; default: the one that chooses the best model",
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        default="median",
        description="which trials end early: worse than the median of the earlier ones after as many evaluations, "
        "or by successive halving",
    )
    seed: int | None = Field(default=None, ge=0, description="of the search; default: the run's seed")
    space: dict[str, Annotated[Dimension, BeforeValidator(_dimension)]] = Field(
        description="what is searched, by dotted key: `train.learning_rate: {low: 1e-5, high: 1e-4, log: true}`"
    )
