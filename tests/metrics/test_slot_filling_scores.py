"""Slots agree with seqeval's strict mode, intents with scikit-learn, whole sentences with a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from wenmai.metrics.slot_filling import slot_filling_scores
from wenmai.text.spans import Span
from wenmai.text.tags import tags_from_spans

INTENTS, SLOTS, TOKENS = ["订票", "天气", "播放"], ["出发", "到达"], 12


def drawn(seed: int) -> tuple[list[list[str]], list[list[Span]]]:
    rng = np.random.default_rng(seed)
    intents, slots = [], []
    for _ in range(120):
        intents.append([name for name in INTENTS if rng.random() < 0.5] or [INTENTS[0]])
        spans, at = [], int(rng.integers(0, 6))
        while (end := at + int(rng.integers(1, 4))) <= TOKENS:
            spans.append(Span(at, end, str(rng.choice(SLOTS))))
            at = end + int(rng.integers(0, 8))
        slots.append(spans)
    return intents, slots


@pytest.fixture(params=range(3))
def both(request: pytest.FixtureRequest) -> tuple[tuple[list[list[str]], list[list[Span]]], ...]:
    gold, other = drawn(request.param), drawn(request.param + 100)
    rng = np.random.default_rng(request.param)
    kept = [rng.random(120) < 0.6 for _ in range(2)]
    predicted = tuple(
        [g if same else o for g, o, same in zip(*parts, chosen, strict=True)]
        for parts, chosen in zip(zip(gold, other, strict=True), kept, strict=True)
    )
    return gold, predicted


def test_agrees_with_the_reference_scorers(
    both: tuple[tuple[list[list[str]], list[list[Span]]], ...],
) -> None:
    gold, predicted = both
    found = slot_filling_scores(gold, predicted, INTENTS, SLOTS).values()
    columns = [[tags_from_spans(spans, TOKENS, "BIO") for spans in part[1]] for part in both]
    for average in ("micro", "macro"):
        theirs = seqeval_f1(*columns, mode="strict", scheme=IOB2, average=average)
        assert found["slot_f1" if average == "micro" else "slot_macro_f1"] == pytest.approx(theirs)
    hot = MultiLabelBinarizer(classes=INTENTS)
    wanted, given = hot.fit_transform(gold[0]), hot.transform(predicted[0])
    assert found["intent_accuracy"] == pytest.approx(accuracy_score(wanted, given))
    assert found["intent_f1"] == pytest.approx(f1_score(wanted, given, average="micro"))
    whole = [
        set(gold[0][i]) == set(predicted[0][i]) and columns[0][i] == columns[1][i]
        for i in range(len(gold[0]))
    ]
    assert found["sentence_accuracy"] == pytest.approx(np.mean(whole))
    assert 0 < found["sentence_accuracy"] < min(found["intent_accuracy"], found["slot_f1"])


def test_by_hand_with_names_that_both_kinds_have() -> None:
    gold = ([["订票"], ["天气"]], [[Span(0, 2, "地点")], []])
    predicted = ([["订票"], ["地点"]], [[Span(0, 2, "地点"), Span(3, 4, "天气")], []])
    scores = slot_filling_scores(gold, predicted, ["天气", "订票"], ["地点"])
    found = scores.values()
    assert (found["intent_accuracy"], found["sentence_accuracy"]) == (0.5, 0.0)
    assert (found["slot_precision"], found["slot_recall"]) == (0.5, 1.0)
    assert found["label/slot:天气/f1"] == 0.0 == found["label/slot:天气/support"]
    assert found["label/intent:天气/support"] == 1.0 and found["label/intent:地点/support"] == 0.0
    assert scores.subset([1]).values()["slot_f1"] == 0.0
