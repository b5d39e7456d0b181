"""The configuration of a run: the records, reading them from YAML, and saying all that is wrong at once."""

from wenmai.config.train import AdversarialConfig, Steps, TrainConfig
from wenmai.config.tree import (
    SPLITS,
    RunConfig,
    config_tree,
    load_config,
    load_source,
    save_config,
    task_section,
)

__all__ = [
    "SPLITS",
    "AdversarialConfig",
    "RunConfig",
    "Steps",
    "TrainConfig",
    "config_tree",
    "load_config",
    "load_source",
    "save_config",
    "task_section",
]
