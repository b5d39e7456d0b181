"""Losses of embeddings and their gradients against formulas written by hand, in numpy and without autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wenmai.heads.contrastive import ANCHOR, HARD_NEGATIVE, POSITIVE, ContrastiveHead

TAU, MARGIN = 0.1, 0.3
GROUP = np.array([3, 3, 3, 8, 8, 8, 8, 5, 5])
ROLE = np.array(
    [ANCHOR, POSITIVE, HARD_NEGATIVE, POSITIVE, ANCHOR, HARD_NEGATIVE, HARD_NEGATIVE, ANCHOR, POSITIVE]
)
PART = np.array([0, 0, 1, 0, 0, 1, 1, 0, 0])
SCORE = np.array([0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9, 0.5, 0.5])


def pairs():
    rows = range(len(GROUP))
    return [
        (a, p)
        for a in rows
        for p in rows
        if ROLE[a] == ANCHOR and ROLE[p] == POSITIVE and GROUP[a] == GROUP[p]
    ]


def cosine(x, a, b):
    return x[a] @ x[b] / np.linalg.norm(x[a]) / np.linalg.norm(x[b])


def through_cosines(x, slopes):
    """The gradient at the vectors from that at cosines: ∂cos/∂a = (b/|b| - cos a/|a|) / |a|."""
    gradient = np.zeros_like(x)
    for (a, b), slope in slopes.items():
        for one, other in ((a, b), (b, a)):
            unit, size = x[one] / np.linalg.norm(x[one]), np.linalg.norm(x[one])
            gradient[one] += slope * (x[other] / np.linalg.norm(x[other]) - cosine(x, a, b) * unit) / size
    return gradient


def by_hand_cosine(x):
    errors = {pair: cosine(x, *pair) - SCORE[pair[0]] for pair in pairs()}
    slopes = {pair: 2 * error for pair, error in errors.items()}
    return sum(error**2 for error in errors.values()), len(errors), through_cosines(x, slopes)


def by_hand_triplet(x):
    total, count, slopes = 0.0, 0, {}
    for a, p in pairs():
        for n in np.flatnonzero((GROUP[a] == GROUP) & (ROLE == HARD_NEGATIVE)):
            count += 1
            term = MARGIN - cosine(x, a, p) + cosine(x, a, n)
            if term > 0:
                total += term
                slopes[a, p] = slopes.get((a, p), 0.0) - 1
                slopes[a, n] = slopes.get((a, n), 0.0) + 1
    return total, count, through_cosines(x, slopes)


def by_hand_cosent(x):
    terms = {
        (low, high): np.exp((cosine(x, *low) - cosine(x, *high)) / TAU)
        for high in pairs()
        for low in pairs()
        if SCORE[high[0]] > SCORE[low[0]]
    }
    whole = 1 + sum(terms.values())
    slopes = dict.fromkeys(pairs(), 0.0)
    for (low, high), term in terms.items():
        slopes[low] += term / whole / TAU
        slopes[high] -= term / whole / TAU
    return np.log(whole), 1, through_cosines(x, slopes)


def by_hand_infonce(x, apart=lambda a, c: False):
    """Args: apart: whether a candidate is left out for an anchor."""
    total, count, gradient = 0.0, 0, np.zeros_like(x)
    for a, p in pairs():
        count += 1
        candidates = [p] + [
            c
            for c in np.flatnonzero(ROLE != ANCHOR)
            if not (GROUP[c] == GROUP[a] and ROLE[c] == POSITIVE) and not apart(a, c)
        ]
        scores = x[candidates] @ x[a] / TAU
        share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        total -= np.log(share[0])
        slopes = (share - np.eye(len(share))[0]) / TAU
        gradient[a] += slopes @ x[candidates]
        gradient[candidates] += np.outer(slopes, x[a])
    return total, count, gradient


def by_hand_simcse(x):
    return by_hand_infonce(x, lambda a, c: GROUP[a] == GROUP[c] and PART[a] != PART[c])


BY_HAND = {
    "infonce": by_hand_infonce,
    "simcse": by_hand_simcse,
    "cosent": by_hand_cosent,
    "cosine": by_hand_cosine,
    "triplet": by_hand_triplet,
}
BATCH = {
    "group": torch.from_numpy(GROUP),
    "role": torch.from_numpy(ROLE),
    "part": torch.from_numpy(PART),
    "score": torch.from_numpy(SCORE),
}


def head(objective, **options):
    return ContrastiveHead(
        pooling="mean", objective=objective, temperature=TAU, margin=MARGIN, normalize=False, **options
    )


def found(built, x):
    tensor = torch.from_numpy(x).requires_grad_()
    loss, count = built.loss({"embedding": tensor}, BATCH)
    loss.backward()
    return loss.item(), count, tensor.grad.numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", BY_HAND)
def test_loss_count_and_gradient_are_the_formulas(objective, seed):
    x = np.random.default_rng(seed).normal(size=(len(GROUP), 4)) * 0.5
    expected, terms, gradient = BY_HAND[objective](x)
    loss, count, slope = found(head(objective), x)
    assert (loss, count) == (pytest.approx(expected, rel=1e-10), terms)
    assert loss > 0.01 and abs(gradient).max() > 0.01
    np.testing.assert_allclose(slope, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("objective", BY_HAND)
def test_widths_add_up_the_losses_of_prefixes(objective):
    x = np.random.default_rng(0).normal(size=(len(GROUP), 6)) * 0.5
    expected, terms, gradient = 0.0, 0, np.zeros_like(x)
    for width, weight in ((6, 1.0), (3, 0.5), (2, 2.0)):
        loss, terms, slope = BY_HAND[objective](x[:, :width])
        expected += weight * loss
        gradient[:, :width] += weight * slope
    loss, count, slope = found(head(objective, widths=[6, 3, 2], weights=[1.0, 0.5, 2.0]), x)
    assert (loss, count) == (pytest.approx(expected, rel=1e-10), terms)
    np.testing.assert_allclose(slope, gradient, rtol=1e-8, atol=1e-10)
    alone = found(head(objective, widths=[6]), x)
    np.testing.assert_allclose(alone[2], found(head(objective), x)[2])


@pytest.mark.parametrize("objective", ["cosine", "triplet"])
def test_losses_within_examples_add_up_over_them(objective):
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(len(GROUP), 4)))
    built = head(objective)
    assert not built.needs_whole_step
    whole = built.loss({"embedding": x}, BATCH)
    parts = [
        built.loss({"embedding": x[rows]}, {key: value[rows] for key, value in BATCH.items()})
        for rows in (torch.from_numpy(GROUP) == group for group in (3, 5, 8))
    ]
    assert sum(loss for loss, _ in parts).item() == pytest.approx(whole[0].item())
    assert sum(count for _, count in parts) == whole[1]


@pytest.mark.parametrize("objective", ["infonce", "simcse", "cosent"])
def test_losses_over_the_step_say_so(objective):
    assert head(objective).needs_whole_step


@pytest.mark.parametrize("objective", ["cosine", "triplet"])
def test_without_a_term_it_is_zero_with_a_graph(objective):
    x = torch.ones(2, 3, requires_grad=True)
    batch = {key: value[[0, 0]] for key, value in BATCH.items()}
    loss, count = head(objective).loss({"embedding": x}, batch)
    loss.backward()
    assert (loss.item(), count) == (0.0, 0) and not x.grad.any()


def test_prediction_keeps_the_width_and_training_all():
    hidden, mask = torch.randn(3, 4, 6), torch.ones(3, 4)
    built = ContrastiveHead(pooling="mean", widths=[6, 2], width=2)
    short, whole = built(hidden, mask)["embedding"], built.training_outputs(hidden, mask, {})["embedding"]
    assert short.shape == (3, 2) and whole.shape == (3, 6)
    torch.testing.assert_close(short, torch.nn.functional.normalize(whole[:, :2], dim=1))


def test_whitening_is_applied_saved_and_loaded():
    hidden, mask = torch.randn(3, 4, 6), torch.ones(3, 4)
    built = ContrastiveHead(pooling="mean")
    before, trained = built(hidden, mask)["embedding"], built.training_outputs(hidden, mask, {})["embedding"]
    mean, matrix = torch.randn(6), torch.randn(6, 3)
    built.whiten(mean, matrix)
    expected = torch.nn.functional.normalize((hidden.mean(dim=1) - mean) @ matrix, dim=1)
    torch.testing.assert_close(built(hidden, mask)["embedding"], expected)
    torch.testing.assert_close(built.training_outputs(hidden, mask, {})["embedding"], trained)
    fresh = ContrastiveHead(pooling="mean")
    fresh.load_state_dict(built.state_dict())
    torch.testing.assert_close(fresh(hidden, mask)["embedding"], expected)
    plain = ContrastiveHead(pooling="mean")
    plain.load_state_dict({})
    torch.testing.assert_close(plain(hidden, mask)["embedding"], before)
