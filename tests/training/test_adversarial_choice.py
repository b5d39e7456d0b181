"""What adversarial training moves, from which step on, and that the trainer and the page agree with it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adversarial_references import (
    WORDS,
    Gradients,
    Toy,
    adversary,
    assert_same,
    differ,
    length,
    make,
    moved_model,
    sum_gradients,
)
from safetensors.torch import load_file

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.errors import ConfigError
from wenmai.training.trainer import train

METHODS = ["fgm", "pgd", "freelb", "awp"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


@pytest.fixture
def toy(backbone: Path) -> Toy:
    return make("ner-softmax", backbone)


# --- which weights ---


def test_patterns_choose_the_weights(toy: Toy) -> None:
    patterns = ["*.layer.0.attention.*.weight", "head.*"]
    names = [
        name
        for name, _ in toy.model.named_parameters()
        if name.startswith("head.") or (".layer.0.attention." in name and name.endswith(".weight"))
    ]
    assert len(names) == 7  # query, key, value, output, its norm; the head's weight and bias
    clean = sum_gradients(toy.model, toy)
    whole = math.sqrt(sum(length(clean[name]) ** 2 for name in names))
    moves = {name: 0.5 * clean[name] / whole for name in names}
    other = sum_gradients(moved_model(toy.model, moves), toy)
    found = toy.adversarial(method="fgm", epsilon=0.5, parameters=patterns)
    assert_same(found, {name: clean[name] + other[name] for name in clean})


def test_awp_patterns(toy: Toy) -> None:
    assert differ(toy.adversarial(method="awp"), toy.adversarial(method="awp", parameters=["head.*"]))


@pytest.mark.parametrize("method", ["fgm", "pgd", "awp"])
def test_a_pattern_that_matches_nothing(toy: Toy, method: str) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.adversarial\.parameters: '\*word_embedding\.\*' matches none"
    ):
        adversary(toy.model, method=method, parameters=["head.*", "*word_embedding.*"])
    with pytest.raises(ConfigError, match=r"train\.adversarial\.parameters: no pattern"):
        adversary(toy.model, method=method, parameters=[])


@pytest.mark.parametrize("method", ["fgm", "pgd", "awp"])
def test_what_does_not_train_is_refused(toy: Toy, method: str) -> None:
    for p in toy.model.backbone.parameters():
        p.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"train\.adversarial\.parameters: .*do not train"):
        adversary(toy.model, method=method, parameters=["*word_embeddings*"])
    if method == "awp":
        adversary(toy.model, method=method)  # the head's matrix still trains
        toy.model.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"train\.adversarial\.parameters: .* trains?\b|do not train"):
        adversary(toy.model, method=method)


def test_freelb_takes_no_patterns(toy: Toy) -> None:
    with pytest.raises(ConfigError, match=r"train\.adversarial\.parameters: given, but freelb"):
        adversary(toy.model, method="freelb", parameters=["*word_embeddings*"])


def test_freelb_works_on_frozen_words(toy: Toy) -> None:
    expected = toy.adversarial(method="freelb")
    toy.model.backbone.word_embeddings.weight.requires_grad_(False)
    found = toy.adversarial(method="freelb")
    del expected[WORDS]
    assert_same(found, expected)


@pytest.mark.parametrize("method", ["fgm", "awp"])
def test_weights_frozen_for_now_do_not_move(toy: Toy, method: str) -> None:
    """Gradual unfreezing: built while all trains, called while the backbone does not."""
    built = adversary(toy.model, method=method)
    head_only = adversary(toy.model, method=method, parameters=["head.*weight"])
    toy.model.backbone.requires_grad_(False)
    built(toy.step())
    found = toy.gradients()
    if method == "fgm":
        toy.step().run()
    else:
        head_only(toy.step())
    assert_same(found, toy.gradients())


# --- when ---


@pytest.mark.parametrize("start, first", [(None, 0), (3, 3), (0.25, 2), (0.3, 3), (10, 10)])
def test_start(toy: Toy, start: float | None, first: int) -> None:
    built = adversary(toy.model, method="fgm", start=start)
    assert [built.active(step, 8) for step in range(12)] == [step >= first for step in range(12)]


def run(folder: Path, backbone: Path, **train_section: Any) -> Gradients:
    """The weights after three steps, which the trainer itself has made."""
    config = toy_config(folder, "ner-softmax", backbone, max_steps=3, **train_section)
    return load_file(train(config) / "checkpoint" / "model.safetensors")


def test_the_trainer_uses_it(backbone: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", backbone)
    for method in METHODS:
        size = {"epsilon": 0.02, "step_size": 0.01} if method == "awp" else {}
        moved = run(tmp_path / method, backbone, adversarial={"method": method, **size})
        assert differ(plain, moved)
    late = run(tmp_path / "late", backbone, adversarial={"method": "fgm", "start": 3})
    assert all(torch.equal(late[name], value) for name, value in plain.items())
    later = run(tmp_path / "later", backbone, adversarial={"method": "fgm", "start": 2})
    assert differ(plain, later)


def test_the_page_shows_what_works(toy: Toy) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "adversarial-training.md").read_text(
        encoding="utf-8"
    )
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    rows = re.findall(r"^\| `(\w+)` \|.*`(epsilon: .*)` \|$", page, re.MULTILINE)
    given = [block["train"]["adversarial"] for block in blocks]
    given += [{"method": method} | yaml.safe_load(f"{{{sizes}}}") for method, sizes in rows]
    assert {config["method"] for config in given[len(blocks) :]} == set(METHODS)
    for config in given:
        assert differ(toy.adversarial(**config), sum_gradients(toy.model, toy))
