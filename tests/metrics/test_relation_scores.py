"""The official measure of SemEval-2010 task 8, from its definition and by hand; scikit-learn without directions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from wenmai.metrics.relations import relation_of, relation_scores

RELATIONS = ["Cause-Effect", "Part(Whole)", "居住"]
DIRECTED = [f"{name}({pair})" for name in RELATIONS for pair in ("e1,e2", "e2,e1")]
LABELS = [*DIRECTED, "Other"]


def drawn(labels: list[str], seed: int, number: int = 400) -> tuple[list[str], list[str]]:
    """Gold and predicted labels, of which about half agree."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(labels, number).tolist()
    other = rng.choice(labels, number).tolist()
    return gold, [g if rng.random() < 0.4 else o for g, o in zip(gold, other, strict=True)]


def official(gold: list[str], predicted: list[str]) -> dict[str, float]:
    """The scorer's "(9+1)-way evaluation taking directionality into account", sentence by sentence of its output.

    A confusion matrix over all labels; the cells of one relation with the same direction on both sides are right, those
    with different directions stand in the column xDIRx, which is added to both denominators.
    """
    f1s, precisions, recalls = [], [], []
    for name in RELATIONS:
        one, other = f"{name}(e1,e2)", f"{name}(e2,e1)"
        cell = {
            (g, p): sum(pair == (g, p) for pair in zip(gold, predicted, strict=True))
            for g in LABELS
            for p in LABELS
        }
        right = cell[one, one] + cell[other, other]
        turned = cell[one, other] + cell[other, one]
        elsewhere = [label for label in LABELS if label not in (one, other)]
        as_this = sum(cell[g, p] for g in elsewhere for p in (one, other))
        as_others = sum(cell[g, p] for g in (one, other) for p in elsewhere)
        precision, recall = right / (right + as_this + turned), right / (right + as_others + turned)
        precisions.append(precision)
        recalls.append(recall)
        f1s.append(2 * precision * recall / (precision + recall))
    return {
        "macro_f1": sum(f1s) / len(f1s),
        "macro_precision": sum(precisions) / len(f1s),
        "macro_recall": sum(recalls) / len(f1s),
    }


@pytest.mark.parametrize("seed", range(5))
def test_official_score(seed: int) -> None:
    gold, predicted = drawn(LABELS, seed)
    found = relation_scores(gold, predicted, LABELS, no_relation="Other").values()
    expected = official(gold, predicted)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    turned = [g != p and relation_of(g) == relation_of(p) for g, p in zip(gold, predicted, strict=True)]
    assert found["wrong_direction"] == pytest.approx(np.mean(turned))


@pytest.mark.parametrize("no_relation", ["unknown", None])
def test_labels_without_direction_are_scored_as_scikit_learn_does(no_relation: str | None) -> None:
    labels = ["unknown", "夫妻", "父母", "师生"]
    gold, predicted = drawn(labels, 7)
    counted = [label for label in labels if label != no_relation]
    found = relation_scores(gold, predicted, labels, no_relation=no_relation).values()
    for average in ("macro", "micro"):
        theirs = f1_score(gold, predicted, labels=counted, average=average)
        assert found[f"{average}_f1"] == pytest.approx(theirs)
    assert [key for key in found if key.endswith("/f1")] == [f"label/{label}/f1" for label in counted]


def test_by_hand() -> None:
    gold = ["a(e1,e2)", "a(e1,e2)", "a(e2,e1)", "b", "Other"]
    predicted = ["a(e1,e2)", "a(e2,e1)", "Other", "b", "a(e1,e2)"]
    found = relation_scores(gold, predicted, sorted({*gold}), no_relation="Other").values()
    # a: 1 right of 3 predicted and 3 gold, its turned one among both; b: 1 of 1
    assert found["label/a/precision"] == found["label/a/recall"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 4))
    assert (found["accuracy"], found["wrong_direction"]) == (0.4, 0.2)
    assert found["label/a/support"] == 3


def test_slices_count_what_occurs_in_them() -> None:
    gold, predicted = ["a", "b", "unknown"], ["a", "unknown", "unknown"]
    scores = relation_scores(gold, predicted, ["a", "b", "unknown"], no_relation="unknown")
    assert scores.values()["macro_f1"] == 0.5
    assert scores.subset([0]).values()["macro_f1"] == 1.0
    assert scores.subset([2]).values() == {**scores.subset([2]).values(), "macro_f1": 0.0, "accuracy": 1.0}


def test_direction_is_the_end_of_a_label() -> None:
    assert relation_of("Part(Whole)(e2,e1)") == "Part(Whole)"
    assert relation_of("(e1,e2)") == "(e1,e2)" and relation_of("Other") == "Other"
