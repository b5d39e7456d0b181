"""The head against GPT-2's own, and the loss that never holds all logits against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from wenmai.heads import vocabulary_loss as module
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.head import IGNORE
from wenmai.heads.vocabulary_loss import token_losses, vocabulary_loss

H, V, M = 6, 11, 23


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    hidden = torch.randn(M, H, generator=draws, dtype=torch.float64).requires_grad_()
    weight = torch.randn(V, H, generator=draws, dtype=torch.float64).requires_grad_()
    return hidden, weight, torch.randint(V, (M,), generator=draws)


@pytest.mark.parametrize("at_once", [V, 5 * V, 1 << 22])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradients_are_those_of_all_logits(
    inputs: tuple[Tensor, Tensor, Tensor], smoothing: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
    hidden, weight, target = inputs
    expected = cross_entropy(hidden @ weight.T, target, reduction="sum", label_smoothing=smoothing)
    slopes = torch.autograd.grad(3 * expected, (hidden, weight))
    found = vocabulary_loss(hidden, weight, target, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * found, (hidden, weight)), slopes)
    losses, right = token_losses(hidden, weight, target)
    plain = cross_entropy(hidden @ weight.T, target, reduction="none")
    torch.testing.assert_close(losses, plain.detach())
    assert torch.equal(right.bool(), (hidden @ weight.T).argmax(dim=-1) == target)


def test_shares_weigh_the_tokens(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, target = inputs
    share = torch.rand(M, dtype=torch.float64)
    expected = cross_entropy(hidden @ weight.T, target, reduction="none") @ share
    found = vocabulary_loss(hidden, weight, target, share_M=share)
    torch.testing.assert_close(found, expected)
    slopes = torch.autograd.grad(expected, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, weight)), slopes)


def test_no_token_is_zero_with_a_graph(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, target = inputs
    loss = vocabulary_loss(hidden[:0], weight, target[:0])
    loss.backward()
    assert loss.item() == 0 and weight.grad is not None and not weight.grad.any()
    assert [len(part) for part in token_losses(hidden[:0], weight, target[:0])] == [0, 0]


def test_under_autocast_products_are_half_and_sums_are_not(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, target = (part.detach().float() if part.is_floating_point() else part for part in inputs)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    exact = torch.autograd.grad(vocabulary_loss(hidden, weight, target), (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vocabulary_loss(hidden, weight, target)
    found = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == torch.float32
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32 and 0 < (a - b).norm() < 0.03 * b.norm()


def test_memory_stays_far_below_all_logits() -> None:
    """Nothing that is kept for the backward pass has tokens x vocabulary values."""
    kept: list[int] = []
    hidden = torch.randn(300, H, requires_grad=True)
    weight = torch.randn(5000, H, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):  # type: ignore[func-returns-value]
        loss = vocabulary_loss(hidden, weight, torch.zeros(300, dtype=torch.long))
    held = loss.grad_fn.gradients if loss.grad_fn is not None else ()  # type: ignore[attr-defined]
    assert max([*kept, *(part.numel() for part in held)]) <= 5000 * H


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_gpt2(tied: bool) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_embd=H, n_layer=2, n_head=2, n_positions=9, tie_word_embeddings=tied)
    theirs = GPT2LMHeadModel(config).eval()
    head = CausalLMHead(H, theirs.transformer.wte, tied=tied)
    assert (len(list(head.parameters())) == 0) == tied
    if head.output is not None:
        assert head.output.weight.std().item() == pytest.approx(0.02, rel=0.4)
        head.output.weight = nn.Parameter(theirs.lm_head.weight.detach().clone())
    ids = torch.randint(V, (2, 7))
    found = theirs(input_ids=ids, labels=ids)
    hidden, mask = theirs.transformer(ids).last_hidden_state, torch.ones_like(ids)
    torch.testing.assert_close(head(hidden, mask)["logits"], found.logits, atol=1e-5, rtol=0)
    batch = {"next": torch.cat([ids[:, 1:], torch.full((2, 1), IGNORE)], dim=1)}
    loss, count = head.loss(head.training_outputs(hidden, mask, batch), batch)
    torch.testing.assert_close(loss / count, found.loss)
    torch.testing.assert_close(head.loss(head(hidden, mask), batch)[0] / count, found.loss)
    told = head.evaluation_outputs(hidden, mask, batch)
    torch.testing.assert_close(told["loss"].sum() / told["counted"].sum(), found.loss)
