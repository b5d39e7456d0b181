"""A step's gradients do not depend on how it is cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, toy_config
from wenmai.progress import SILENT
from wenmai.training.gradients import Step
from wenmai.training.parallel import Parallel
from wenmai.training.setup import prepare


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


ALONE = Parallel(rank=0, world=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """The gradients of a step as one batch, computed once."""

    @cache
    def whole(name: str, step: int = 0, **train: Any) -> dict[str, torch.Tensor]:
        return gradients(tmp_path_factory.mktemp("whole"), name, backbone, step, None, **train)

    return whole


def gradients(
    folder: Path, name: str, backbone: Path, step: int, micro: int | None, **train: Any
) -> dict[str, torch.Tensor]:
    """The mean's gradients, with dropout; double precision leaves only the order of the sums as a difference."""
    config = toy_config(folder, name, backbone, examples_per_micro_batch=micro, **train)
    work = prepare(config, SILENT)
    model = work.model.double().train()
    units = work.plan.steps(0)[step]
    batches = [work.maker(part, 0) for part in work.plan.micro_batches(units)]
    whole = Step(
        batches=batches,
        forward=model,
        head=model.head,
        backward=torch.Tensor.backward,
        parallel=ALONE,
        r_drop=config.train.r_drop,
    )
    _, terms = whole.run()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= terms
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("micro", [1, 3])
def test_accumulation_equals_the_big_batch(
    name: str, micro: int, tmp_path: Path, backbone: Path, whole: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """One by one, and in parts of unequal numbers of examples: 3 + 3 + 2."""
    expected = whole(name)
    parts = gradients(tmp_path, name, backbone, 0, micro)
    assert expected.keys() == parts.keys()
    assert sum(float(g.abs().sum()) for g in expected.values()) > 1e-3
    for key, gradient in expected.items():
        torch.testing.assert_close(
            parts[key], gradient, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )


def test_ragged_last_window(tmp_path: Path, backbone: Path) -> None:
    """A step of 5 examples as 2 + 2 + 1, with sentences of different numbers of tokens."""
    config = toy_config(tmp_path, "ner-softmax", backbone, examples_per_step=5, examples_per_micro_batch=2)
    sizes = [len(part) for part in prepare(config, SILENT).plan.micro_batches(torch.arange(5).numpy())]
    assert sizes == [2, 2, 1]
    for step in (0, 1):
        whole = gradients(tmp_path / f"w{step}", "ner-softmax", backbone, step, None)
        parts = gradients(tmp_path / f"p{step}", "ner-softmax", backbone, step, 3)
        for key, gradient in whole.items():
            torch.testing.assert_close(parts[key], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "name", [name for name in TOYS if not name.startswith(("embedding", "contrastive", "causal"))]
)
def test_r_drop_does_not_see_micro_batches(
    name: str, tmp_path: Path, backbone: Path, whole: Callable[..., dict[str, torch.Tensor]]
) -> None:
    plain, expected = whole(name), whole(name, r_drop=2.0)
    parts = gradients(tmp_path, name, backbone, 0, 3, r_drop=2.0)
    for key, gradient in expected.items():
        torch.testing.assert_close(parts[key], gradient, rtol=1e-6, atol=1e-9)
    assert any(not torch.allclose(plain[key], gradient, rtol=1e-3) for key, gradient in expected.items())


@pytest.mark.parametrize("option", [{"padding_free": "off"}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("name", TOYS)
def test_what_only_changes_speed_and_memory(
    name: str,
    option: dict[str, Any],
    tmp_path: Path,
    backbone: Path,
    whole: Callable[..., dict[str, torch.Tensor]],
) -> None:
    other = gradients(tmp_path, name, backbone, 0, 4, **option)
    for key, gradient in whole(name).items():
        torch.testing.assert_close(other[key], gradient, rtol=1e-6, atol=1e-9)
