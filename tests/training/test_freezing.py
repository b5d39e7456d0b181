from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from small_models import add_gradients, small_model, weights
from wenmai.config.train import TrainConfig
from wenmai.errors import ConfigError
from wenmai.heads.contrastive import ContrastiveHead
from wenmai.tasks.model import Model
from wenmai.training.freezing import apply_unfreezing, freeze, unfrozen_layers
from wenmai.training.optimizer import build_optimizer, finish_gradients

EMBEDDINGS, ATTENTION = "backbone.model.embeddings.*", "*.attention.*"


def learning(model: Model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def parts(model: Model) -> set[str]:
    """What of the model learns: ``head``, ``embeddings``, and the numbers of the layers."""
    found = set()
    for name in learning(model):
        words = name.split(".")
        found.add("head" if words[0] == "head" else words[4] if "layer" in words else words[2])
    return found


def learn(model: Model, steps: range, total: int, **train: Any) -> list[set[str]]:
    """Trains, and tells after every step which parameters it changed."""
    config = TrainConfig(learning_rate=0.01, weight_decay=0.5, **train)
    freeze(model, config)
    optimizer = build_optimizer(model, config)
    changed = []
    for step in steps:
        before = weights(model)
        apply_unfreezing(model, optimizer, config.unfreeze_every, step, total)
        finish_gradients(optimizer, add_gradients(model, step), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        changed.append({name for name, p in model.named_parameters() if not torch.equal(p, before[name])})
    return changed


@pytest.mark.parametrize(
    "freezing", [{"freeze": [EMBEDDINGS, ATTENTION]}, {"learning_rates": {EMBEDDINGS: 0}}]
)
def test_frozen_parameters_do_not_change_even_by_weight_decay(freezing: dict[str, Any]) -> None:
    model = small_model()
    changed = set.union(*learn(model, range(3), 3, **freezing))
    still = {name for name, _ in model.named_parameters()} - changed
    expected = {
        n for n in weights(model) if "embeddings" in n or (".attention." in n and "freeze" in freezing)
    }
    assert still == expected


def test_nothing_is_frozen_unasked() -> None:
    model = small_model()
    freeze(model, TrainConfig())
    assert learning(model) == set(weights(model))


def test_the_first_pattern_decides_whether_the_rate_is_0() -> None:
    model = small_model()
    freeze(model, TrainConfig(learning_rates={"*.LayerNorm.*": 1e-3, EMBEDDINGS: 0}))
    assert {name for name in weights(model) if "embeddings" in name} & learning(model) == {
        "backbone.model.embeddings.LayerNorm.weight",
        "backbone.model.embeddings.LayerNorm.bias",
    }


def test_a_pattern_that_fits_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        freeze(small_model(), TrainConfig(freeze=["backbone.*", "*.word_embedding.*", "haed.*"]))
    first, second = caught.value.problems
    assert first.place == second.place == "train.freeze"
    assert "'*.word_embedding.*' fits none of the model's" in first.message
    assert "backbone.model.embeddings.word_embeddings.weight" in first.message
    assert "head.bias" in second.message


@pytest.mark.parametrize(
    ("train", "key"),
    [({"freeze": ["*"]}, "train.freeze"), ({"learning_rates": {"*": 0}}, "train.learning_rates")],
)
def test_something_must_learn(train: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: no parameter is left that learns"):
        freeze(small_model(), TrainConfig(**train))


def test_unfrozen_layers() -> None:
    assert [unfrozen_layers(step, 2, 3) for step in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert unfrozen_layers(1000, 1, 12) == 13


@pytest.mark.parametrize("every", [2, 0.2])
def test_layers_join_from_the_top(every: float) -> None:
    model = small_model()
    changed = learn(model, range(10), 10, unfreeze_every=every)
    layers = [{"head"}, {"head", "2"}, {"head", "2", "1"}, {"head", "2", "1", "0"}]
    expected = [*layers, {*layers[-1], "embeddings"}]
    for step, names in enumerate(changed):
        words = [name.split(".") for name in names]
        moved = {w[0] if w[0] == "head" else w[4] if "layer" in w else w[2] for w in words}
        assert moved == expected[step // 2], step


def test_unfreezing_is_a_function_of_the_step_alone() -> None:
    config = TrainConfig(unfreeze_every=2)
    walked, model = small_model(), small_model()
    optimizers = [build_optimizer(one, config) for one in (walked, model)]
    seen = []
    for step in range(10):
        apply_unfreezing(walked, optimizers[0], 2, step, 10)
        seen.append(parts(walked))
    for step in (7, 0, 9, 4, 2):
        apply_unfreezing(model, optimizers[1], 2, step, 10)
        assert parts(model) == seen[step]


def test_unfreezing_leaves_what_is_frozen_for_good() -> None:
    model, config = small_model(), TrainConfig(freeze=[ATTENTION], unfreeze_every=1)
    freeze(model, config)
    optimizer = build_optimizer(model, config)
    for step in range(6):
        apply_unfreezing(model, optimizer, config.unfreeze_every, step, 6)
        assert not any(".attention." in name for name in learning(model))
    assert parts(model) == {"head", "2", "1", "0", "embeddings"}


def test_without_unfreezing_nothing_is_touched() -> None:
    model, config = small_model(), TrainConfig()
    optimizer = build_optimizer(model, config)
    apply_unfreezing(model, optimizer, config.unfreeze_every, 0, 10)
    assert learning(model) == set(weights(model))


def test_resuming_while_layers_join_is_exact() -> None:
    def run(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            apply_unfreezing(model, optimizer, 2, step, 9)
            finish_gradients(optimizer, add_gradients(model, step), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    config = TrainConfig(learning_rate=0.01, unfreeze_every=2)
    unbroken, resumed = small_model(), small_model(seed=5)
    one, other = build_optimizer(unbroken, config), build_optimizer(resumed, config)
    run(unbroken, one, range(5))
    resumed.load_state_dict(unbroken.state_dict())
    other.load_state_dict(deepcopy(one.state_dict()))
    run(unbroken, one, range(5, 9))
    run(resumed, other, range(5, 9))
    expected: dict[str, Tensor] = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())


def test_unfreezing_needs_layers_and_a_head_that_learns() -> None:
    model = small_model()
    model.backbone.model.encoder = torch.nn.Identity()
    with pytest.raises(
        ConfigError, match=r"train.unfreeze_every: needs to tell the layers apart.* BertModel"
    ):
        freeze(model, TrainConfig(unfreeze_every=2))
    bare = Model(small_model().backbone, ContrastiveHead(pooling="mean", temperature=0.05))
    assert not list(bare.head.parameters())
    with pytest.raises(ConfigError, match=r"train.unfreeze_every: .* ContrastiveHead has nothing that does"):
        freeze(bare, TrainConfig(unfreeze_every=2))
