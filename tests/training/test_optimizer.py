from __future__ import annotations

import importlib.util
import math
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from small_models import add_gradients, small_model, weights
from wenmai.config.train import TrainConfig
from wenmai.errors import ConfigError, UserError
from wenmai.heads.box_embeddings import BoxEmbeddings
from wenmai.tasks.model import Model
from wenmai.training.freezing import freeze
from wenmai.training.optimizer import build_optimizer, finish_gradients, parameter_groups, set_learning_rates

needs_lion = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None, reason="needs the extra optimizers"
)
OPTIMIZERS = ["adamw", "adafactor", pytest.param("lion", marks=needs_lion)]

WORDS = "backbone.model.embeddings.word_embeddings.weight"
QUERY = "backbone.model.encoder.layer.1.attention.self.query.weight"


def group_of(model: Model, **train: Any) -> dict[str, dict[str, Any]]:
    """Parameter name -> its group."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, TrainConfig(**train))
    found = [(name_of[id(p)], group) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found)), "a parameter in two groups"
    return dict(found)


def rates_of(model: Model, **train: Any) -> dict[str, float]:
    return {name: group["lr"] for name, group in group_of(model, **train).items()}


def after_steps(steps: int = 3, **train: Any) -> dict[str, Tensor]:
    """The weights after so many steps, clipped as the configuration says."""
    model, config = small_model(), TrainConfig(**{"learning_rate": 0.01, **train})
    optimizer = build_optimizer(model, config)
    for step in range(steps):
        finish_gradients(optimizer, add_gradients(model, step), config.max_grad_norm, l1=config.l1)
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


# --- groups


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    model = small_model()
    groups = group_of(model, learning_rate=0.1, head_learning_rate=0.3, weight_decay=0.2)
    assert groups.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        assert groups[name]["part"] == part
        assert groups[name]["name"] == f"{part}.decay" if parameter.ndim > 1 else f"{part}.no_decay"
        assert groups[name]["lr"] == groups[name]["base_lr"] == {"backbone": 0.1, "head": 0.3}[part]
        assert groups[name]["weight_decay"] == (0.2 if parameter.ndim > 1 else 0.0)


def test_the_head_learns_like_the_backbone_unless_it_has_a_rate() -> None:
    assert set(rates_of(small_model(), learning_rate=0.1).values()) == {0.1}


def test_layer_decay() -> None:
    rates = rates_of(small_model(), learning_rate=0.08, head_learning_rate=0.5, layer_decay=0.5)
    expected = {"embeddings": 0.01, "layer.0": 0.02, "layer.1": 0.04, "layer.2": 0.08}
    for name, rate in rates.items():
        part = next((part for part in expected if f".{part}." in name), None)
        assert rate == pytest.approx(expected[part] if part else 0.5), name
    names = {group["name"] for group in group_of(small_model(), layer_decay=0.5).values()}
    assert {"backbone.embeddings.decay", "backbone.layer.1.no_decay", "head.no_decay"} <= names


def test_what_the_head_adds_to_the_embeddings_learns_like_them() -> None:
    model = small_model()
    model.head.boxes = BoxEmbeddings(8)
    for options, rate in ({}, 0.08), ({"layer_decay": 0.5}, 0.01):
        rates = rates_of(model, learning_rate=0.08, head_learning_rate=0.5, **options)
        found = {name: value for name, value in rates.items() if name.startswith("head.boxes.")}
        assert len(found) == 4
        assert all(value == pytest.approx(rate) for value in found.values())


def test_a_norm_behind_the_layers_learns_like_the_top_one() -> None:
    model = small_model()
    model.backbone.model.final_norm = torch.nn.LayerNorm(8)
    model.backbone.model.encoder.relative_embeddings = torch.nn.Embedding(4, 8)
    rates = rates_of(model, learning_rate=1.0, layer_decay=0.5)
    assert rates["backbone.model.final_norm.weight"] == 1.0
    assert rates["backbone.model.encoder.relative_embeddings.weight"] == 0.125


def test_layer_decay_needs_layers() -> None:
    model = small_model()
    model.backbone.model.encoder = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"train.layer_decay: needs to tell the layers apart.*BertModel"):
        parameter_groups(model, TrainConfig(layer_decay=0.9))


def test_rates_by_pattern_and_the_first_one_counts() -> None:
    rates = {"*.word_embeddings.*": 0.5, "*.embeddings.*": 0.25, "head.norm.*": 0.125}
    groups = group_of(small_model(), learning_rate=1.0, layer_decay=0.1, learning_rates=rates)
    assert groups[WORDS]["lr"] == 0.5
    assert groups["backbone.model.embeddings.position_embeddings.weight"]["lr"] == 0.25
    assert groups["backbone.model.embeddings.LayerNorm.bias"]["name"] == "*.embeddings.*.no_decay"
    assert groups["head.norm.weight"]["lr"] == 0.125
    assert groups["head.dense.weight"]["lr"] == 1.0
    assert groups[QUERY]["lr"] == pytest.approx(0.1)


def test_patterns_that_decide_nothing() -> None:
    rates = {"*.embeddings.*": 0.1, "*.word_embeddings.*": 0.2, "*.atention.*": 0.3, "*.query.*": 0.4}
    model = small_model()
    with pytest.raises(ConfigError) as caught:
        parameter_groups(model, TrainConfig(learning_rates=rates))
    (problem,) = caught.value.problems
    assert problem.place == "train.learning_rates.*.atention.*"
    assert ".attention." in problem.message.partition("nearest names are")[2]
    del rates["*.atention.*"]
    config = TrainConfig(learning_rates=rates, freeze=["*.query.*"])
    freeze(model, config)
    with pytest.raises(ConfigError) as caught:
        parameter_groups(model, config)
    shadowed, frozen = caught.value.problems
    assert shadowed.place == "train.learning_rates.*.word_embeddings.*" and "before" in shadowed.message
    assert frozen.place == "train.learning_rates.*.query.*" and "train.freeze" in frozen.message


def test_a_rate_of_0_is_no_group() -> None:
    model, config = small_model(), TrainConfig(learning_rates={"*.embeddings.*": 0})
    freeze(model, config)
    groups = parameter_groups(model, config)
    assert {group["part"] for group in groups} == {"backbone", "head"}
    assert all(p.requires_grad for group in groups for p in group["params"])


def test_rates_are_set_and_told_by_part() -> None:
    config = TrainConfig(learning_rate=0.2, head_learning_rate=0.4, layer_decay=0.5)
    optimizer = build_optimizer(small_model(), config)
    told = set_learning_rates(optimizer, 0.5)
    assert told == pytest.approx(
        {
            "backbone.embeddings": 0.0125,
            "backbone.layer.0": 0.025,
            "backbone.layer.1": 0.05,
            "backbone.layer.2": 0.1,
            "head": 0.2,
        }
    )
    assert all(group["lr"] == told[group["part"]] for group in optimizer.param_groups)
    set_learning_rates(optimizer, 1.0)
    assert {group["lr"] for group in optimizer.param_groups if group["part"] == "head"} == {0.4}


# --- optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_step_by_hand(name: str) -> None:
    """From a gradient g of 1e-3 everywhere, at weights of 0.5, with rate 0.1 and weight decay 0.2."""
    model = small_model()
    config = TrainConfig(
        optimizer=name,
        learning_rate=0.1,
        weight_decay=0.2,
        adam_beta1=0.9,
        adam_beta2=0.99,
        adam_epsilon=1e-3,
    )
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.5)
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    # Adam: g / (sqrt(g * g) + epsilon); Adafactor: the size of the weights, of an update of size 1; Lion: the sign
    moved = 0.1 * {"adamw": 0.5, "adafactor": 0.5, "lion": 1.0}[name]
    for parameter in model.parameters():
        kept = 0.5 * (1 - 0.1 * 0.2) if parameter.ndim > 1 else 0.5
        expected = torch.full_like(parameter, kept - moved)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["adamw", pytest.param("lion", marks=needs_lion)])
@pytest.mark.parametrize("beta", [{"adam_beta1": 0.5}, {"adam_beta2": 0.5}])
def test_both_betas_count(name: str, beta: dict[str, float]) -> None:
    plain, other = after_steps(optimizer=name), after_steps(optimizer=name, **beta)
    assert not torch.equal(plain[QUERY], other[QUERY])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_tensors_only_and_goes_on_exactly(name: str) -> None:
    def run(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            finish_gradients(optimizer, add_gradients(model, step), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    config = TrainConfig(optimizer=name, learning_rate=0.01)
    unbroken, resumed = small_model(), small_model(seed=1)
    one, other = build_optimizer(unbroken, config), build_optimizer(resumed, config)
    run(unbroken, one, range(3))
    state = deepcopy(one.state_dict()["state"])
    assert all(isinstance(slot, Tensor) for slots in state.values() for slot in slots.values())
    resumed.load_state_dict(unbroken.state_dict())
    other.load_state_dict({"state": state, "param_groups": other.state_dict()["param_groups"]})
    run(unbroken, one, range(3, 6))
    run(resumed, other, range(3, 6))
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(resumed).items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_gradient_stay(name: str) -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.5))
    before = weights(model)
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            parameter.grad = torch.ones_like(parameter)
    finish_gradients(optimizer, 1, 1.0, l1=0.1)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("head."), name


def test_lion_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(UserError, match=r'train.optimizer: lion .* pip install "wenmai\[optimizers\]"'):
        build_optimizer(small_model(), TrainConfig(optimizer="lion"))


# --- the last touch to the gradients


def reference(terms: float, max_norm: float | None, l1: float = 0.0) -> tuple[dict[str, Tensor], float]:
    """Mean gradients plus the penalty's by autograd, shortened by torch, and the norm before."""
    model = small_model()
    add_gradients(model, 0)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad /= terms
    penalty = sum(parameter.abs().sum() for parameter in model.parameters() if parameter.ndim > 1)
    (l1 * penalty).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf if max_norm is None else max_norm)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, float(norm)


