"""Box embeddings are LayoutLM's, and link scores and their loss are what their formulas say, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LayoutLMConfig
from transformers.models.layoutlm.modeling_layoutlm import LayoutLMEmbeddings

from wenmai.backbones import boxes as backbone_boxes
from wenmai.heads import box_embeddings
from wenmai.heads.box_embeddings import BoxEmbeddings
from wenmai.heads.layout import LayoutHead, page_link_scores
from wenmai.heads.page_links import (
    IMPOSSIBLE,
    STEPS,
    LinkFactors,
    LinkScorer,
    link_loss,
    link_scores,
)

N, D, C = 5, 4, 3


def random_boxes(rng: np.random.Generator, *shape: int) -> Tensor:
    corners = np.sort(rng.integers(0, 1001, (*shape, 2, 2)), axis=-2)
    return torch.from_numpy(corners.reshape(*shape, 4))


def test_heads_and_backbones_call_boxes_the_same() -> None:
    assert box_embeddings.BOX == backbone_boxes.BOX


def test_box_embeddings_are_those_of_layoutlm() -> None:
    config = LayoutLMConfig(vocab_size=7, hidden_size=8, num_attention_heads=2, hidden_dropout_prob=0.0)
    theirs = LayoutLMEmbeddings(config)
    ours = BoxEmbeddings(8)
    with torch.no_grad():
        for table, name in ((ours.x, "x"), (ours.y, "y"), (ours.w, "w"), (ours.h, "h")):
            table.weight.copy_(getattr(theirs, f"{name}_position_embeddings").weight[: len(table.weight)])
        box = random_boxes(np.random.default_rng(0), 2, 6)
        ids = torch.zeros(2, 6, dtype=torch.long)
        summed = (
            theirs.word_embeddings(ids)
            + theirs.position_embeddings(torch.arange(6))
            + theirs.token_type_embeddings(ids)
            + ours(box)
        )
        torch.testing.assert_close(theirs.LayerNorm(summed), theirs(input_ids=ids, bbox=box))


def test_box_embeddings_begin_with_the_encoder_as_it_is() -> None:
    assert not BoxEmbeddings(8)(random_boxes(np.random.default_rng(0), 2, 6)).any()


def factors_of(rng: np.random.Generator) -> LinkFactors:
    torch.manual_seed(int(rng.integers(1000)))
    scorer = LinkScorer(6, D, C, torch.from_numpy(rng.random((C, C)) < 0.7))
    for parameter in scorer.parameters():
        torch.nn.init.normal_(parameter)
    return scorer(torch.randn(N, 6))


def step(distance: float) -> int:
    return sum(distance >= start for start in STEPS)


@pytest.mark.parametrize("seed", range(5))
def test_link_scores_pair_by_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = factors_of(rng)
    label, box = torch.from_numpy(rng.integers(0, C, N)), random_boxes(rng, N)
    found = link_scores(factors, label, box)
    for k in range(N):
        for v in range(N):
            (x0, y0, x1, y1), (u0, v0, u1, v1) = box[k].tolist(), box[v].tolist()
            across = u0 - x1 if u0 > x1 else -(x0 - u1) if x0 > u1 else 0
            down = v0 - y1 if v0 > y1 else -(y0 - v1) if y0 > v1 else 0
            expected = (
                (factors.keys[k] @ factors.values[v]).item() / math.sqrt(D)
                + factors.types[label[k], label[v]].item()
                + factors.places[0, step(across), step(down)].item()
                + factors.places[1, step(u0 - x0), step(v0 - y0)].item()
            )
            if k == v or expected < IMPOSSIBLE / 2:
                expected = IMPOSSIBLE
            assert found[k, v].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_decoding_scores_pairs_as_training_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = factors_of(rng)
    label, box = torch.from_numpy(rng.integers(0, C, N)), random_boxes(rng, N)
    outputs = {name: getattr(factors, name).detach().numpy() for name in LinkFactors._fields}
    found = page_link_scores(outputs, label.numpy(), box.numpy())
    np.testing.assert_allclose(found, link_scores(factors, label, box).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_link_loss_value_by_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(size=(2, N, N)))
    scores[torch.from_numpy(rng.random((2, N, N)) < 0.3)] = IMPOSSIBLE
    gold = torch.from_numpy(rng.random((2, N, N)) < 0.3)
    entity = torch.from_numpy(rng.random((2, N)) < 0.8)
    expected = 0.0
    for b in range(2):
        for v in range(N):
            wrong = missed = 1.0
            for k in range(N):
                score = scores[b, k, v].item()
                if score == IMPOSSIBLE or not (entity[b, k] and entity[b, v]):
                    continue
                wrong += 0.0 if gold[b, k, v] else math.exp(score)
                missed += math.exp(-score) if gold[b, k, v] else 0.0
            expected += math.log(wrong) + math.log(missed)
    assert link_loss(scores, gold, entity).item() == pytest.approx(expected)


def test_without_boxes_in_the_batch_nothing_is_added() -> None:
    head = LayoutHead(
        8, tags=3, link_size=0, possible=np.ones((1, 1), bool), link_weight=1.0, boxes=8, dropout=0.0
    )
    assert head.added_to_words({"input_ids": torch.zeros(1, 4, dtype=torch.long)}) is None
