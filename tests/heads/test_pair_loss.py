"""The loss over all pairs without their scores in memory: the dense one's value and gradients, also at the extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wenmai.heads.global_pointer import MASKED, GlobalPointerHead, span_loss
from wenmai.heads.head import IGNORE
from wenmai.heads.pair_loss import Factors, dense, factors_of, pair_loss, sums

L, T, D = 5, 7, 4
REAL = torch.tensor([[1] * 7, [1] * 3 + [0] * 4, [1, 0, 0, 0, 0, 0, 0]]).bool()
NONE = [IGNORE] * 3
GOLD = torch.tensor(
    [[[1, 4, 0], [2, 2, 0], [1, 4, 0], [0, 6, 3]], [[0, 2, 3], NONE, NONE, NONE], [NONE, NONE, NONE, NONE]]
)


def random_factors(scale: float = 1.0) -> Tensor:
    torch.manual_seed(0)
    return (scale * torch.randn(3, T, 2 * D + 2 * L, dtype=torch.float64)).requires_grad_()


def every_score(factors: Factors) -> Tensor:
    """(B, L, T, T)"""
    rows = range(len(factors.pairs_BTT))
    return torch.stack([dense(factors, torch.full((L,), row), torch.arange(L)) for row in rows])


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0, 6.0])
def test_equals_the_dense_loss(ordered: bool, scale: float) -> None:
    given = random_factors(scale)
    factors = factors_of(given, L, REAL, ordered=ordered)
    loss = pair_loss(factors, GOLD)
    (gradient,) = torch.autograd.grad(loss, given)
    expected = span_loss(every_score(factors_of(given, L, REAL, ordered=ordered)), GOLD)
    (expected_gradient,) = torch.autograd.grad(expected, given)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-9)
    assert gradient.abs().sum() > 1


def test_factors_are_those_of_global_pointer() -> None:
    torch.manual_seed(0)
    head = GlobalPointerHead(8, L, head_size=D, dropout=0.0).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(3, T, 8, dtype=torch.float64)
    logits = head(hidden, REAL)["logits"]
    factors = factors_of(head.factors(hidden), L, REAL, ordered=True)
    torch.testing.assert_close(every_score(factors), logits)
    torch.testing.assert_close(pair_loss(factors, GOLD), span_loss(logits, GOLD))


def test_gold_that_scores_high_is_left_out_exactly() -> None:
    """Taken off the sum, e^40 would leave nothing of the other pairs in single precision."""
    pairs = torch.zeros(1, 2, 2)
    pairs[0, 0, 1] = 40.0
    ends = torch.zeros(1, 2, 1)
    loss = pair_loss(Factors(pairs, ends, ends), torch.tensor([[[0, 1, 0]]]))
    assert loss.item() == pytest.approx(math.log(1 + 3), rel=1e-6)


def test_sums_neither_overflow_nor_vanish() -> None:
    """The best first token, last token and pair lie apart, by more than single precision spans when multiplied."""
    pairs = torch.full((1, 2, 2), -60.0)
    pairs[0, 0, 0] = 20.0
    first, last = torch.tensor([[[-90.0], [80.0]]]), torch.tensor([[[-20.0], [50.0]]])
    every = pairs + first + last.transpose(1, 2)
    found = sums(Factors(pairs, first, last))
    torch.testing.assert_close(found, every.flatten(1).logsumexp(dim=1, keepdim=True))


def test_impossible_pairs_are_masked() -> None:
    factors = factors_of(random_factors(), L, REAL, ordered=True)
    scores = every_score(factors)
    assert (scores[1, :, :, 3:] == MASKED).all() and (scores[0, :, 3, 2] == MASKED).all()
    assert (scores[0, :, 2, 3] != MASKED).all()


def test_half_precision_is_summed_in_single() -> None:
    given = random_factors().detach()
    exact = pair_loss(factors_of(given, L, REAL, ordered=False), GOLD).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pair_loss(factors_of(given.float(), L, REAL, ordered=False), GOLD)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact, rel=1e-5)
