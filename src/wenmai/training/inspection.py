"""What was seen inside a model: numbers that add up over calls, batches and processes, and their JSON.

Shape letters: T tokens of a row, U units (the last dimension of an output), L layers, A attention heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

LOWEST, HIGHEST = -24, 16
"""Octaves of a histogram: magnitudes from 2^-24; what is smaller counts as zero, what is 2^16 or more as the last."""
OCTAVES = HIGHEST - LOWEST
BINS = 2 * OCTAVES + 1

SMALL, SATURATED = 0.005, 0.99
SHOWN_UNITS = 50
"""Numbers of dead units that are spelled out for each module."""

Kind = Literal["relu", "soft", "tanh", "sigmoid"]


@dataclass
class Histogram:
    """How often values lie in bins that are the same for everything, so that histograms add up.

    A bin is an octave of magnitudes with a sign: from left to right -2^16 ... -2^-24, nothing, 2^-24 ... 2^16.
    """

    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))

    def add(self, values: Tensor) -> None:
        """Counts finite values."""
        # 2^(e-1) <= |x| < 2^e
        exponent = torch.frexp(values.abs().float()).exponent.long() - 1 - LOWEST
        step = exponent.clamp(-1, OCTAVES - 1) + 1
        step = torch.where(values == 0, torch.zeros_like(step), step)
        bins = OCTAVES + torch.where(values < 0, -step, step)
        self.counts += torch.bincount(bins.flatten(), minlength=BINS).cpu()

    def merge(self, other: Histogram) -> None:
        self.counts += other.counts

    def to_json(self) -> list[int]:
        counts: list[int] = self.counts.tolist()
        return counts


@dataclass
class Spread:
    """Sums over values that give their mean, deviation, range and norm.

    Args:
        count: finite values.
        zeros: how many of them are exactly 0.
        broken: values that are infinite or no number; they are in nothing else.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    broken: int = 0

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        """Of finite values."""
        if not values.numel():
            return cls()
        wide = values.double()
        return cls(
            count=values.numel(),
            total=float(wide.sum()),
            squares=float(wide.square().sum()),
            low=float(values.min()),
            high=float(values.max()),
            zeros=int((values == 0).sum()),
        )

    def merge(self, other: Spread) -> None:
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros
        self.broken += other.broken

    @property
    def norm(self) -> float:
        """Of all values as one vector."""
        return math.sqrt(self.squares)

    def to_json(self) -> dict[str, Any]:
        """None where there was no finite value."""
        known = self.count > 0
        mean = self.total / self.count if known else 0.0
        variance = max(0.0, self.squares / self.count - mean**2) if known else 0.0
        return {
            "values": self.count,
            "mean": mean if known else None,
            "std": math.sqrt(variance) if known else None,
            "min": self.low if known else None,
            "max": self.high if known else None,
            "zero_share": self.zeros / self.count if known else None,
            "non_finite": self.broken,
            "norm": self.norm if known else None,
        }


@dataclass
class Values:
    """Everything about the numbers at one place: spread and histogram."""

    spread: Spread = field(default_factory=Spread)
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Tensor) -> None:
        """Takes in values of any shape."""
        finite = torch.isfinite(values)
        broken = int(values.numel() - finite.sum())
        kept = values[finite] if broken else values
        self.spread.merge(Spread.of(kept))
        self.spread.broken += broken
        self.histogram.add(kept)

    def merge(self, other: Values) -> None:
        self.spread.merge(other.spread)
        self.histogram.merge(other.histogram)


