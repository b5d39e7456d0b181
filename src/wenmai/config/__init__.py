"""The configuration of a run: the records, reading them from YAML, and saying all that is wrong at once."""

from wenmai.config.tree import (
    SPLITS,
    RunConfig,
    Steps,
    TrainConfig,
    config_tree,
    load_config,
    load_source,
    save_config,
    task_section,
)

__all__ = [
    "SPLITS",
    "RunConfig",
    "Steps",
    "TrainConfig",
    "config_tree",
    "load_config",
    "load_source",
    "save_config",
    "task_section",
]
