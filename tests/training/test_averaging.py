from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from small_models import add_gradients, small_model, weights
from wenmai.config.train import TrainConfig
from wenmai.errors import ConfigError
from wenmai.tasks.model import Model
from wenmai.training.averaging import Average, build_average
from wenmai.training.freezing import freeze
from wenmai.training.optimizer import build_optimizer, finish_gradients

TOTAL = 8


def built(model: Model, **train: Any) -> Average:
    average = build_average(model, TrainConfig(**train), TOTAL)
    assert average is not None
    return average


def learn(
    model: Model, optimizer: torch.optim.Optimizer, average: Average, steps: range
) -> list[dict[str, Tensor]]:
    """The weights after each step."""
    seen = []
    for step in steps:
        finish_gradients(optimizer, add_gradients(model, step), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(step + 1)
        seen.append(weights(model))
    return seen


def optimizer_of(model: Model) -> torch.optim.Optimizer:
    return build_optimizer(model, TrainConfig(learning_rate=0.01))


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, msg=name)


def test_no_average_without_being_asked_for() -> None:
    assert build_average(small_model(), TrainConfig(), TOTAL) is None


def test_ema_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, get_ema_multi_avg_fn(0.75))
    for step, value in enumerate([4.0, 8.0, 0.0], start=1):
        nn.init.constant_(model.weight, value)
        average.update(step)
    # 4, then 0.75 * 4 + 0.25 * 8 = 5, then 0.75 * 5
    assert average.state_for_saving()["weight"].item() == pytest.approx(3.75)


def test_ema_of_a_training() -> None:
    model = small_model()
    average = built(model, ema_decay=0.9)
    seen = learn(model, optimizer_of(model), average, range(5))
    expected = seen[0]
    for later in seen[1:]:
        expected = {name: 0.9 * old + 0.1 * later[name] for name, old in expected.items()}
    saved = average.state_for_saving()
    for name, tensor in expected.items():
        torch.testing.assert_close(saved[name], tensor)


@pytest.mark.parametrize("start", [3, 0.375])
def test_swa_is_the_mean_of_all_later_weights(start: float) -> None:
    model = small_model()
    average = built(model, swa_start=start)
    seen = learn(model, optimizer_of(model), average, range(TOTAL))[3:]
    saved = average.state_for_saving()
    assert saved["n_averaged"].item() == 5
    for name in seen[0]:
        torch.testing.assert_close(saved[name], torch.stack([later[name] for later in seen]).mean(dim=0))


def test_applied_inside_and_trained_weights_bit_for_bit_outside() -> None:
    model = small_model()
    average = built(model, ema_decay=0.5)
    optimizer = optimizer_of(model)
    trained = learn(model, optimizer, average, range(4))[-1]
    averaged = {name: tensor.clone() for name, tensor in average.state_for_saving().items()}
    moments = [slot.clone() for state in optimizer.state.values() for slot in state.values()]
    with average.applied():
        inside = weights(model)
        assert_same({**inside, "n_averaged": averaged["n_averaged"]}, averaged)
        assert any(not torch.equal(inside[name], trained[name]) for name in trained)
    assert_same(weights(model), trained)
    assert_same(average.state_for_saving(), averaged)
    after = [slot for state in optimizer.state.values() for slot in state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, after, strict=True))


def test_an_error_inside_puts_the_trained_weights_back() -> None:
    model = small_model()
    average = built(model, ema_decay=0.5)
    trained = learn(model, optimizer_of(model), average, range(3))[-1]
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert_same(weights(model), trained)


def test_looking_at_the_average_changes_nothing_that_follows() -> None:
    straight, looking = small_model(), small_model()
    averages = [built(model, ema_decay=0.9) for model in (straight, looking)]
    optimizers = [optimizer_of(model) for model in (straight, looking)]
    learn(straight, optimizers[0], averages[0], range(6))
    for step in range(6):
        learn(looking, optimizers[1], averages[1], range(step, step + 1))
        with averages[1].applied():
            weights(looking)
    assert_same(weights(looking), weights(straight))
    assert_same(averages[1].state_for_saving(), averages[0].state_for_saving())


