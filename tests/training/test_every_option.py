"""Every key of the train section does something: a run with it ends differently from one without."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.config import AdversarialConfig, TrainConfig
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

BASE: dict[str, Any] = {
    "epochs": 2,
    "examples_per_step": 12,
    "logging_steps": 1,
    "eval_steps": 2,
    "warmup_steps": 2,
}

LEARNING: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 3},
    "max_steps": {"max_steps": 4},
    "max_tokens": {"max_tokens": 300},
    "tokens_per_step": {"tokens_per_step": 160, "examples_per_step": None},
    "examples_per_step": {"examples_per_step": 9},
    "learning_rate": {"learning_rate": 1e-3},
    "head_learning_rate": {"head_learning_rate": 1e-2},
    "learning_rates": {"learning_rates": {"*.embeddings.*": 1e-4}},
    "layer_decay": {"layer_decay": 0.5},
    "schedule": {"schedule": "cosine"},
    "warmup_steps": {"warmup_steps": 0},
    "min_learning_rate": {"min_learning_rate": 0.5},
    "num_cycles": {"schedule": "cosine_with_restarts", "num_cycles": 3},
    "power": {"schedule": "polynomial", "power": 3.0},
    "decay_steps": {"schedule": "warmup_stable_decay", "decay_steps": 3},
    "optimizer": {"optimizer": "adafactor"},
    "weight_decay": {"weight_decay": 0.3},
    "l1": {"l1": 1e-2},
    "adam_beta1": {"adam_beta1": 0.5},
    "adam_beta2": {"adam_beta2": 0.9},
    "adam_epsilon": {"adam_epsilon": 1e-2},
    "max_grad_norm": {"max_grad_norm": 0.01},
    "freeze": {"freeze": ["backbone.*.embeddings.*"]},
    "unfreeze_every": {"unfreeze_every": 2},
    "adversarial": {"adversarial": {"method": "fgm"}},
    "r_drop": {"r_drop": 5.0},
}
"""Another value changes the trained weights; where the key belongs to a schedule, against that schedule's default."""

KEPT: dict[str, dict[str, Any]] = {"ema_decay": {"ema_decay": 0.9}, "swa_start": {"swa_start": 2}}
"""Training goes the same way, and other weights are kept."""

LOGGED: dict[str, dict[str, Any]] = {
    "eval_steps": {"eval_steps": 3},
    "logging_steps": {"logging_steps": 2},
    "eval_examples": {"eval_examples": 5},
    "metric_for_best_model": {"metric_for_best_model": "macro_f1"},
    "early_stopping_patience": {"early_stopping_patience": 1, "learning_rate": 1e-9},
}
"""What is learned stays the same, or ends earlier; the log tells."""

ELSEWHERE = {
    "tokens_per_micro_batch": "test_gradients.py, test_batching.py",
    "examples_per_micro_batch": "test_gradients.py",
    "gradient_checkpointing": "test_packing.py: recomputes; test_gradients.py: same gradients",
    "padding_free": "test_packing.py: computes fewer positions; test_gradients.py: same gradients",
    "parallel": "test_parallel.py",
    "num_workers": "test_loader.py, test_workers.py",
    "save_steps": "test_resume.py",
    "seeds": "test_repetition.py",
}
"""Keys that must not change a result, and where their own tests are."""

ADVERSARIAL: dict[str, dict[str, Any]] = {
    "method": {"method": "fgm"},
    "epsilon": {"epsilon": 0.2, "step_size": 1.0},
    "step_size": {"step_size": 0.1},
    "steps": {"steps": 2},
    "parameters": {"parameters": ["backbone.*.position_embeddings.*"]},
    "start": {"start": 3},
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, layers=2)


class Runs:
    """Trains and remembers, so that the base is trained once."""

    def __init__(self, folder: Path, backbone: Path):
        self.folder, self.backbone, self.done = folder, backbone, dict[str, Path]()

    def __call__(self, **options: Any) -> Path:
        settings = BASE | options
        name = hashlib.sha256(repr(sorted(settings.items(), key=str)).encode()).hexdigest()[:12]
        if name not in self.done:
            folder = self.folder / name
            self.done[name] = train(toy_config(folder, "classification", self.backbone, **settings))
        return self.done[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), backbone)


def trained(run: Path) -> bytes:
    return (run / "checkpoint" / "model.safetensors").read_bytes()


def kept(run: Path) -> bytes:
    return (run / "bundle" / "model.safetensors").read_bytes()


def log(run: Path) -> list[tuple[str, int, Any]]:
    return [
        (e["event"], e["step"], [e.get("primary_metric"), e.get("metrics")])
        for e in read_log(run / "log.jsonl")
    ]


def test_every_key_is_here() -> None:
    assert {*LEARNING, *KEPT, *LOGGED, *ELSEWHERE} == set(TrainConfig.model_fields)
    assert set(ADVERSARIAL) == set(AdversarialConfig.model_fields)


@pytest.mark.parametrize("key", LEARNING)
def test_keys_that_change_what_is_learned(key: str, runs: Runs) -> None:
    options = LEARNING[key]
    others = {name: value for name, value in options.items() if name == "schedule" and key != "schedule"}
    assert trained(runs(**options)) != trained(runs(**others))


@pytest.mark.parametrize("key", KEPT)
def test_keys_that_change_what_is_kept(key: str, runs: Runs) -> None:
    run, base = runs(**KEPT[key]), runs()
    assert trained(run) == trained(base)
    assert kept(run) != kept(base)


@pytest.mark.parametrize("key", LOGGED)
def test_keys_that_change_what_is_noted(key: str, runs: Runs) -> None:
    options = LOGGED[key]
    others = {name: value for name, value in options.items() if name == "learning_rate"}
    assert log(runs(**options)) != log(runs(**others))


@pytest.mark.parametrize("key", ADVERSARIAL)
def test_keys_of_the_adversarial_section(key: str, runs: Runs) -> None:
    base = {"method": "pgd", "epsilon": 1.0, "step_size": 0.3, "steps": 4}
    changed = ADVERSARIAL[key]
    others = {name: value for name, value in changed.items() if name == "step_size" and key != "step_size"}
    assert trained(runs(adversarial=base | changed)) != trained(runs(adversarial=base | others))
