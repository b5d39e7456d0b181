from __future__ import annotations

import math

import pytest
import torch

from wenmai.heads.head import IGNORE
from wenmai.heads.tagging import TaggingHead


def test_loss_by_hand():
    logits = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [5.0, 5.0], [5.0, 5.0]]])
    tags = torch.tensor([[IGNORE, 0, 0], [1, IGNORE, IGNORE]])
    loss, count = TaggingHead(4, 2, dropout=0.0).loss({"logits": logits.double()}, {"tags": tags})
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2)) + math.log(2)
    assert (loss.item(), count) == (pytest.approx(expected), 3)


def test_rows_of_empty_texts_give_no_term():
    logits = torch.randn(2, 3, 2, requires_grad=True)
    loss, count = TaggingHead(4, 2, dropout=0.0).loss(
        {"logits": logits}, {"tags": torch.full((2, 3), IGNORE)}
    )
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert not logits.grad.any()
