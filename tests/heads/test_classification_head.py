from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from wenmai.heads.classification import ClassificationHead, RegressionHead, multi_hot
from wenmai.heads.head import IGNORE


@pytest.fixture
def logits():
    return torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 4.0]], dtype=torch.float64)


def head(**options):
    return ClassificationHead(4, 3, pooling="mean", dropout=0.0, **options)


def test_single_label_by_hand(logits):
    loss, count = head().loss({"logits": logits}, {"label": torch.tensor([0, 2, IGNORE])})
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-3)) + math.log(3))
    assert count == 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_is_torchs_own(logits, smoothing):
    label = torch.tensor([0, 2, 1])
    loss, count = head(label_smoothing=smoothing).loss({"logits": logits}, {"label": label})
    torch.testing.assert_close(loss / count, cross_entropy(logits, label, label_smoothing=smoothing))


def test_no_labelled_row_is_zero_with_a_graph(logits):
    logits.requires_grad_()
    loss, count = head().loss({"logits": logits}, {"label": torch.tensor([IGNORE] * 3)})
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert not logits.grad.any()


def test_multi_hot():
    ids = torch.tensor([[[2], [0]], [[1], [IGNORE]], [[IGNORE], [IGNORE]]])
    assert multi_hot(ids, 3).int().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multi_label_is_one_two_way_decision_a_label(logits, smoothing):
    ids = torch.tensor([[[2], [0]], [[1], [IGNORE]], [[IGNORE], [IGNORE]]])
    loss, count = head(multi_label=True, label_smoothing=smoothing).loss({"logits": logits}, {"labels": ids})
    two_way = torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(0, 1)
    held = torch.tensor([1, 0, 1, 0, 1, 0, 0, 0, 0])
    torch.testing.assert_close(loss, cross_entropy(two_way, held, label_smoothing=smoothing, reduction="sum"))
    assert count == 3


def test_hidden_layer_is_berts_pooler():
    torch.manual_seed(0)
    built = ClassificationHead(4, 2, pooling="cls", dropout=0.0, hidden_layer=True)
    hidden = torch.randn(1, 3, 4)
    expected = built.output(torch.tanh(built.row.dense(hidden[:, 0])))
    torch.testing.assert_close(built(hidden, torch.ones(1, 3))["logits"], expected)
    assert head().row.dense is None


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    built = ClassificationHead(64, 2, pooling="mean", dropout=0.5)
    hidden, mask = torch.randn(1, 3, 64), torch.ones(1, 3)
    assert not torch.equal(built(hidden, mask)["logits"], built(hidden, mask)["logits"])
    built.eval()
    assert torch.equal(built(hidden, mask)["logits"], built(hidden, mask)["logits"])


def test_fresh_weights_are_small_and_biases_zero():
    torch.manual_seed(0)
    layer = ClassificationHead(400, 50, pooling="mean", dropout=0.0).output
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.bias.any()


def test_regression_by_hand():
    built = RegressionHead(4, pooling="cls", dropout=0.0)
    score = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    loss, count = built.loss({"score": score}, {"score": torch.tensor([-0.5, math.nan, 5.0])})
    assert (loss.item(), count) == (2.25 + 4.0, 2)
    loss.backward()
    assert score.grad.tolist() == [3.0, 0.0, -4.0]
    assert built(torch.randn(2, 3, 4), torch.ones(2, 3))["score"].shape == (2,)
