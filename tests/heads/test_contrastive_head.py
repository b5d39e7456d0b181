"""Contrastive losses against loops over rows that follow the definitions word by word."""

from __future__ import annotations

import math

import pytest
import torch

from wenmai.heads.contrastive import ANCHOR, HARD_NEGATIVE, POSITIVE, ContrastiveHead

TAU = 0.1


def head(**options):
    return ContrastiveHead(**{"pooling": "mean", "temperature": TAU, **options})


def embeddings(rows, seed=0):
    torch.manual_seed(seed)
    vectors = torch.randn(rows, 5, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def naive_info_nce(vectors, group, role):
    total, anchors = 0.0, 0
    rows = range(len(vectors))
    for a in rows:
        positives = [p for p in rows if role[p] == POSITIVE and group[p] == group[a]]
        if role[a] != ANCHOR or not positives:
            continue
        anchors += 1
        wrong = [n for n in rows if role[n] != ANCHOR and n not in positives]
        for p in positives:
            scores = [float(vectors[a] @ vectors[c]) / TAU for c in [p, *wrong]]
            total -= math.log(math.exp(scores[0]) / sum(map(math.exp, scores))) / len(positives)
    return total, anchors


def naive_cosent(vectors, group, role, score):
    pairs = []
    for a in range(len(vectors)):
        for p in range(len(vectors)):
            if role[a] == ANCHOR and role[p] == POSITIVE and group[a] == group[p]:
                cosine = float(torch.cosine_similarity(vectors[a], vectors[p], dim=0))
                pairs.append((float(score[a]), cosine))
    terms = [math.exp((low - high) / TAU) for y_i, high in pairs for y_j, low in pairs if y_i > y_j]
    return math.log(1 + sum(terms))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("group", "role"),
    [
        ([7, 7, 9, 9, 4, 4], [0, 1, 0, 1, 0, 1]),
        ([0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 2]),
        ([0, 1, 2, 2, 1, 0], [0, 0, 0, 1, 1, 1]),
        ([0, 0, 0, 1, 1, 2], [0, 1, 1, 0, 1, 0]),
        ([0, 0], [0, 1]),
    ],
    ids=["pairs", "hard negatives", "any order", "two positives and a lone anchor", "nothing to tell apart"],
)
def test_info_nce_is_the_definition(seed, group, role):
    vectors = embeddings(len(group), seed)
    expected, anchors = naive_info_nce(vectors, group, role)
    loss, count = head().loss(
        {"embedding": vectors}, {"group": torch.tensor(group), "role": torch.tensor(role)}
    )
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    assert count == anchors


def test_info_nce_by_hand():
    # two pairs at right angles: own positive scores 1/τ, the other's 0
    vectors = torch.eye(2, dtype=torch.float64).repeat_interleave(2, dim=0)
    batch = {"group": torch.tensor([0, 0, 1, 1]), "role": torch.tensor([0, 1, 0, 1])}
    loss, count = head().loss({"embedding": vectors}, batch)
    assert (loss.item(), count) == (pytest.approx(2 * math.log(1 + math.exp(-1 / TAU))), 2)


def test_no_anchor_with_a_positive_is_zero_with_a_graph():
    vectors = embeddings(3).requires_grad_()
    batch = {"group": torch.tensor([0, 1, 2]), "role": torch.tensor([ANCHOR, ANCHOR, HARD_NEGATIVE])}
    loss, count = head().loss({"embedding": vectors}, batch)
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert not vectors.grad.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["unit", "not normalised"])
def test_cosent_is_the_definition(seed, scale):
    vectors = embeddings(8, seed) * scale
    group, role = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
    score = torch.tensor([0.0, 0.0, 5.0, 5.0, 2.0, 2.0, 2.0, 2.0])
    batch = {"group": group, "role": role, "score": score}
    loss, count = head(objective="cosent", normalize=False).loss({"embedding": vectors}, batch)
    assert loss.item() == pytest.approx(naive_cosent(vectors, group, role, score), abs=1e-10)
    assert count == 1


def test_cosent_without_an_order_is_zero_with_a_graph():
    vectors = embeddings(4).requires_grad_()
    batch = {"group": torch.tensor([0, 0, 1, 1]), "role": torch.tensor([0, 1, 0, 1])}
    for score in (torch.ones(4), torch.full((4,), math.nan)):
        loss, count = head(objective="cosent").loss({"embedding": vectors}, {**batch, "score": score})
        loss.backward()
        assert (loss.item(), count) == (0.0, 0)
        assert not vectors.grad.any()


def test_embedding_has_unit_length_unless_told_otherwise():
    hidden, mask = torch.randn(3, 4, 6) * 10, torch.ones(3, 4)
    torch.testing.assert_close(head()(hidden, mask)["embedding"].norm(dim=1), torch.ones(3))
    half = head()(hidden.bfloat16(), mask)["embedding"]
    torch.testing.assert_close(half.norm(dim=1), torch.ones(3))
    raw = head(normalize=False)(hidden, mask)["embedding"]
    torch.testing.assert_close(raw, hidden.mean(dim=1))
    assert head(projection=(6, 2))(hidden, mask)["embedding"].shape == (3, 2)


def test_training_brings_pairs_together():
    torch.manual_seed(0)
    built = head(projection=(16, 8))
    meaning = torch.randn(6, 1, 16)
    noise = torch.randn(2, 6, 1, 16) * 2
    hidden = torch.cat([meaning + noise[0], meaning + noise[1]])
    batch = {"group": torch.arange(6).repeat(2), "role": torch.tensor([ANCHOR] * 6 + [POSITIVE] * 6)}
    optimizer = torch.optim.Adam(built.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        built.loss(built(hidden, torch.ones(12, 1)), batch)[0].backward()
        optimizer.step()
    vectors = built(hidden, torch.ones(12, 1))["embedding"]
    assert (vectors[:6] @ vectors[6:].T).argmax(dim=1).tolist() == list(range(6))
