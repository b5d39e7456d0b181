"""The representations of a marked pair, token by token as their papers have them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wenmai.heads.marked_pair import (
    OBJECT,
    OBJECT_START,
    SUBJECT,
    SUBJECT_START,
    MarkedPairHead,
    Representation,
)

H, L = 6, 3
#  CLS <e1> a   b </e1> c <e2> d </e2> SEP
MARKS = [0, SUBJECT_START, SUBJECT, SUBJECT, 0, 0, OBJECT_START, OBJECT, 0, 0]


def head_of(representation: Representation) -> MarkedPairHead:
    torch.manual_seed(0)
    head = MarkedPairHead(H, L, representation=representation, dropout=0.5).double().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def by_hand(head: MarkedPairHead, hidden_TH: Tensor) -> Tensor:
    first, starts = hidden_TH[0], [hidden_TH[1], hidden_TH[6]]
    means = [(hidden_TH[2] + hidden_TH[3]) / 2, hidden_TH[7]]
    if head.representation == "r_bert":
        assert head.first is not None and head.entity is not None
        parts = [head.first(first.tanh()), *(head.entity(mean.tanh()) for mean in means)]
    else:
        parts = {"cls": [first], "entity_starts": starts, "entity_means": means}[head.representation]
    return head.output(torch.cat(parts))


@pytest.mark.parametrize("representation", ["entity_starts", "entity_means", "r_bert", "cls"])
def test_by_hand(representation: Representation) -> None:
    head = head_of(representation)
    hidden = torch.randn(1, len(MARKS), H, dtype=torch.float64)
    marks, mask = torch.tensor([MARKS]), torch.ones(1, len(MARKS))
    logits = head(hidden, mask, marks)["logits"]
    torch.testing.assert_close(logits[0], by_hand(head, hidden[0]))
    # what is said to be read is all that is read
    read = head.tokens_read({"pair_marks": marks}, "predict")
    assert read is not None and 1 <= read.sum() < len(MARKS)
    torch.testing.assert_close(head(hidden * read[..., None], mask, marks)["logits"], logits)


def test_entities_inside_each_other_have_both_bits() -> None:
    head = head_of("entity_means")
    hidden = torch.randn(1, 4, H, dtype=torch.float64)
    marks = torch.tensor([[0, SUBJECT, SUBJECT | OBJECT, 0]])
    expected = head.output(torch.cat([hidden[0, 1:3].mean(0), hidden[0, 2]]))
    torch.testing.assert_close(head(hidden, torch.ones(1, 4), marks)["logits"][0], expected)


def test_in_training_each_vector_is_dropped_by_itself() -> None:
    """The same vector at three places does not lose the same features three times."""
    head = head_of("r_bert").train()
    hidden = torch.ones(1, 3, H, dtype=torch.float64)
    seen: list[Tensor] = []
    for layer in (head.first, head.entity):
        assert layer is not None
        layer.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    head(hidden, torch.ones(1, 3), torch.tensor([[0, SUBJECT, OBJECT]]))
    assert len(seen) == 3 and not torch.equal(seen[1], seen[2])
