"""The loss of the answer span head against cross-entropy and sums of probabilities, written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from wenmai.heads.answer_span import AnswerSpanHead
from wenmai.heads.head import IGNORE

TOKENS = 9


@pytest.fixture
def head() -> AnswerSpanHead:
    torch.manual_seed(0)
    head = AnswerSpanHead(6, dropout=0.0).double()
    torch.nn.init.normal_(head.output.weight)
    return head


def outputs_of(head: AnswerSpanHead, rows: int) -> dict[str, torch.Tensor]:
    return head(torch.randn(rows, TOKENS, 6, dtype=torch.float64), torch.ones(rows, TOKENS))


def batch(answers: list[list[tuple[int, int]]], content: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    most = max(1, max(map(len, answers)))
    padded = [[*places, *[(IGNORE, IGNORE)] * (most - len(places))] for places in answers]
    return {"answers": torch.tensor(padded), "content": torch.tensor(content)[:, None]}


def test_one_place_is_the_cross_entropy_of_start_and_end(head: AnswerSpanHead) -> None:
    outputs = outputs_of(head, 3)
    loss, count = head.loss(outputs, batch([[(2, 4)], [(5, 5)], [(0, 0)]], [(1, TOKENS)] * 3))
    expected = cross_entropy(outputs["start"], torch.tensor([2, 5, 0]), reduction="sum")
    expected = expected + cross_entropy(outputs["end"], torch.tensor([4, 5, 0]), reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert count == 6


def test_probabilities_of_several_places_add_up_and_each_token_counts_once(head: AnswerSpanHead) -> None:
    outputs = outputs_of(head, 1)
    loss, count = head.loss(outputs, batch([[(2, 4), (2, 6), (5, 6)]], [(1, TOKENS)]))
    start, end = (outputs[name][0].softmax(-1) for name in ("start", "end"))
    torch.testing.assert_close(loss, -((start[2] + start[5]).log() + (end[4] + end[6]).log()))
    assert count == 2


def test_only_the_context_and_the_first_token_compete(head: AnswerSpanHead) -> None:
    """The question, the special tokens around it and the last one may score what they like."""
    outputs = outputs_of(head, 1)
    given = batch([[(5, 6)]], [(4, 8)])
    loss, _ = head.loss(outputs, given)
    chosen = torch.tensor([0, 4, 5, 6, 7])
    start, end = (outputs[name][0][chosen].log_softmax(-1) for name in ("start", "end"))
    torch.testing.assert_close(loss, -(start[2] + end[3]))
    louder = {name: scores.clone() for name, scores in outputs.items()}
    for scores in louder.values():
        scores[0, [1, 2, 3, 8]] += 50.0
    torch.testing.assert_close(head.loss(louder, given)[0], loss)


def test_rows_of_unknown_places_have_no_terms(head: AnswerSpanHead) -> None:
    outputs = outputs_of(head, 2)
    loss, count = head.loss(outputs, batch([[], [(3, 3)]], [(1, TOKENS)] * 2))
    alone, _ = head.loss({n: o[1:] for n, o in outputs.items()}, batch([[(3, 3)]], [(1, TOKENS)]))
    torch.testing.assert_close(loss, alone)
    assert count == 2
    nothing, none = head.loss(outputs, batch([[], []], [(1, TOKENS)] * 2))
    assert (nothing.item(), none) == (0.0, 0) and nothing.requires_grad
