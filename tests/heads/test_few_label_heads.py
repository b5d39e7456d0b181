"""The heads for few labels: a cloze by hand, contrast over pairs, and logistic regression as scikit-learn has it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from wenmai.heads.cloze import ClozeHead
from wenmai.heads.head import IGNORE
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.heads.similar_rows import SimilarRowsHead, logistic_regression

H, V = 6, 9


def test_cloze_scores_are_mean_log_probabilities_of_pieces() -> None:
    """Two masks; label 0 is one piece or two others, label 1 two pieces."""
    torch.manual_seed(0)
    lm = MaskedLMHead(H, nn.Embedding(V, H)).double()
    lm._tied[0].double()
    head = ClozeHead(lm, words=[[3], [4, 5], [6, 2]], label_of_word=[0, 0, 1]).double()
    hidden = torch.randn(2, 5, H, dtype=torch.float64)
    slots = torch.tensor([[0, 1, 2, 0, 0], [0, 0, 0, 1, 2]])
    logits = head(hidden, torch.ones(2, 5), slots)["logits"].detach()
    for row, (first, second) in enumerate([(1, 2), (3, 4)]):
        p = lm(hidden, torch.ones(2, 5))["logits"][row].detach().softmax(dim=-1)
        one, two = p[first, 3], (p[first, 4] * p[second, 5]).sqrt()
        assert logits[row, 0].item() == pytest.approx(math.log((one + two) / 2), rel=1e-9)
        assert logits[row, 1].item() == pytest.approx(math.log((p[first, 6] * p[second, 2]).sqrt()), rel=1e-9)


def similar_rows(labels: int = 3) -> SimilarRowsHead:
    return SimilarRowsHead(H, labels, pooling="cls", inverse_regularization=1.0)


def test_pairs_of_both_kinds_weigh_the_same() -> None:
    embedding = torch.randn(5, H, dtype=torch.float64)
    label = torch.tensor([0, 1, 0, IGNORE, 1])
    loss, terms = similar_rows().loss({"embedding": embedding}, {"label": label})
    unit = (embedding / embedding.norm(dim=1, keepdim=True)).numpy()
    same, other = [], []
    for i in (0, 1, 2, 4):
        for j in (0, 1, 2, 4):
            if i < j:
                (same if label[i] == label[j] else other).append(float(unit[i] @ unit[j]))
    assert (len(same), len(other), terms) == (2, 4, 1)
    expected = (np.mean([(1 - c) ** 2 for c in same]) + np.mean([c**2 for c in other])) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_memory_does_not_grow_with_pairs_times_width() -> None:
    rows, width = 32, 64
    embedding = torch.randn(rows, width, requires_grad=True)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        similar_rows().loss({"embedding": embedding}, {"label": torch.arange(rows) % 3})
    assert kept and max(kept) <= max(rows * rows, rows * width)


@pytest.mark.parametrize(("labels", "expected"), [([0], (0.0, 0)), ([0, 0], (None, 1)), ([0, 1], (None, 1))])
def test_steps_without_pairs_of_a_kind(labels: list[int], expected: tuple[float | None, int]) -> None:
    embedding = torch.randn(len(labels), H)
    loss, terms = similar_rows().loss({"embedding": embedding}, {"label": torch.tensor(labels)})
    assert terms == expected[1] and torch.isfinite(loss)
    if expected[0] is not None:
        assert float(loss) == expected[0]
    else:
        cosine = torch.cosine_similarity(embedding[0], embedding[1], dim=0)
        assert float(loss) == pytest.approx(
            float((1 - cosine if labels == [0, 0] else cosine) ** 2), rel=1e-5
        )


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("labels", [3, 5])
def test_logistic_regression_is_that_of_scikit_learn(labels: int, c: float) -> None:
    rng = np.random.default_rng(labels)
    label = np.arange(60) % labels
    x = rng.normal(size=(60, H)) + label[:, None] * 0.7
    weight, bias = logistic_regression(
        torch.tensor(x), torch.tensor(label), labels=labels, inverse_regularization=c
    )
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, label)
    expected = theirs.predict_log_proba(x)
    found = torch.log_softmax(torch.tensor(x) @ weight.T + bias, dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=2e-4)


def test_fitting_takes_what_is_labelled_and_stays_out_of_the_gradients() -> None:
    head = similar_rows(labels=2)
    embedding = torch.cat([torch.randn(10, H) + 3, torch.randn(10, H) - 3])
    label = torch.tensor([0] * 10 + [1] * 9 + [IGNORE])
    assert not list(head.parameters())
    head.fit({"embedding": embedding}, {"label": label})
    logits = head(embedding[:, None], torch.ones(20, 1))["logits"]
    assert (logits.argmax(dim=1)[:19] == label[:19]).all()
    again = similar_rows(labels=2)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(embedding[:, None], torch.ones(20, 1))["logits"], logits)