@pytest.mark.parametrize("l1", [0.0, 0.02])
@pytest.mark.parametrize("max_norm", [None, 1e-3, 0.05, 1e3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finished_gradients_are_those_of_the_mean(name: str, max_norm: float | None, l1: float) -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, learning_rate=0.0001))
    terms = add_gradients(model, 0)
    norm = finish_gradients(optimizer, terms, max_norm, l1=l1)
    optimizer.step()  # the fused one divides here, in place
    expected, expected_norm = reference(terms, max_norm, l1)
    assert norm == pytest.approx(expected_norm, rel=1e-5)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=2e-5, atol=1e-9, msg=key)


def test_without_clipping_the_division_is_exact() -> None:
    folded, plain = small_model(), small_model()
    terms = add_gradients(folded, 0)
    assert terms == add_gradients(plain, 0)
    one, other = (build_optimizer(model, TrainConfig(weight_decay=0.1)) for model in (folded, plain))
    finish_gradients(one, terms, None)
    for parameter in plain.parameters():
        assert parameter.grad is not None
        parameter.grad /= terms
    one.step()
    other.step()
    expected = weights(plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folded).items())


def test_cutting_a_step_changes_neither_penalty_nor_clipping() -> None:
    """The same gradient sums, whether they came at once or in parts, of half as many terms each."""
    whole, cut = small_model(), small_model()
    results = []
    for model, times in ((whole, 1), (cut, 2)):
        optimizer = build_optimizer(model, TrainConfig(learning_rate=0.01))
        terms = sum(add_gradients(model, 0) for _ in range(times))
        norm = finish_gradients(optimizer, terms, 0.05, l1=0.02)
        optimizer.step()
        results.append((norm, weights(model)))
    (norm, expected), (other_norm, found) = results
    assert other_norm == pytest.approx(norm, rel=1e-6)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)


