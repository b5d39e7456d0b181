"""GlobalPointer: the loss against a dense one and numbers worked out by hand; the geometry of its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wenmai.heads.global_pointer import MASKED, GlobalPointerHead, decode_spans, rotate, span_loss
from wenmai.heads.head import IGNORE

NONE = [IGNORE, IGNORE, IGNORE]


def dense_loss(logits, spans):
    """Row by row, label by label, over explicit lists of positive and negative scores."""
    total = 0.0
    for scores_LTT, row in zip(logits.tolist(), spans.tolist(), strict=True):
        for label, scores_TT in enumerate(scores_LTT):
            gold = {(first, last) for first, last, its in row if its == label}
            cells = [(i, j, s) for i, line in enumerate(scores_TT) for j, s in enumerate(line)]
            total += math.log(1 + sum(math.exp(s) for i, j, s in cells if (i, j) not in gold))
            total += math.log(1 + sum(math.exp(-s) for i, j, s in cells if (i, j) in gold))
    return total


def test_loss_by_hand():
    logits = torch.full((1, 1, 2, 2), MASKED, dtype=torch.float64)
    logits[0, 0, 0, 0], logits[0, 0, 0, 1], logits[0, 0, 1, 1] = 1.0, 2.0, -0.5
    loss = span_loss(logits, torch.tensor([[[0, 1, 0]]]))
    assert loss.item() == pytest.approx(math.log(1 + math.e + math.exp(-0.5)) + math.log(1 + math.exp(-2)))
    loss = span_loss(logits, torch.tensor([[NONE]]))
    assert loss.item() == pytest.approx(math.log(1 + math.e + math.e**2 + math.exp(-0.5)))


@pytest.mark.parametrize("efficient", [True, False])
def test_loss_is_the_dense_one(efficient):
    torch.manual_seed(0)
    head = GlobalPointerHead(8, 3, head_size=4, efficient=efficient, dropout=0.0).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    spans = torch.tensor(
        [[[1, 2, 0], [1, 3, 0], [1, 1, 2]], [[1, 1, 1], [1, 1, 1], NONE], [NONE, NONE, NONE]]
    )
    outputs = head(torch.randn(3, 5, 8).double(), mask)
    loss, count = head.loss(outputs, {"spans": spans})
    assert loss.item() == pytest.approx(dense_loss(outputs["logits"], spans), abs=1e-9)
    assert count == 3 * 3


def test_loss_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 3).double().requires_grad_()
    spans = torch.tensor([[[0, 1, 0], [0, 2, 0]], [NONE, NONE]])
    assert torch.autograd.gradcheck(lambda x: span_loss(x, spans), (logits,))


@pytest.mark.parametrize("efficient", [True, False])
def test_impossible_spans_are_masked(efficient):
    head = GlobalPointerHead(8, 2, head_size=4, efficient=efficient, dropout=0.0)
    logits = head(torch.randn(1, 4, 8), torch.tensor([[0, 1, 1, 0]]))["logits"][0]
    possible = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert (logits[:, ~possible] == MASKED).all()
    assert (logits[:, possible].abs() < 100).all()


def test_rotation_keeps_lengths_and_makes_products_relative():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 6, dtype=torch.float64)
    turned_q, turned_k = rotate(query.expand(20, 6)), rotate(key.expand(20, 6))
    torch.testing.assert_close(turned_q.norm(dim=1), query.norm().expand(20))
    products = turned_q @ turned_k.T
    for distance in range(1, 10):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0].std() > 0.05, "the distance must matter"
    torch.testing.assert_close(products[0, 0], (query @ key.T)[0, 0])


def test_angles_of_the_rotation():
    vectors = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).double().expand(4, 4)
    fast, slow = 3.0, 3.0 * 10000**-0.5
    expected = [math.cos(fast), math.cos(slow), math.sin(fast), math.sin(slow)]
    assert rotate(vectors)[3].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("efficient", [True, False])
def test_equal_tokens_score_by_distance_only_with_rotary(efficient):
    torch.manual_seed(0)
    hidden, mask = torch.randn(1, 1, 8).expand(1, 6, 8), torch.ones(1, 6)
    for rotary in (True, False):
        head = GlobalPointerHead(8, 1, head_size=4, rotary=rotary, efficient=efficient, dropout=0.0)
        torch.nn.init.normal_(head.query_key.weight)
        scores = head(hidden, mask)["logits"][0, 0]
        torch.testing.assert_close(scores[0, 2], scores[3, 5])
        assert torch.isclose(scores[0, 2], scores[0, 4]).item() is not rotary


def test_efficient_scores_add_up_as_documented():
    torch.manual_seed(0)
    head = GlobalPointerHead(8, 2, head_size=4, rotary=False, dropout=0.0)
    hidden = torch.randn(1, 3, 8)
    logits = head(hidden, torch.ones(1, 3))["logits"]
    projected = head.query_key(hidden)[0]
    query, key, ends = projected[:, :4], projected[:, 4:], head.ends(projected)
    expected = (query[0] @ key[2]) / 2 + ends[0, 1] + ends[2, 2 + 1]
    torch.testing.assert_close(logits[0, 1, 0, 2], expected)


def test_odd_head_size_is_refused():
    with pytest.raises(ValueError, match="head_size is 5; it must be even"):
        GlobalPointerHead(8, 2, head_size=5, dropout=0.0)


def test_decode_spans():
    logits = np.full((2, 4, 4), MASKED, dtype=np.float32)
    logits[1, 0, 2], logits[0, 1, 1], logits[0, 0, 2], logits[1, 3, 3] = 0.5, 2.0, 1.0, -0.25
    assert decode_spans(logits) == [(0, 2, 0, 1.0), (0, 2, 1, 0.5), (1, 1, 0, 2.0)]
    assert decode_spans(logits, threshold=0.75) == [(0, 2, 0, 1.0), (1, 1, 0, 2.0)]
    assert decode_spans(logits, threshold=-1.0)[-1] == (3, 3, 1, -0.25)
    assert decode_spans(logits[:, :0, :0]) == []


def test_an_untrained_model_gives_no_more_spans_than_tokens():
    logits = np.random.default_rng(0).uniform(0.1, 1.0, (3, 120, 120)).astype(np.float32)
    found = decode_spans(logits)
    assert len(found) == 120
    assert sorted(score for *_, score in found) == sorted(np.sort(logits, axis=None)[-120:].tolist())


def test_training_finds_the_gold_spans():
    """Nested spans of one sentence, learned by heart through the head alone."""
    torch.manual_seed(0)
    head = GlobalPointerHead(16, 2, head_size=16, dropout=0.0)
    hidden, mask = torch.randn(1, 6, 16), torch.ones(1, 6)
    gold = [(1, 4, 0), (1, 2, 1), (4, 4, 1)]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        head.loss(head(hidden, mask), {"spans": torch.tensor([gold])})[0].backward()
        optimizer.step()
    found = decode_spans(head(hidden, mask)["logits"][0].detach().numpy())
    assert sorted(span[:3] for span in found) == sorted(gold)


def test_labels_begin_rare():
    """Of all spans of a row of 64 tokens about one false one a label is expected; of 0 each it would be 2,080."""
    torch.manual_seed(0)
    hidden, mask = torch.randn(2, 64, 8), torch.ones(2, 64, dtype=torch.long)
    outputs = GlobalPointerHead(8, 3, dropout=0.0)(hidden, mask)
    expected_BL = outputs["logits"].flatten(2).exp().sum(dim=-1)
    assert ((expected_BL > 0.2) & (expected_BL < 2)).all()