def test_before_the_first_average_nothing_changes() -> None:
    model = small_model()
    average = built(model, swa_start=5)
    trained = learn(model, optimizer_of(model), average, range(5))[-1]
    with average.applied():
        assert_same(weights(model), trained)


def test_shared_embeddings_stay_shared() -> None:
    model = small_model()
    average = built(model, ema_decay=0.5)
    learn(model, optimizer_of(model), average, range(3))
    hidden, mask = torch.ones(1, 2, model.backbone.hidden_size), torch.ones(1, 2)
    outside = model.head(hidden, mask)["logits"]
    with average.applied():
        assert model.head._tied[0] is model.backbone.word_embeddings
        fresh = small_model()
        fresh.load_state_dict(model.state_dict())
        inside = model.head(hidden, mask)["logits"]
        torch.testing.assert_close(inside, fresh.head(hidden, mask)["logits"], rtol=0, atol=0)
    assert not torch.equal(inside, outside)
    assert sum("word_embeddings" in name for name in average.state_for_saving()) == 1


def test_buffers_stay_those_of_the_model() -> None:
    model = nn.BatchNorm1d(2)
    average = Average(model, get_ema_multi_avg_fn(0.5))
    for step in range(1, 4):
        model(torch.randn(4, 2, generator=torch.Generator().manual_seed(step)) + 5)
        average.update(step)
    running = model.running_mean.clone()
    with average.applied():
        assert torch.equal(model.running_mean, running)
    assert average.state_for_saving().keys() == {"weight", "bias", "n_averaged"}


def test_frozen_parameters_need_no_average() -> None:
    model, config = small_model(), TrainConfig(ema_decay=0.5, freeze=["backbone.*"])
    freeze(model, config)
    average = build_average(model, config, TOTAL)
    assert average is not None
    assert {name.partition(".")[0] for name in average.state_for_saving()} == {"head", "n_averaged"}


@pytest.mark.parametrize("train", [{"ema_decay": 0.9}, {"swa_start": 2}])
def test_resuming_is_exact(train: dict[str, Any], tmp_path: Path) -> None:
    unbroken = small_model()
    kept = built(unbroken, **train)
    optimizer = optimizer_of(unbroken)
    learn(unbroken, optimizer, kept, range(4))
    save_file({**kept.state_for_saving()}, tmp_path / "average.safetensors")
    resumed = small_model(seed=9)
    resumed.load_state_dict(unbroken.state_dict())
    other = optimizer_of(resumed)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    average = built(resumed, **train)
    average.load_state(load_file(tmp_path / "average.safetensors"))
    assert_same(average.state_for_saving(), kept.state_for_saving())
    for model, its_optimizer, its_average in ((unbroken, optimizer, kept), (resumed, other, average)):
        learn(model, its_optimizer, its_average, range(4, TOTAL))
    assert_same(average.state_for_saving(), kept.state_for_saving())
    assert average.state_for_saving()["n_averaged"].item() == (TOTAL if "ema_decay" in train else TOTAL - 2)


def test_a_state_of_another_model_is_refused() -> None:
    state = built(small_model(), ema_decay=0.9).state_for_saving()
    with pytest.raises(RuntimeError, match="size mismatch"):
        built(small_model(), ema_decay=0.9).load_state({name: torch.zeros(3) for name in state})
    with pytest.raises(KeyError, match=r"layer\.3"):
        built(small_model(layers=4), ema_decay=0.9).load_state(state)


def test_no_step_left_to_average() -> None:
    with pytest.raises(ConfigError, match=r"train.swa_start: 8 leaves none of the run's 8 steps"):
        build_average(small_model(), TrainConfig(swa_start=8), TOTAL)
