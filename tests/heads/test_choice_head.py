"""The loss of multiple choice against cross-entropy over each example's rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wenmai.heads.choice import ChoiceHead, log_shares
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE

GROUP = torch.tensor([7, 3, 7, 3, 3, 9])
"""Of three examples with two, three and one choices, in any order."""
CHOSEN = torch.tensor([0, 0, 1, 1, 0, IGNORE])


@pytest.fixture
def head() -> ChoiceHead:
    torch.manual_seed(0)
    return ChoiceHead(5, pooling="mean", dropout=0.0).double()


def batch(group: Tensor = GROUP, chosen: Tensor = CHOSEN) -> dict[str, Tensor]:
    return {"group": group, "chosen": chosen}


def test_the_loss_is_the_cross_entropy_of_each_example(head: ChoiceHead) -> None:
    score = torch.randn(6, dtype=torch.float64, requires_grad=True)
    loss, count = head.loss({"score": score}, batch())
    expected = cross_entropy(score[[0, 2]], torch.tensor(1)) + cross_entropy(
        score[[1, 3, 4]], torch.tensor(1)
    )
    torch.testing.assert_close(loss, expected)
    assert count == 2
    (gradient,) = torch.autograd.grad(loss, score, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, score)
    torch.testing.assert_close(gradient, wanted)


def test_examples_add_up_and_large_scores_stay_finite(head: ChoiceHead) -> None:
    score = 500 * torch.randn(6, dtype=torch.float64)
    whole, _ = head.loss({"score": score}, batch())
    parts = [[0, 2], [1, 3, 4], [5]]
    found = [head.loss({"score": score[part]}, batch(GROUP[part], CHOSEN[part])) for part in parts]
    torch.testing.assert_close(sum(loss for loss, _ in found), whole)
    assert [count for _, count in found] == [1, 1, 0] and torch.isfinite(whole)


def test_shares_of_an_example_sum_to_one() -> None:
    shares = log_shares(torch.randn(6), GROUP).exp()
    totals = torch.zeros(10).scatter_add(0, GROUP, shares)
    torch.testing.assert_close(totals[[3, 7, 9]], torch.ones(3))


def test_the_divergence_is_that_of_each_labelled_example(head: ChoiceHead) -> None:
    first, second = torch.randn(2, 6, dtype=torch.float64)
    found = head.divergence({"score": first}, {"score": second}, batch())
    expected = sum(
        softmax_divergence(first[part][None], second[part][None]).sum() for part in ([0, 2], [1, 3, 4])
    )
    torch.testing.assert_close(found, expected)