def test_the_divisor_is_for_one_step() -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(learning_rate=0.01))
    finish_gradients(optimizer, add_gradients(model, 0), 1.0)
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    assert all(torch.equal(p.grad, torch.full_like(p, 0.5)) for p in model.parameters() if p.grad is not None)


def test_l1_and_clipping_do_something_to_what_is_learned() -> None:
    plain = after_steps(max_grad_norm=None)
    shrunk = after_steps(steps=30, l1=0.5)
    assert shrunk[QUERY].abs().sum() < 0.5 * plain[QUERY].abs().sum()
    # adamw's epsilon makes the length of the gradient count
    clipped = after_steps(max_grad_norm=1e-6)
    assert (clipped[QUERY] - small_model().get_parameter(QUERY)).abs().max() < 1e-3
    assert (plain[QUERY] - small_model().get_parameter(QUERY)).abs().max() > 1e-2


def test_a_step_without_terms_or_gradients() -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig())
    assert finish_gradients(optimizer, 0, 1.0, l1=0.1) == 0.0
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert finish_gradients(optimizer, 0, 1.0) == 0.0
    before = weights(model)
    optimizer.step()
    assert all(torch.isfinite(tensor).all() for tensor in weights(model).values())
    assert torch.equal(weights(model)["head.bias"], before["head.bias"])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(bad: float) -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig())
    terms = add_gradients(model, 0)
    gradient = model.get_parameter(QUERY).grad
    assert gradient is not None
    gradient[0, 0] = bad
    assert not math.isfinite(finish_gradients(optimizer, terms, 1.0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_under_loss_scaling_the_result_is_the_same(name: str) -> None:
    found = []
    for enabled in (False, True):
        model = small_model()
        optimizer = build_optimizer(model, TrainConfig(optimizer=name, learning_rate=0.01))
        scaler = torch.amp.GradScaler("cpu", enabled=enabled, init_scale=1024.0)
        for step in range(3):
            terms = add_gradients(model, step)
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad *= 1024.0 if enabled else 1.0
            if enabled:
                scaler.scale(torch.zeros(()))  # so that it has a scale, as after a backward
            scaler.unscale_(optimizer)
            finish_gradients(optimizer, terms, 0.05, l1=0.01)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        found.append(weights(model))
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=0, atol=0, msg=key)


def test_an_overflow_under_loss_scaling_skips_the_step() -> None:
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(learning_rate=0.01))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(model)
    scaler.scale(torch.zeros(()))
    terms = add_gradients(model, 0)
    gradient = model.get_parameter(QUERY).grad
    assert gradient is not None
    gradient[0, 0] = math.inf
    scaler.unscale_(optimizer)
    assert finish_gradients(optimizer, terms, 1.0) == math.inf
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_shared_out_weights_give_the_same(tmp_path: Path) -> None:
    whole, shards = small_model(shared=False), small_model(shared=False)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        fully_shard(shards, mesh=init_device_mesh("cpu", (1,)))
        norms = []
        for model in (whole, shards):
            optimizer = build_optimizer(model, TrainConfig(learning_rate=0.01))
            terms = add_gradients(model, 0)
            norms.append(finish_gradients(optimizer, terms, 0.05))
            optimizer.step()
        found = {name: p.detach().full_tensor() for name, p in shards.named_parameters()}
    finally:
        dist.destroy_process_group()
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)
