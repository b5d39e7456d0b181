"""What R-Drop adds: against Kullback-Leibler divergences of numpy, and the published objective as a whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wenmai.heads.classification import ClassificationHead, RegressionHead
from wenmai.heads.contrastive import ContrastiveHead
from wenmai.heads.divergence import sigmoid_divergence, softmax_divergence
from wenmai.heads.global_pointer import GlobalPointerHead
from wenmai.heads.head import IGNORE
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.heads.tagging import TaggingHead


def noise(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def softmax(scores):
    shares = np.exp(np.asarray(scores))
    return shares / shares.sum()


def test_softmax_divergence_is_a_quarter_of_both_directions():
    first, second = noise(5, 4, seed=0), noise(5, 4, seed=1)
    expected = [
        (kl(softmax(a), softmax(b)) + kl(softmax(b), softmax(a))) / 4
        for a, b in zip(first, second, strict=True)
    ]
    assert softmax_divergence(first, second).tolist() == pytest.approx(expected, rel=1e-12)


def test_sigmoid_divergence_is_that_of_two_labels():
    first, second = noise(6, seed=2), noise(6, seed=3)
    zero = torch.zeros_like(first)
    two_way = softmax_divergence(torch.stack([zero, first], 1), torch.stack([zero, second], 1))
    torch.testing.assert_close(sigmoid_divergence(first, second), two_way)


def test_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4): each direction is (3/4 - 1/4) log 3
    ahead, behind = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    assert softmax_divergence(ahead, behind).item() == pytest.approx(math.log(3) / 4)
    up, down = torch.tensor([math.log(3.0)]), torch.tensor([-math.log(3.0)])
    assert sigmoid_divergence(up, down).item() == pytest.approx(math.log(3) / 4)


@pytest.mark.parametrize("divergence", [softmax_divergence, sigmoid_divergence])
def test_a_quarter_is_a_divergence(divergence):
    first, second = noise(5, 4, seed=4), noise(5, 4, seed=5)
    torch.testing.assert_close(divergence(first, second), divergence(second, first))
    assert (divergence(first, second).double() > 0).all()
    assert not divergence(first, first).any()
    first.requires_grad_(), second.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: divergence(a, b).sum(), (first, second))
    half = divergence(first.bfloat16(), second.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_half_of_the_published_objective(alpha):
    """Liang, Wu et al. 2021, equations 1 to 4, an example at a time."""
    head = ClassificationHead(4, 3, pooling="cls", dropout=0.0)
    first, second = {"logits": noise(4, 3, seed=6)}, {"logits": noise(4, 3, seed=7)}
    batch = {"label": torch.tensor([2, 0, IGNORE, 1])}
    published = 0.0
    for a, b, gold in zip(first["logits"], second["logits"], batch["label"].tolist(), strict=True):
        if gold != IGNORE:
            p, q = softmax(a), softmax(b)
            published += -math.log(p[gold]) - math.log(q[gold]) + alpha * (kl(p, q) + kl(q, p)) / 2
    ours = (head.loss(first, batch)[0] + head.loss(second, batch)[0]) / 2
    ours = ours + alpha * head.divergence(first, second, batch)
    assert ours.item() == pytest.approx(published / 2, rel=1e-12)


def test_rows_without_a_label_have_none():
    head = ClassificationHead(4, 3, pooling="cls", dropout=0.0)
    first, second = {"logits": noise(2, 3, seed=0)}, {"logits": noise(2, 3, seed=1)}
    some = head.divergence(first, second, {"label": torch.tensor([IGNORE, 1])})
    torch.testing.assert_close(some, softmax_divergence(first["logits"][1:], second["logits"][1:]).sum())
    assert head.divergence(first, second, {"label": torch.tensor([IGNORE, IGNORE])}).item() == 0.0


def test_multi_label_is_summed_over_labels_of_all_rows():
    head = ClassificationHead(4, 3, pooling="cls", dropout=0.0, multi_label=True)
    first, second = noise(2, 3, seed=0), noise(2, 3, seed=1)
    batch = {"labels": torch.tensor([[[1]], [[IGNORE]]])}
    expected = 0.0
    for a, b in zip(first.sigmoid().flatten().tolist(), second.sigmoid().flatten().tolist(), strict=True):
        p, q = np.array([a, 1 - a]), np.array([b, 1 - b])
        expected += (kl(p, q) + kl(q, p)) / 4
    found = head.divergence({"logits": first}, {"logits": second}, batch)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_regression_is_half_the_squared_difference_where_a_score_is_known():
    head = RegressionHead(4, pooling="cls", dropout=0.0)
    first, second = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 9.0, 1.0])
    batch = {"score": torch.tensor([0.0, math.nan, 0.0])}
    assert head.divergence({"score": first}, {"score": second}, batch).item() == (9.0 + 4.0) / 2


def test_tagging_counts_labelled_tokens():
    head = TaggingHead(4, 3, dropout=0.0)
    first, second = noise(2, 4, 3, seed=0), noise(2, 4, 3, seed=1)
    tags = torch.tensor([[IGNORE, 0, 2, IGNORE], [1, IGNORE, IGNORE, IGNORE]])
    expected = softmax_divergence(first[[0, 0, 1], [1, 2, 0]], second[[0, 0, 1], [1, 2, 0]]).sum()
    torch.testing.assert_close(
        head.divergence({"logits": first}, {"logits": second}, {"tags": tags}), expected
    )


def test_pointer_sums_over_the_spans_of_every_row_and_label():
    torch.manual_seed(0)
    head = GlobalPointerHead(8, 2, head_size=4, dropout=0.0).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    first, second = head(noise(2, 3, 8, seed=0), mask), head(noise(2, 3, 8, seed=1), mask)
    spans = {"spans": torch.full((2, 1, 3), IGNORE)}
    expected = 0.0
    for row, length in enumerate((3, 2)):
        for label in range(2):
            for i in range(length):
                for j in range(i, length):
                    a, b = first["logits"][row, label, i, j].item(), second["logits"][row, label, i, j].item()
                    expected += (1 / (1 + math.exp(-a)) - 1 / (1 + math.exp(-b))) * (a - b) / 4
    assert head.divergence(first, second, spans).item() == pytest.approx(expected, rel=1e-9)
    half = [{"logits": outputs["logits"].half()} for outputs in (first, second)]
    assert head.divergence(*half, spans).item() == pytest.approx(expected, rel=0.01)


def test_masked_lm_counts_hidden_tokens_in_either_form_of_the_logits():
    torch.manual_seed(0)
    head = MaskedLMHead(6, torch.nn.Embedding(11, 6).double()).double()
    batch = {"original": torch.tensor([[IGNORE, 3, IGNORE, 10], [0, IGNORE, IGNORE, IGNORE]])}
    hidden, mask = (noise(2, 4, 6, seed=0), noise(2, 4, 6, seed=1)), torch.ones(2, 4)
    few = [head.training_outputs(states, mask, batch) for states in hidden]
    full = [head(states, mask) for states in hidden]
    expected = softmax_divergence(few[0]["logits"], few[1]["logits"])
    assert expected.shape == (3,) and (expected > 1e-6).all()
    torch.testing.assert_close(head.divergence(*few, batch), expected.sum())
    torch.testing.assert_close(head.divergence(*full, batch), expected.sum())


def test_where_it_is_not_defined_the_head_says_so():
    head = ContrastiveHead(pooling="mean", temperature=0.1)
    outputs = {"embedding": noise(2, 3, seed=0)}
    assert not head.defines_divergence
    with pytest.raises(NotImplementedError, match="R-Drop is not defined for ContrastiveHead"):
        head.divergence(outputs, outputs, {})
