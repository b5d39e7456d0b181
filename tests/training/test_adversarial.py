"""Adversarial gradients equal references in plain loops, whatever the micro-batches, and weights come back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from adversarial_references import (
    WORDS,
    Toy,
    adversary,
    assert_same,
    differ,
    make,
    reference_awp,
    reference_fgm,
    reference_freelb,
    reference_pgd,
)
from torch import Tensor

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS
from wenmai.training.parallel import Parallel
from wenmai.training.perturbation import climbed

METHODS = ["fgm", "pgd", "freelb", "awp"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


@pytest.fixture
def toy(backbone: Path) -> Toy:
    return make("ner-softmax", backbone)


# --- the methods ---


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_fgm(toy: Toy, epsilon: float) -> None:
    found = toy.adversarial(method="fgm", epsilon=epsilon, step_size=77.0, steps=5)
    assert_same(found, reference_fgm(toy, epsilon))


@pytest.mark.parametrize(
    "epsilon, step_size, steps", [(1.0, 0.3, 3), (0.4, 0.3, 3), (1.0, 0.6, 3), (1.0, 0.3, 1), (1.0, 0.2, 4)]
)
def test_pgd(toy: Toy, epsilon: float, step_size: float, steps: int) -> None:
    found = toy.adversarial(method="pgd", epsilon=epsilon, step_size=step_size, steps=steps)
    assert_same(found, reference_pgd(toy, epsilon, step_size, steps))


@pytest.mark.parametrize(
    "epsilon, step_size, steps", [(0.05, 0.02, 2), (0.03, 0.02, 2), (0.05, 0.01, 2), (0.05, 0.02, 1)]
)
def test_awp(toy: Toy, epsilon: float, step_size: float, steps: int) -> None:
    found = toy.adversarial(method="awp", epsilon=epsilon, step_size=step_size, steps=steps)
    assert_same(found, reference_awp(toy, epsilon, step_size, steps))


@pytest.mark.parametrize(
    "epsilon, step_size, steps", [(1.0, 0.3, 3), (0.2, 0.3, 3), (1.0, 0.6, 3), (1.0, 0.3, 1), (1.0, 0.3, 2)]
)
def test_freelb(toy: Toy, epsilon: float, step_size: float, steps: int) -> None:
    found = toy.adversarial(
        toy.step(micro=4), method="freelb", epsilon=epsilon, step_size=step_size, steps=steps
    )
    assert_same(found, reference_freelb(toy, epsilon, step_size, steps))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("option", [{"epsilon": 0.2}, {"step_size": 0.1}, {"steps": 1}])
def test_every_option_does_something(toy: Toy, method: str, option: dict[str, float]) -> None:
    plain = toy.adversarial(method=method)
    changed = toy.adversarial(method=method, **option)
    assert differ(plain, changed) == (method != "fgm" or "epsilon" in option)


def test_reported_loss(toy: Toy) -> None:
    """The clean one; FreeLB has none and reports the mean of its passes, which is higher."""
    clean, terms = toy.step().run()
    for method in ("fgm", "pgd", "awp"):
        assert adversary(toy.model, method=method)(toy.step(micro=2)) == (
            pytest.approx(clean, rel=1e-9),
            terms,
        )
    loss, found = adversary(toy.model, method="freelb")(toy.step(micro=2))
    assert loss > clean * 1.001 and found == terms


def test_adversarial_loss_is_higher(toy: Toy) -> None:
    """Each further pass of a method sees a higher loss than the clean one."""
    seen: list[float] = []

    def backward(loss: Tensor) -> None:
        seen.append(loss.item())
        loss.backward()

    for method in ("fgm", "pgd", "awp"):
        seen.clear()
        toy.adversarial(toy.step(backward=backward), method=method, epsilon=0.5, step_size=0.1)
        assert len(seen) == (2 if method == "fgm" else 4)
        assert seen == sorted(seen) and seen[-1] > 1.05 * seen[0]


def test_freelb_starts_from_the_rows_key(toy: Toy) -> None:
    step = toy.step()
    (batch,) = step.batches
    found = toy.adversarial(step, method="freelb")
    again = toy.adversarial(replace(step, batches=[dict(batch)]), method="freelb")
    assert all(torch.equal(found[name], gradient) for name, gradient in again.items())
    other = replace(step, batches=[batch | {"key": batch["key"] + 1}])
    assert differ(found, toy.adversarial(other, method="freelb"))
    with pytest.raises(KeyError, match="key"):
        adversary(toy.model, method="freelb")(
            replace(step, batches=[{name: value for name, value in batch.items() if name != "key"}])
        )


def test_freelb_starts_anywhere_in_its_ball(toy: Toy) -> None:
    """What goes through the model first: each number from U(-epsilon, epsilon) / sqrt(n), nothing on padding."""
    seen: list[Tensor] = []

    def forward(batch: dict[str, Tensor], purpose: Any) -> dict[str, Tensor]:
        seen.append(batch["perturbation"].detach())
        return toy.model(batch, purpose)  # type: ignore[no-any-return]

    step = toy.step(forward=forward)
    toy.adversarial(step, method="freelb", epsilon=0.7, steps=1)
    (move,), (batch,) = seen, step.batches
    for numbers, mask in zip(move, batch["attention_mask"].bool(), strict=True):
        assert not numbers[~mask].any()
        uniform = (numbers[mask] * math.sqrt(numbers[mask].numel()) / 0.7).flatten().sort().values
        assert (uniform - torch.linspace(-1, 1, len(uniform))).abs().max() < 5 / math.sqrt(len(uniform))
        assert uniform.abs().max() <= 1
    assert (move[0, :5] != move[1, :5]).all()


# --- what the result must not depend on ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["ner-crf", "classification", "embedding", "masked-lm"])
def test_micro_batches_do_not_show(name: str, method: str, backbone: Path) -> None:
    toy = make(name, backbone)
    size = {"epsilon": 0.02, "step_size": 0.01} if method == "awp" else {}
    whole = toy.adversarial(method=method, steps=2, **size)
    plain = toy.step()
    plain.run()
    assert differ(whole, toy.gradients())
    for micro in (1, 2, 4, 3):
        parts = toy.adversarial(toy.step(micro), method=method, steps=2, **size)
        assert_same(parts, whole)


@pytest.mark.parametrize("method", METHODS)
def test_all_at_once(method: str, backbone: Path) -> None:
    """Dropout and R-Drop as one padded batch; packed, in parts, with activations computed again."""
    toy = make("classification", backbone, dropout=0.1)
    size = {"epsilon": 0.02, "step_size": 0.01} if method == "awp" else {}
    toy.model.backbone.set_padding_free("off")
    whole = toy.adversarial(toy.step(r_drop=0.7), method=method, steps=2, **size)
    assert differ(whole, toy.adversarial(method=method, steps=2, **size))
    toy.model.backbone.set_padding_free("on")
    toy.model.backbone.enable_gradient_checkpointing()
    assert_same(toy.adversarial(toy.step(3, r_drop=0.7), method=method, steps=2, **size), whole)


@pytest.mark.parametrize("method", METHODS)
def test_loss_scaling_does_not_show(toy: Toy, method: str) -> None:
    plain = toy.adversarial(method=method)
    scaled = toy.adversarial(toy.step(backward=lambda loss: (loss * 1024).backward()), method=method)
    assert_same({name: gradient / 1024 for name, gradient in scaled.items()}, plain, tolerance=1e-12)


def process(rank: int, folder: Path, backbone: Path) -> None:
    """One of two processes: rows 0-4 as 3 + 2, or rows 5-7 as 2 + 1."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    parallel = Parallel(rank=rank, world=2, device=torch.device("cpu"))
    for name in ("ner-softmax", "embedding"):
        toy = make(name, backbone)
        for method in METHODS:
            step = toy.step((3, 2)[rank], (range(5), range(5, 8))[rank], parallel=parallel)
            loss, terms = adversary(toy.model, method=method)(step)
            parallel.sum_gradients(toy.model.parameters())
            result = parallel.sums(loss, terms), toy.gradients()
            if rank == 0:
                torch.save(result, folder / f"{name}-{method}.pt")
    torch.distributed.destroy_process_group()


