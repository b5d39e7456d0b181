"""The joint loss of intents and slots: the sum of its parts by hand, and what conditioning sees."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from wenmai.heads.head import IGNORE
from wenmai.heads.slot_filling import SlotFillingHead

H, INTENTS, TAGS, WEIGHT = 5, 3, 4, 0.3
LABEL = torch.tensor([2, IGNORE, 0])
HELD = torch.tensor([[[0], [2]], [[IGNORE], [IGNORE]], [[1], [IGNORE]]])
HOLDS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.float64)
SLOTS = torch.tensor([[IGNORE, 1, 3, IGNORE], [IGNORE, IGNORE, IGNORE, IGNORE], [IGNORE, 0, 2, 1]])
MASK = torch.ones(3, 4)


def head_of(*, several: bool = False, crf: bool = False, conditioned: bool = False) -> SlotFillingHead:
    torch.manual_seed(1)
    head = SlotFillingHead(
        H,
        INTENTS,
        TAGS,
        pooling="cls",
        several=several,
        crf=crf,
        allowed=None,
        conditioned=conditioned,
        slot_weight=WEIGHT,
        dropout=0.0,
    ).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_loss_by_hand(several: bool, crf: bool) -> None:
    head = head_of(several=several, crf=crf)
    hidden = torch.randn(3, 4, H, dtype=torch.float64)
    outputs = head(hidden, MASK)
    found, count = head.loss(outputs, {"tags": SLOTS, "label": LABEL, "labels": HELD})
    logits = outputs["intent_logits"]
    torch.testing.assert_close(logits, head.intents.output(hidden[:, 0]))
    if several:
        expected = binary_cross_entropy_with_logits(logits, HOLDS, reduction="sum")
    else:
        expected = cross_entropy(logits[[0, 2]], LABEL[[0, 2]], reduction="sum")
    for row in range(3):
        tagged = [at for at in range(4) if SLOTS[row, at] != IGNORE]
        if not tagged:
            continue
        scores, gold = outputs["logits"][row, tagged], SLOTS[row, tagged]
        if crf:
            steps = outputs["transitions"][row]

            def score(path: tuple[int, ...], scores=scores, steps=steps) -> torch.Tensor:
                total = steps[TAGS, path[0]] + steps[TAGS + 1, path[-1]]
                total = total + sum(scores[t, tag] for t, tag in enumerate(path))
                return total + sum(steps[a, b] for a, b in pairwise(path))

            paths = torch.stack([score(path) for path in product(range(TAGS), repeat=len(tagged))])
            loss = paths.logsumexp(0) - score(tuple(gold.tolist()))
        else:
            loss = cross_entropy(scores, gold, reduction="sum")
        expected = expected + WEIGHT * loss / len(tagged)
    torch.testing.assert_close(found, expected)
    assert count == 3


@pytest.mark.parametrize("several", [False, True])
def test_slots_see_the_intents_only_if_asked(several: bool) -> None:
    hidden = torch.randn(1, 4, H, dtype=torch.float64)
    for conditioned in (False, True):
        head = head_of(several=several, conditioned=conditioned)
        before = head(hidden, MASK[:1])
        with torch.no_grad():
            head.intents.output.bias += torch.tensor([0.0, 20.0, 0.0], dtype=torch.float64)
        after = head(hidden, MASK[:1])
        assert torch.equal(before["logits"], after["logits"]) is not conditioned
        if head.wanted is not None:
            shares = after["intent_logits"].sigmoid() if several else after["intent_logits"].softmax(-1)
            shares = shares / shares.sum()
            expected = head.slots.output(hidden + shares @ head.wanted.weight)
            torch.testing.assert_close(after["logits"], expected)
