"""The configuration of a run: the records, reading them from YAML, and saying all that is wrong at once."""

from wenmai.config.train import AdversarialConfig, Steps, TrainConfig
from wenmai.config.tree import (
    SPLITS,
    RunConfig,
    changed,
    config_tree,
    load_config,
    load_source,
    save_config,
    task_section,
)
from wenmai.config.tune import Dimension, TuneConfig

__all__ = [
    "SPLITS",
    "AdversarialConfig",
    "Dimension",
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
