"""The search space: which numbers are drawn, and what is refused before the first trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wenmai.config import RunConfig, changed, config_tree, load_config
from wenmai.config.space import axes
from wenmai.errors import ConfigError

BASE = {
    "task": {"name": "ner"},
    "backbone": {"model": "x"},
    "data": {"train": "train.jsonl", "dev": "dev.jsonl"},
    "output": "runs/x",
}


def config(tmp_path: Path, space: dict[str, Any], **rest: Any) -> RunConfig:
    path = tmp_path / "tune.yaml"
    path.write_text(json.dumps({**BASE, "tune": {"space": space}, **rest}), encoding="utf-8")
    return load_config(path)


def refusals(tmp_path: Path, space: dict[str, Any], **rest: Any) -> dict[str, str]:
    """Place to message of everything that is wrong."""
    with pytest.raises(ConfigError) as caught:
        axes(config(tmp_path, space, **rest))
    return {
        problem.place.removeprefix(f"{tmp_path / 'tune.yaml'}: "): problem.message
        for problem in caught.value.problems
    }


@pytest.mark.parametrize(
    ("key", "dimension", "whole"),
    [
        ("train.tokens_per_step", {"low": 256, "high": 1024}, True),
        ("train.num_cycles", {"low": 1, "high": 5, "step": 2}, True),
        # a key of fractions draws them, however its ends are written
        ("train.weight_decay", {"low": 0, "high": 1}, False),
        ("train.epochs", {"low": 2, "high": 5}, False),
        # a key of both goes by how its ends are written
        ("train.warmup_steps", {"low": 0, "high": 500}, True),
        ("train.warmup_steps", {"low": 0.0, "high": 0.3}, False),
        ("task.max_length", {"low": 64, "high": 256}, True),
        ("task.dropout", {"low": 0, "high": 0.5}, False),
        ("train.adversarial.steps", {"low": 1, "high": 5}, True),
    ],
)
def test_which_numbers_are_drawn(tmp_path: Path, key: str, dimension: dict[str, Any], whole: bool) -> None:
    rest = {"train": {"adversarial": {"method": "pgd"}}} if "adversarial" in key else {}
    (axis,) = axes(config(tmp_path, {key: dimension}, **rest))
    assert (axis.key, axis.whole) == (key, whole)


def test_every_problem_is_told_at_its_key(tmp_path: Path) -> None:
    found = refusals(
        tmp_path,
        {
            "train.lerning_rate": {"low": 1e-5, "high": 1e-4},
            "train.epochs": {"low": -2, "high": 5},
            "train.layer_decay": {"low": 0.5, "high": 1.5},
            "train.schedule": {"choices": ["linear", "lineer"]},
            "task.max_lenght": {"choices": [64]},
        },
    )
    assert found["tune.space.train.lerning_rate"].startswith("unknown key; did you mean 'learning_rate'?")
    assert found["tune.space.task.max_lenght"].startswith("unknown key; did you mean 'max_length'?")
    assert found["tune.space.train.epochs"] == "must be greater than 0.0, got -2"
    assert found["tune.space.train.layer_decay"] == "must be at most 1.0, got 1.5"
    assert found["tune.space.train.schedule"].startswith("got \"lineer\"; did you mean 'linear'?")
    assert len(found) == 5


@pytest.mark.parametrize(
    ("key", "dimension", "message"),
    [
        (
            "train.epochs",
            {"lo": 1},
            "unknown key 'lo'; did you mean 'low'? allowed: low, high, log, step, choices",
        ),
        ("train.epochs", 3, "expected {low: ..., high: ...} or {choices: [...]}, got 3"),
        ("train.epochs", {"low": 3, "high": 2}, "low 3 must be less than high 2"),
        ("train.epochs", {"low": 3}, "give low and high, as {low: 1.0e-5, high: 1.0e-4, log: true}"),
        ("train.epochs", {"low": 0, "high": 2, "log": True}, "log: true needs a low above 0, got 0"),
        ("train.epochs", {"low": 1, "high": 2, "log": True, "step": 1}, "log and step exclude each other"),
        (
            "train.epochs",
            {"choices": [1, 2], "low": 1},
            "choices stand alone: remove low, high, log and step",
        ),
        ("train.epochs", {"choices": [1, 2, 1]}, "choices [1, 2, 1] repeat: give each once"),
        ("train.num_cycles.low", {"low": 1.5, "high": 4}, "expected a whole number, got 1.5"),
        ("train.seeds", {"choices": [[1], [2]]}, "must be the same in all trials, or they can't be compared"),
        ("data.dev", {"choices": ["a", "b"]}, "can't be searched; searchable are the keys of task, backbone"),
        ("output", {"choices": ["a", "b"]}, "can't be searched"),
    ],
)
def test_one_problem_in_words(tmp_path: Path, key: str, dimension: Any, message: str) -> None:
    found = refusals(tmp_path, {key.removesuffix(".low"): dimension})
    assert list(found) == [f"tune.space.{key}"] and found[f"tune.space.{key}"].startswith(message)


def test_keys_are_looked_at_together(tmp_path: Path) -> None:
    """Keys that exclude each other, keys of a section that is not there, and one that another key brings."""
    both = {
        "train.tokens_per_step": {"low": 256, "high": 512},
        "train.examples_per_step": {"low": 2, "high": 8},
    }
    assert list(refusals(tmp_path, both)) == ["train"]
    alone = {"train.adversarial.epsilon": {"low": 0.5, "high": 1}}
    assert list(refusals(tmp_path, alone)) == ["train.adversarial.method"]
    axes(config(tmp_path, alone | {"train.adversarial.method": {"choices": ["fgm", "pgd"]}}))
    axes(config(tmp_path, {"train.adversarial": {"choices": [None, {"method": "fgm"}]}}))
    axes(config(tmp_path, {"data.train": {"choices": ["a.jsonl", {"path": "b.csv", "format": "csv"}]}}))


def test_nothing_to_search(tmp_path: Path) -> None:
    assert list(refusals(tmp_path, {})) == ["tune.space"]
    assert list(refusals(tmp_path, {}, tune=None)) == ["tune.space"]


def test_changed_values(tmp_path: Path) -> None:
    plain = config(tmp_path, {})
    other = changed(plain, {"train.epochs": 7, "data.dev.format": "csv", "task.head": "softmax"})
    assert (other.train.epochs, other.task.model_dump()["head"]) == (7.0, "softmax")
    assert other.data.dev is not None and (other.data.dev.path, other.data.dev.format) == ("dev.jsonl", "csv")
    assert changed(plain, {}) == plain
    back = changed(other, {"train.epochs": 3, "data.dev": "dev.jsonl", "task.head": "crf"})
    assert config_tree(back) == config_tree(plain)
    with pytest.raises(ConfigError, match=r"train.epochs: must be greater than 0.0, got 0"):
        changed(plain, {"train.epochs": 0})
