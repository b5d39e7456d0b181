"""Adversarial gradients equal references in plain loops, whatever the micro-batches, and weights come back."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
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
    reference_awp,
    reference_fgm,
    reference_freelb,
    reference_pgd,
    sum_gradients,
)
from safetensors.torch import load_file
from torch import Tensor

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.errors import ConfigError
from wenmai.training.parallel import Parallel
from wenmai.training.perturbation import climbed
from wenmai.training.trainer import train

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


def test_overflow_on_the_way(toy: Toy) -> None:
    """PGD's second gradient overflows: its second step is none."""
    factors = iter([1.0, math.inf, 1.0])
    found = toy.adversarial(toy.step(backward=scaled_by(factors)), method="pgd", steps=2, epsilon=5.0)
    assert_same(found, reference_pgd(toy, 5.0, 0.3, 1))


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
