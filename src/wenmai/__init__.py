"""wenmai (文脉): Chinese-first NLP with pretrained Transformers, from labelled text to a trained, explained model.

>>> import wenmai
>>> ner = wenmai.load("runs/ner")
>>> ner("王小明在北京大学读书。")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wenmai.version import __version__

if TYPE_CHECKING:
    from wenmai.config import load_config
    from wenmai.data.examples import read_examples
    from wenmai.evaluation.evaluate import evaluate
    from wenmai.inference.pipeline import pipeline
    from wenmai.inference.predictor import load
    from wenmai.tasks import TASKS
    from wenmai.training.trainer import train

__all__ = ["TASKS", "__version__", "evaluate", "load", "load_config", "pipeline", "read_examples", "train"]

_HOMES = {
    "TASKS": "wenmai.tasks",
    "evaluate": "wenmai.evaluation.evaluate",
    "load": "wenmai.inference.predictor",
    "load_config": "wenmai.config",
    "pipeline": "wenmai.inference.pipeline",
    "read_examples": "wenmai.data.examples",
    "train": "wenmai.training.trainer",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: ``import wenmai`` and ``wenmai --help`` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wenmai' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
