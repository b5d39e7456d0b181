"""Sums over paths: both forms of the recursion against enumeration, and against each other where scores are extreme."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from wenmai.heads.chain import Chain, chain_of, gold_scores, log_totals, marginals
from wenmai.heads.crf import CRFHead, chain_divergences, chain_losses
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE
from wenmai.heads.viterbi import FORBIDDEN, sequence_marginals

TAGS = 3
O, B, I = range(TAGS)  # noqa: E741
BIO = torch.ones(TAGS + 2, TAGS, dtype=torch.bool)
BIO[O, I] = BIO[TAGS, I] = False
GOLDS = [[B, I, O, O], [O], [I, O, I], [], [O, B, I, I, I]]
WIDTH = 7


def case(seed, *, scale=2.0, golds=GOLDS):
    torch.manual_seed(seed)
    logits = torch.randn(len(golds), WIDTH, TAGS, dtype=torch.float64) * scale
    transitions = torch.randn(TAGS + 2, TAGS, dtype=torch.float64).masked_fill(~BIO, FORBIDDEN)
    tags = torch.full((len(golds), WIDTH), IGNORE)
    for row, gold in zip(tags, golds, strict=True):
        row[1 : 1 + len(gold)] = torch.tensor(gold, dtype=torch.long)
    return logits, transitions, tags


def path_scores(logits_TL, transitions, gold):
    """Score of every path; a step that the gold path makes against the rules costs nothing anywhere."""

    def step(before, tag, gold_before, gold_tag):
        return float(transitions[before, tag]) if BIO[gold_before, gold_tag] else 0.0

    for path in itertools.product(range(TAGS), repeat=len(gold)):
        score = sum(float(logits_TL[t, tag]) for t, tag in enumerate(path))
        steps = zip([TAGS, *path], [*path], [TAGS, *gold], [*gold], strict=False)
        yield path, score + sum(itertools.starmap(step, steps)) + float(transitions[TAGS + 1, path[-1]])


def in_logarithms(chain: Chain) -> Chain:
    return dataclasses.replace(chain, wide=True)


@pytest.mark.parametrize("form", [lambda chain: chain, in_logarithms], ids=["shares", "logarithms"])
@pytest.mark.parametrize("seed", range(3))
def test_totals_and_their_slopes_are_sums_over_all_paths(seed, form):
    logits, transitions, tags = case(seed)
    logits.requires_grad_()
    chain = chain_of(logits, transitions, tags, BIO)
    assert not chain.wide
    totals = log_totals(form(chain))
    (slopes,) = torch.autograd.grad(totals.sum(), logits)
    for row, gold in enumerate(GOLDS):
        if gold:
            scores = dict(path_scores(logits[row, 1:].detach(), transitions, gold))
            total = sum(map(math.exp, scores.values()))
            assert totals[row].item() == pytest.approx(math.log(total), abs=1e-10)
            expected = np.zeros((len(gold), TAGS))
            for path, score in scores.items():
                expected[np.arange(len(gold)), path] += math.exp(score) / total
            np.testing.assert_allclose(slopes[row, 1 : 1 + len(gold)], expected, atol=1e-10)
            np.testing.assert_allclose(marginals(chain)[row, : len(gold)].detach(), expected, atol=1e-10)
            assert gold_scores(chain)[row].item() == pytest.approx(scores[tuple(gold)], abs=1e-10)
        assert not slopes[row, 0].any() and not slopes[row, 1 + len(gold) :].any()
        assert not marginals(chain)[row, len(gold) :].any()


@pytest.mark.parametrize("seed", range(3))
def test_both_forms_have_the_same_slopes(seed):
    logits, transitions, tags = case(seed)
    arguments = (logits.requires_grad_(), transitions.requires_grad_())
    chain = chain_of(*arguments, tags, BIO)
    weight = torch.randn(len(GOLDS), dtype=torch.float64).masked_fill(chain.length_B == 0, 0.0)
    shares = torch.autograd.grad((log_totals(chain) * weight).sum(), arguments, retain_graph=True)
    logs = torch.autograd.grad((log_totals(in_logarithms(chain)) * weight).sum(), arguments)
    for one, other in zip(shares, logs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
        assert one.any()


def test_slopes_of_slopes():
    logits, transitions, tags = case(0, golds=[[B, I, O], [O], [O, I]])
    arguments = (logits[:, :4].requires_grad_(), transitions.requires_grad_())
    weight = torch.randn(3, 3, TAGS, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s, t: (marginals(chain_of(s, t, tags[:, :4], BIO)) * weight).sum(), arguments
    )


@pytest.mark.parametrize("scale", [20.0, 200.0, 5000.0])
def test_extreme_scores_are_exact_and_finite(scale):
    """Shares would vanish here: the gold sequences are those that the logits contradict most."""
    logits, transitions, tags = case(1, scale=scale)
    single = logits.float().requires_grad_()
    losses = chain_losses(single, transitions.float(), tags, BIO)
    losses.sum().backward()
    assert single.grad.isfinite().all()
    for row, gold in enumerate(GOLDS):
        if gold:
            scores = dict(path_scores(single[row, 1:].detach().double(), transitions.float().double(), gold))
            total = np.logaddexp.reduce(list(scores.values()))
            assert losses[row].item() == pytest.approx(total - scores[tuple(gold)], rel=1e-6, abs=1e-6)


def test_shares_are_left_where_transitions_are_extreme_too():
    logits, transitions, tags = case(2)
    assert not chain_of(logits, transitions, tags, BIO).wide, "forbidden steps do not count"
    assert chain_of(logits, transitions * 100, tags, BIO).wide
    assert chain_of(logits * 100, transitions, tags, BIO).wide
    logits[:, 0, B] = 1e6
    assert not chain_of(logits, transitions, tags, BIO).wide, "what stands outside the chain does not count"


@pytest.mark.parametrize("form", [lambda chain: chain, in_logarithms], ids=["shares", "logarithms"])
def test_a_constant_a_token_moves_the_total_only(form):
    logits, transitions, tags = case(0, golds=[[B, I, O], [O]])
    levels = torch.tensor([0.0, 5000.0, -3000.0, 2000.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    totals = log_totals(form(chain_of(logits, transitions, tags, BIO)))
    moved = chain_of(logits + levels[:, None], transitions, tags, BIO)
    expected = totals + torch.tensor([4000.0, 5000.0], dtype=torch.float64)
    torch.testing.assert_close(log_totals(form(moved)), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("form", [lambda chain: chain, in_logarithms], ids=["shares", "logarithms"])
def test_slopes_where_the_gold_tags_stop_against_the_rules(form):
    allowed = BIO.clone()
    allowed[TAGS + 1, B] = False
    logits, transitions, tags = case(0, golds=[[O, B], [O, B, I]])
    arguments = (logits[:, :4].requires_grad_(), transitions.requires_grad_())

    def loss(s, t):
        chain = chain_of(s, t.masked_fill(~allowed, FORBIDDEN), tags[:, :4], allowed)
        return (log_totals(form(chain)) - gold_scores(chain)).sum()

    assert torch.autograd.gradcheck(loss, arguments)


def test_high_transitions_beside_a_longer_row():
    """Sums that run on behind the short row grow beyond what exp can hold."""
    logits, transitions, tags = case(0, golds=[[O], [O, B, I, I, I]])
    transitions = (transitions + 200).masked_fill(~BIO, FORBIDDEN).requires_grad_()
    first, second = logits.requires_grad_(), case(1, golds=[[O], [O]])[0]
    chain_divergences(first, second, transitions, tags, BIO).sum().backward()
    assert first.grad.isfinite().all() and first.grad.any() and transitions.grad.isfinite().all()


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e30])
def test_padding_may_hold_anything(filling):
    logits, transitions, tags = case(3)
    expected = chain_losses(logits, transitions, tags, BIO)
    spoiled = logits.masked_fill((tags == IGNORE)[..., None], filling).requires_grad_()
    losses = chain_losses(spoiled, transitions, tags, BIO)
    losses.sum().backward()
    torch.testing.assert_close(losses, expected)
    assert spoiled.grad.isfinite().all()


def test_a_tag_that_nothing_leads_out_of():
    """It may end a row that is shorter than others, and what follows the row is of no account."""
    allowed = torch.ones_like(BIO)
    allowed[I] = allowed[TAGS, [O, B]] = False
    logits, transitions, tags = case(4, golds=[[I], [I, O, B]])
    transitions = torch.zeros_like(transitions).masked_fill(~allowed, FORBIDDEN).requires_grad_()
    losses = chain_losses(logits.requires_grad_(), transitions, tags, allowed)
    losses.sum().backward()
    assert losses[0].item() == pytest.approx(0.0, abs=1e-12)
    assert logits.grad.isfinite().all() and transitions.grad.isfinite().all()


def test_single_precision_slopes_of_long_rows():
    torch.manual_seed(0)
    logits, tags = torch.randn(2, 512, TAGS) * 3, torch.randint(0, 2, (2, 512))
    transitions = torch.randn(TAGS + 2, TAGS).masked_fill(~BIO, FORBIDDEN)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        arguments = (logits.to(dtype).requires_grad_(), transitions.to(dtype).requires_grad_())
        slopes.append(torch.autograd.grad(chain_losses(*arguments, tags, BIO).sum(), arguments))
    for single, double in zip(*slopes, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_divergence_is_that_of_whole_sequences(seed):
    first, transitions, tags = case(seed)
    second = case(seed + 10)[0]
    found = chain_divergences(first, second, transitions, tags, BIO)
    for row, gold in enumerate(GOLDS):
        if not gold:
            assert found[row].item() == 0.0
            continue
        one, other = (
            np.array([score for _, score in path_scores(logits[row, 1:], transitions, gold)])
            for logits in (first, second)
        )
        log_p, log_q = one - np.logaddexp.reduce(one), other - np.logaddexp.reduce(other)
        both = (np.exp(log_p) * (log_p - log_q)).sum() + (np.exp(log_q) * (log_q - log_p)).sum()
        assert found[row].item() == pytest.approx(both / 4, rel=1e-8)


def test_without_transitions_the_divergence_is_that_of_the_tokens():
    first, _, tags = case(0)
    second, free = case(1)[0], torch.ones_like(BIO)
    found = chain_divergences(first, second, torch.zeros(TAGS + 2, TAGS).double(), tags, free)
    expected = softmax_divergence(first.flatten(0, 1), second.flatten(0, 1)).unflatten(0, tags.shape)
    torch.testing.assert_close(found, expected.masked_fill(tags == IGNORE, 0.0).sum(dim=1))


def test_divergence_reaches_logits_and_transitions():
    first, transitions, tags = case(0, golds=[[B, I, O], [O], [O, I]])
    second = case(1, golds=[[B, I, O], [O], [O, I]])[0]
    arguments = tuple(x.requires_grad_() for x in (first[:, :4], second[:, :4], transitions))
    assert torch.autograd.gradcheck(
        lambda a, b, t: chain_divergences(a, b, t, tags[:, :4], BIO).sum(), arguments
    )


def test_the_head_hands_over_what_its_passes_gave():
    torch.manual_seed(0)
    head = CRFHead(8, TAGS, dropout=0.5, allowed=BIO.numpy()).double()
    torch.nn.init.normal_(head.output.weight)
    hidden, mask, batch = torch.randn(5, WIDTH, 8).double(), torch.ones(5, WIDTH), {"tags": case(0)[2]}
    first, second = head(hidden, mask), head(hidden, mask)
    found = head.divergence(first, second, batch)
    transitions = first["transitions"][0]
    each = chain_divergences(first["logits"], second["logits"], transitions, batch["tags"], BIO)
    assert found.item() == pytest.approx(each.sum().item()) and found.item() > 0
    p, q = (
        sequence_marginals(out["logits"][0, 1:5].detach().numpy(), transitions.detach().numpy())
        for out in (first, second)
    )
    apart = (first["logits"] - second["logits"])[0, 1:5].detach().numpy()
    assert each[0].item() == pytest.approx(((p - q) * apart).sum() / 4)