def test_processes_do_not_show(backbone: Path, tmp_path: Path) -> None:
    # a fresh interpreter imports for longer than it computes, but threads for GPUs do not survive a fork
    how = "spawn" if torch.cuda.is_available() else "fork"
    torch.multiprocessing.start_processes(process, (tmp_path, backbone), nprocs=2, start_method=how)
    for name in ("ner-softmax", "embedding"):
        toy = make(name, backbone)
        for method in METHODS:
            (loss, terms), gradients = torch.load(tmp_path / f"{name}-{method}.pt")
            assert (pytest.approx(loss, rel=1e-9), terms) == adversary(toy.model, method=method)(toy.step())
            assert_same(gradients, toy.gradients())


@pytest.mark.parametrize("method", METHODS)
def test_a_process_without_examples(toy: Toy, method: str) -> None:
    assert adversary(toy.model, method=method)(toy.step(only=[])) == (0.0, 0)
    assert toy.gradients() == {}


# --- weights ---


@pytest.mark.parametrize("method", METHODS)
def test_weights_come_back_bit_for_bit(backbone: Path, method: str) -> None:
    toy = make("classification", backbone, dtype=torch.float32)
    before = copy.deepcopy(toy.model.state_dict())
    toy.adversarial(method=method, epsilon=3.0, step_size=1.7)
    after = toy.model.state_dict()
    assert all(
        torch.equal(after[name].view(torch.int32), value.view(torch.int32)) for name, value in before.items()
    )
    assert all(p.requires_grad for p in toy.model.parameters())