@dataclass
class Units:
    """On how many tokens each unit of an activation function was active.

    A unit that was active on none of the tokens seen is dead: it tells them apart in nothing, and no gradient, or
    almost none, goes through it. Active means

    * ``relu``: the output is above 0
    * ``soft`` (gelu, silu and their kin, which never stay at 0): its magnitude is above 0.005
    * ``tanh``: its magnitude is below 0.99; beyond that it is saturated
    * ``sigmoid``: it is between 0.01 and 0.99
    """

    kind: Kind
    tokens: int = 0
    active_U: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, values: Tensor) -> None:
        """Takes in outputs (..., U)."""
        values_NU = values.reshape(-1, values.shape[-1])
        if self.kind == "relu":
            active_NU = values_NU > 0
        elif self.kind == "soft":
            active_NU = values_NU.abs() > SMALL
        elif self.kind == "tanh":
            active_NU = values_NU.abs() < SATURATED
        else:
            active_NU = (values_NU > 1 - SATURATED) & (values_NU < SATURATED)
        active_U = active_NU.sum(0).cpu()
        self.active_U = active_U if self.tokens == 0 else self.active_U + active_U
        self.tokens += len(values_NU)

    @property
    def dead(self) -> list[int]:
        """The numbers of the dead units."""
        found: list[int] = (self.active_U == 0).nonzero().flatten().tolist()
        return found

    def to_json(self) -> dict[str, Any]:
        dead = self.dead
        shares = self.active_U.double() / max(1, self.tokens)
        return {
            "kind": self.kind,
            "units": len(self.active_U),
            "tokens": self.tokens,
            "dead": len(dead),
            "dead_units": dead[:SHOWN_UNITS],
            "median_active_share": float(shares.median()) if len(shares) else None,
        }


@dataclass
class Attention:
    """The entropy of each head's attention, in nats, as a mean over the tokens that look.

    A head that looks at all n tokens of its row alike has log n, one that looks at a single token 0. As rows differ
    in length, the share of log n is kept as well.

    Args:
        entropy_A, share_A: sums over tokens.
        tokens: that were summed over.
        sharing: those of them that are in rows of two tokens or more, where the share is defined.
    """

    entropy_A: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    share_A: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    tokens: int = 0
    sharing: int = 0

    def add(self, probabilities_BATT: Tensor, mask_BT: Tensor) -> None:
        """Takes in the probabilities of a batch; the mask is 1 for tokens and 0 for padding."""
        wide = probabilities_BATT.double()
        entropy_BAT = -torch.xlogy(wide, wide).sum(-1)
        real_BT = mask_BT.bool()
        most_B1 = real_BT.sum(1, keepdim=True).double().log()
        shared_BT = real_BT & (most_B1 > 0)
        share_BAT = entropy_BAT / most_B1.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)
        entropy_A = (entropy_BAT * real_BT.unsqueeze(1)).sum((0, 2)).cpu()
        share_A = torch.where(shared_BT.unsqueeze(1), share_BAT, 0.0).sum((0, 2)).cpu()
        first = self.tokens == 0
        self.entropy_A = entropy_A if first else self.entropy_A + entropy_A
        self.share_A = share_A if first else self.share_A + share_A
        self.tokens += int(real_BT.sum())
        self.sharing += int(shared_BT.sum())

    def to_json(self) -> dict[str, Any]:
        share: list[float] = (self.share_A / max(1, self.sharing)).tolist()
        entropy: list[float] = (self.entropy_A / max(1, self.tokens)).tolist()
        return {"entropy": entropy, "share": share}


@dataclass
class ModuleRecord:
    """What one module did.

    Args:
        kind: its class.
        steps: a summary a step, in order.
        outputs, gradients: of its output, over all steps.
        units: of an activation function.
    """

    name: str
    kind: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    outputs: Values = field(default_factory=Values)
    gradients: Values = field(default_factory=Values)
    units: Units | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "outputs": {**self.outputs.spread.to_json(), "histogram": self.outputs.histogram.to_json()},
            "gradients": {**self.gradients.spread.to_json(), "histogram": self.gradients.histogram.to_json()},
            "units": None if self.units is None else self.units.to_json(),
            "steps": self.steps,
        }


@dataclass
class Inspection:
    """What was seen in a number of steps.

    Args:
        modules: by name, in the order of the model.
        attention: layer (from 0) -> its heads; empty if attention was not looked at.
        tokens: real tokens that went through the model.
    """

    modules: dict[str, ModuleRecord] = field(default_factory=dict)
    attention: dict[int, Attention] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0

    def to_json(self, **more: Any) -> dict[str, Any]:
        """The content of ``inspection.json``, with whatever else is known about it at its beginning."""
        layers = [self.attention[layer].to_json() for layer in sorted(self.attention)]
        return {
            **more,
            "steps": self.steps,
            "tokens": self.tokens,
            "histogram_octaves": [LOWEST, HIGHEST],
            "attention": {
                "entropy": [layer["entropy"] for layer in layers],
                "share": [layer["share"] for layer in layers],
            },
            "modules": [record.to_json() for record in self.modules.values()],
        }
