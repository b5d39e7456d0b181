"""The configuration of a run: the records, reading them from YAML, and saying all that is wrong at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wenmai.config.parts import MixingConfig, PartConfig, task_section
    from wenmai.config.train import AdversarialConfig, Steps, TrainConfig
    from wenmai.config.tree import (
        SPLITS,
        RunConfig,
        changed,
        config_tree,
        load_config,
        load_source,
        save_config,
    )
    from wenmai.config.tune import Dimension, TuneConfig

__all__ = [
    "SPLITS",
    "AdversarialConfig",
    "Dimension",
    "MixingConfig",
    "PartConfig",
    "RunConfig",
    "Steps",
    "TrainConfig",
    "TuneConfig",
    "changed",
    "config_tree",
    "load_config",
    "load_source",
    "save_config",
    "task_section",
]

_HOMES = {
    **dict.fromkeys(["MixingConfig", "PartConfig", "task_section"], "wenmai.config.parts"),
    **dict.fromkeys(["AdversarialConfig", "Steps", "TrainConfig"], "wenmai.config.train"),
    **dict.fromkeys(["Dimension", "TuneConfig"], "wenmai.config.tune"),
}


def __getattr__(name: str) -> Any:
    """The tree of a run knows all tasks, and so torch, which a corpus configuration can do without."""
    if name not in __all__:
        raise AttributeError(f"module 'wenmai.config' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, "wenmai.config.tree")), name)
    return value