class Full(Exception):
    pass


@pytest.mark.parametrize("method", ["fgm", "pgd", "awp"])
def test_weights_come_back_after_an_error(toy: Toy, method: str) -> None:
    before = copy.deepcopy(toy.model.state_dict())
    calls = iter([True, False])

    def backward(loss: Tensor) -> None:
        if not next(calls):
            raise Full
        loss.backward()

    with pytest.raises(Full):
        toy.adversarial(toy.step(backward=backward), method=method)
    after = toy.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def scaled_by(factors: Iterator[float]) -> Callable[[Tensor], None]:
    return lambda loss: (loss * next(factors)).backward()


@pytest.mark.parametrize("method", METHODS)
def test_overflow_moves_nothing_and_stays_visible(toy: Toy, method: str) -> None:
    """As in fp16: what the scaler sees must be infinite or NaN, so that it skips the step."""
    before = copy.deepcopy(toy.model.state_dict())
    seen: list[float] = []

    def backward(loss: Tensor) -> None:
        seen.append(loss.item())
        (loss * math.inf).backward()

    found = toy.adversarial(toy.step(backward=backward), method=method)
    assert not torch.isfinite(found[WORDS]).all()
    assert all(loss == seen[0] for loss in seen)
    after = toy.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_one_perturbation_climbs_and_the_others_stay() -> None:
    """Three steps of which one is shortened: (1, 0) + 5 * (0.6, 0.8) = (4, 4), then to the length 2."""
    uphill = torch.tensor([[math.inf, 1.0], [math.nan, 1.0], [0.0, 0.0], [3e30, 4e30], [3e-3, 4e-3]])
    move = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    limit = torch.tensor([[9.0], [9.0], [9.0], [9.0], [2.0]])
    found = climbed(move, uphill * torch.tensor(1e-12), step=5.0, limit=limit)
    expected = torch.tensor([[1.0, 0.0]] * 3 + [[4.0, 4.0], [math.sqrt(2), math.sqrt(2)]])
    torch.testing.assert_close(found, expected)


def test_length_of_a_step_in_fp32() -> None:
    """Also among as many numbers as word embeddings have, where one plain sum loses the fourth digit."""
    uphill = torch.randn(2, 4_000_001, generator=torch.Generator().manual_seed(0))
    found = climbed(torch.zeros(1, 1), uphill, step=0.3, limit=1.0).double().norm(dim=1)
    assert found.tolist() == pytest.approx([0.3, 0.3], rel=1e-6)


def test_overflow_on_the_way(toy: Toy) -> None:
    """PGD's second gradient overflows: its second step is none."""
    factors = iter([1.0, math.inf, 1.0])
    found = toy.adversarial(toy.step(backward=scaled_by(factors)), method="pgd", steps=2, epsilon=5.0)
    assert_same(found, reference_pgd(toy, 5.0, 0.3, 1))
