"""Smoothed and focal cross-entropy against the formulas written out in numpy and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from wenmai.heads.classification import ClassificationHead
from wenmai.heads.cross_entropy import each_label, one_of_labels, refuse_both
from wenmai.heads.head import IGNORE
from wenmai.heads.tagging import TaggingHead

LABEL = torch.tensor([0, 2, IGNORE, 1])
HOLDS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)


def scores(seed=0, scale=2.0):
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def focal_in_numpy(logits, label, gamma):
    total = 0.0
    for scores_L, gold in zip(logits.numpy(), label.tolist(), strict=True):
        if gold != IGNORE:
            p = np.exp(scores_L[gold]) / np.exp(scores_L).sum()
            total += -((1 - p) ** gamma) * np.log(p)
    return total


def focal_of_each_label_in_numpy(logits, holds, gamma):
    p = 1 / (1 + np.exp(-logits.numpy()))
    right = np.where(holds.numpy(), p, 1 - p)
    return float((-((1 - right) ** gamma) * np.log(right)).sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_focal_loss_is_the_formula(seed, gamma):
    loss, count = one_of_labels(scores(seed), LABEL, focal_gamma=gamma)
    assert (loss.item(), count) == (pytest.approx(focal_in_numpy(scores(seed), LABEL, gamma), rel=1e-12), 3)
    loss = each_label(scores(seed), HOLDS, focal_gamma=gamma)
    assert loss.item() == pytest.approx(focal_of_each_label_in_numpy(scores(seed), HOLDS, gamma), rel=1e-12)


def test_focal_loss_by_hand():
    # p = 3/4 for the gold label, in both forms: (1/4)^2 log(4/3)
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    expected = pytest.approx(math.log(4 / 3) / 16, rel=1e-12)
    assert one_of_labels(logits, torch.tensor([0]), focal_gamma=2.0)[0].item() == expected
    one = torch.tensor([[math.log(3.0)]], dtype=torch.float64)
    assert each_label(one, torch.tensor([[True]]), focal_gamma=2.0).item() == expected
    assert each_label(-one, torch.tensor([[False]]), focal_gamma=2.0).item() == expected


def test_smoothing_by_hand():
    # three labels, ε = 0.3: 0.8 of the target on the gold one, 0.1 on each other
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]], dtype=torch.float64)
    loss, _ = one_of_labels(logits, torch.tensor([0]), label_smoothing=0.3)
    assert loss.item() == pytest.approx(-0.8 * math.log(0.5) - 0.2 * math.log(0.25), rel=1e-12)
    # a yes, ε = 0.2: 0.9 on yes and 0.1 on no
    one = torch.tensor([[math.log(3.0)]], dtype=torch.float64)
    loss = each_label(one, torch.tensor([[True]]), label_smoothing=0.2)
    assert loss.item() == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25), rel=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.2}, {"focal_gamma": 0.5}, {"focal_gamma": 2.0}]
)
def test_gradients_are_those_of_finite_differences(options):
    logits = scores().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: one_of_labels(x, LABEL, **options)[0], (logits,))
    assert torch.autograd.gradcheck(lambda x: each_label(x, HOLDS, **options), (logits,))


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_focal_slopes_stay_finite_where_the_model_is_sure(gamma, scale):
    """1 - p is 0 there in fp32, and (1 - p)^γ has no slope at 0 for γ < 1."""
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) * scale
    for gold, expected in ((torch.tensor([0, 1]), 0.0), (torch.tensor([1, 0]), 2 * scale)):
        logits = sure.clone().requires_grad_()
        loss, _ = one_of_labels(logits, gold, focal_gamma=gamma)
        loss.backward()
        assert loss.item() == pytest.approx(expected, abs=1e-8)
        assert logits.grad.isfinite().all() and logits.grad.any().item() is (expected > 0)
        logits = sure.clone().requires_grad_()
        each_label(logits, torch.nn.functional.one_hot(gold, 3).bool(), focal_gamma=gamma).backward()
        assert logits.grad.isfinite().all()


def test_focal_weights_shrink_with_the_answers_certainty():
    logits = torch.tensor([[3.0, 0.0], [0.5, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    ratios = [
        one_of_labels(row[None], torch.tensor([0]), focal_gamma=2.0)[0].item()
        / cross_entropy(row[None], torch.tensor([0])).item()
        for row in logits
    ]
    assert ratios == pytest.approx([(1 - p) ** 2 for p in logits[:, 0].sigmoid().tolist()])
    assert ratios[0] < 0.003 and ratios[2] > 0.75


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_nothing_labelled_is_zero_with_a_graph(focal_gamma):
    logits = scores().requires_grad_()
    loss, count = one_of_labels(logits, torch.full((4,), IGNORE), focal_gamma=focal_gamma)
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert not logits.grad.any()


def test_half_precision_is_widened():
    logits = scores().bfloat16()
    expected, _ = one_of_labels(logits.float(), LABEL, focal_gamma=2.0)
    loss, _ = one_of_labels(logits, LABEL, focal_gamma=2.0)
    assert loss.dtype == torch.float32 and loss.item() == expected.item()
    loss = each_label(logits, HOLDS, focal_gamma=2.0)
    assert (
        loss.dtype == torch.float32
        and loss.item() == each_label(logits.float(), HOLDS, focal_gamma=2.0).item()
    )


def test_smoothing_and_focal_together_are_refused():
    said = "label_smoothing 0.1 and focal_gamma 2 exclude each other: set one of them to 0"
    for build in (
        lambda: refuse_both(0.1, 2.0),
        lambda: TaggingHead(4, 3, dropout=0.0, label_smoothing=0.1, focal_gamma=2.0),
        lambda: ClassificationHead(4, 3, pooling="cls", dropout=0.0, label_smoothing=0.1, focal_gamma=2.0),
    ):
        with pytest.raises(ValueError, match=said):
            build()
    refuse_both(0.1, 0.0)
    refuse_both(0.0, 2.0)


def test_why_they_are_refused():
    """The number in the docstring: where smoothed and focal terms together have their lowest point."""
    p = np.linspace(0.01, 0.99, 981)
    together = -0.95 * (1 - p) ** 2 * np.log(p) - 0.05 * p**2 * np.log(1 - p)
    assert p[together.argmin()] == pytest.approx(0.75, abs=0.005)
