"""The CRF's likelihood against enumeration of all paths and against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from wenmai.heads.crf import CRFHead, chain_losses
from wenmai.heads.head import IGNORE
from wenmai.heads.viterbi import FORBIDDEN, sequence_marginals, viterbi

TAGS = 3
O, B, I = range(TAGS)  # noqa: E741
BIO = torch.ones(TAGS + 2, TAGS, dtype=torch.bool)
BIO[O, I] = BIO[TAGS, I] = False
ANYTHING = torch.ones_like(BIO)


def enumerated_loss(logits, transitions, gold):
    """-log of the gold path's share, from the score of every path; ``logits`` of the chain's tokens only."""

    def score(path):
        inner = sum(transitions[a, b] for a, b in itertools.pairwise(path))
        outer = transitions[TAGS, path[0]] + transitions[TAGS + 1, path[-1]]
        return float(inner + outer + sum(logits[t, tag] for t, tag in enumerate(path)))

    scores = [score(path) for path in itertools.product(range(TAGS), repeat=len(gold))]
    return math.log(sum(math.exp(s) for s in scores)) - score(gold)


def random_batch(seed, golds, *, width, allowed=ANYTHING):
    """Rows whose chain begins at token 1, with IGNORE around it."""
    torch.manual_seed(seed)
    logits = torch.randn(len(golds), width, TAGS, dtype=torch.float64) * 2
    transitions = torch.randn(TAGS + 2, TAGS, dtype=torch.float64).masked_fill(~allowed, FORBIDDEN)
    tags = torch.full((len(golds), width), IGNORE)
    for row, gold in zip(tags, golds, strict=True):
        row[1 : 1 + len(gold)] = torch.tensor(gold, dtype=torch.long)
    return logits, transitions, tags


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("allowed", [ANYTHING, BIO], ids=["anything", "bio"])
def test_loss_is_that_of_enumeration(seed, allowed):
    golds = [[B, I, O, O], [O], [B, B], [O, B, I, I, I]]
    logits, transitions, tags = random_batch(seed, golds, width=7, allowed=allowed)
    losses = chain_losses(logits, transitions, tags, allowed)
    expected = [enumerated_loss(logits[i, 1:], transitions, gold) for i, gold in enumerate(golds)]
    assert losses.tolist() == pytest.approx(expected, abs=1e-9)


def test_loss_by_hand():
    # two tags, two tokens, logits 0: only steps count. Path scores: 00 -> 1, 01 -> 2, 10 -> 0.5, 11 -> 1
    transitions = torch.tensor([[0.0, 1.0], [0.0, 0.5], [1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    loss = chain_losses(torch.zeros(1, 2, 2).double(), transitions, torch.tensor([[0, 1]]), ANYTHING[:4, :2])
    assert loss.item() == pytest.approx(math.log(2 * math.e + math.e**2 + math.e**0.5) - 2, abs=1e-12)


def test_tokens_outside_the_chain_may_stand_anywhere():
    golds = [[B, I, O, B, I, I, O, O] * 3, [O, B, O, O]]
    logits, transitions, tags = random_batch(3, golds, width=30, allowed=BIO)
    expected = chain_losses(logits, transitions, tags, BIO)
    spread_logits, spread_tags = torch.randn(2, 90, TAGS).double(), torch.full((2, 90), IGNORE)
    spread_logits[:, ::3], spread_tags[:, ::3] = logits, tags
    torch.testing.assert_close(chain_losses(spread_logits, transitions, spread_tags, BIO), expected)


def test_without_steps_it_is_softmax():
    torch.manual_seed(0)
    logits, tags = torch.randn(1, 4, TAGS).double(), torch.tensor([[O, B, I, I]])
    expected = torch.nn.functional.cross_entropy(logits[0], tags[0], reduction="sum")
    loss = chain_losses(logits, torch.zeros(TAGS + 2, TAGS).double(), tags, ANYTHING)
    torch.testing.assert_close(loss[0], expected, atol=1e-12, rtol=0)


def test_row_without_content_gives_no_term():
    head = CRFHead(4, TAGS, dropout=0.0, allowed=BIO.numpy())
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    batch = {"tags": torch.tensor([[IGNORE] * 3, [IGNORE, B, I]])}
    loss, count = head.loss(head(hidden, torch.ones(2, 3)), batch)
    alone, _ = head.loss(head(hidden[1:], torch.ones(1, 3)), {"tags": batch["tags"][1:]})
    assert count == 1
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert torch.isfinite(hidden.grad).all() and not hidden.grad[0].any()
    loss, count = head.loss(head(hidden[:1], torch.ones(1, 3)), {"tags": batch["tags"][:1]})
    assert (loss.item(), count) == (0.0, 0)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


@pytest.mark.parametrize(
    ("gold", "broken"),
    [([I, I, O], "start"), ([O, I, I], "inner")],
    ids=["window begins inside an entity", "tear inside the row"],
)
def test_illegal_gold_step_is_scored_without_transitions(gold, broken):
    logits, transitions, tags = random_batch(1, [gold], width=4, allowed=BIO)
    total, gold_score = 0.0, None
    for path in itertools.product(range(TAGS), repeat=3):
        score = float(
            sum(logits[0, 1 + t, tag] for t, tag in enumerate(path)) + transitions[TAGS + 1, path[2]]
        )
        score += 0.0 if broken == "start" else float(transitions[TAGS, path[0]])
        score += 0.0 if broken == "inner" else float(transitions[path[0], path[1]])
        score += float(transitions[path[1], path[2]])
        total += math.exp(score)
        gold_score = score if list(path) == gold else gold_score
    loss = chain_losses(logits, transitions, tags, BIO)
    assert loss.item() == pytest.approx(math.log(total) - gold_score, abs=1e-9)


def test_illegal_stop_of_the_gold_tags():
    allowed = ANYTHING.clone()
    allowed[TAGS + 1, B] = False
    logits, transitions, tags = random_batch(2, [[B]], width=2, allowed=allowed)
    scores = logits[0, 1] + transitions[TAGS]
    expected = scores.logsumexp(0) - scores[B]
    torch.testing.assert_close(chain_losses(logits, transitions, tags, allowed)[0], expected)


def test_outputs_decode_to_legal_tags_only():
    torch.manual_seed(0)
    head = CRFHead(8, TAGS, dropout=0.0, allowed=BIO.numpy())
    torch.nn.init.normal_(head.output.weight, std=3.0)
    outputs = head(torch.randn(1, 60, 8), torch.ones(1, 60))
    transitions = outputs["transitions"][0].detach().numpy()
    assert transitions.shape == (TAGS + 2, TAGS)
    logits = outputs["logits"][0].detach().numpy()
    assert any(a == O and b == I for a, b in itertools.pairwise(logits.argmax(axis=1)))
    path, _ = viterbi(logits, transitions)
    assert path[0] != I and not any(a == O and b == I for a, b in itertools.pairwise(path))


def test_gradient_of_the_logits_is_marginals_minus_gold():
    logits, transitions, tags = random_batch(4, [[O, B, I, O]], width=5, allowed=BIO)
    logits.requires_grad_()
    chain_losses(logits, transitions, tags, BIO).sum().backward()
    expected = sequence_marginals(logits[0, 1:].detach().numpy(), transitions.numpy())
    expected[np.arange(4), [O, B, I, O]] -= 1
    np.testing.assert_allclose(logits.grad[0, 1:].numpy(), expected, atol=1e-10)
    assert not logits.grad[0, 0].any()


def test_gradients_are_those_of_finite_differences():
    logits, transitions, tags = random_batch(5, [[B, I, O], [I], []], width=5, allowed=BIO)
    arguments = (logits.requires_grad_(), transitions.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, t: chain_losses(s, t, tags, BIO).sum(), arguments)


def test_long_row_in_single_precision():
    """512 tokens with large logits: fp32 must agree with fp64 to fp32's own precision."""
    torch.manual_seed(0)
    logits = torch.randn(1, 512, TAGS) * 30
    tags = torch.tensor([viterbi(logits[0].numpy(), np.zeros((TAGS + 2, TAGS)))[0]])
    transitions = torch.zeros(TAGS + 2, TAGS)
    single = chain_losses(logits, transitions, tags, ANYTHING)
    double = chain_losses(logits.double(), transitions.double(), tags, ANYTHING)
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=1e-5)


def test_state_holds_parameters_only():
    head = CRFHead(4, TAGS, dropout=0.0, allowed=BIO.numpy())
    assert set(head.state_dict()) == {"output.weight", "output.bias", "transitions"}
