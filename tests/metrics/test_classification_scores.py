"""Class metrics agree with scikit-learn on random data and with numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.preprocessing import MultiLabelBinarizer

from wenmai.metrics.classification import (
    all_labels,
    classification_scores,
    confusion_matrix,
    multilabel_scores,
)

LABELS = ["体育", "财经", "科技", "娱乐", "rare", "never"]


def random_columns(seed: int, examples: int = 300) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    gold = rng.choice(LABELS[:5], size=examples, p=[0.4, 0.3, 0.2, 0.09, 0.01])
    noise = rng.choice(LABELS[:4], size=examples)
    predicted = np.where(rng.random(examples) < 0.6, gold, noise)
    return gold.tolist(), predicted.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("examples", [1, 7, 300])
def test_single_label_equals_scikit_learn(seed: int, examples: int) -> None:
    gold, predicted = random_columns(seed, examples)
    values = classification_scores(gold, predicted, LABELS).values()

    assert values["accuracy"] == pytest.approx(reference.accuracy_score(gold, predicted))
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = reference.precision_recall_fscore_support(
            gold, predicted, average=average, zero_division=0
        )
        assert values[f"{average}_f1"] == pytest.approx(f1)
        if average == "macro":
            assert (values["macro_precision"], values["macro_recall"]) == pytest.approx((precision, recall))
    by_label = reference.precision_recall_fscore_support(gold, predicted, labels=LABELS, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), by_label, strict=True):
        assert [values[f"label/{label}/{name}"] for label in LABELS] == pytest.approx(list(column))
    np.testing.assert_array_equal(
        confusion_matrix(gold, predicted, LABELS), reference.confusion_matrix(gold, predicted, labels=LABELS)
    )


@pytest.mark.parametrize("seed", range(5))
def test_multilabel_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = [[label for label in LABELS[:5] if rng.random() < 0.3] for _ in range(200)]
    predicted = [[label for label in LABELS[:5] if (label in row) ^ (rng.random() < 0.2)] for row in gold]
    values = multilabel_scores(gold, predicted, LABELS[:5]).values()

    binary = MultiLabelBinarizer(classes=LABELS[:5])
    gold_NL, predicted_NL = binary.fit_transform(gold), binary.transform(predicted)
    for average, prefix in (("micro", ""), ("macro", "macro_")):
        expected = reference.precision_recall_fscore_support(
            gold_NL, predicted_NL, average=average, zero_division=0
        )
        assert [values[f"{prefix}{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(
            list(expected[:3])
        )
    assert values["weighted_f1"] == pytest.approx(
        reference.f1_score(gold_NL, predicted_NL, average="weighted", zero_division=0)
    )
    assert values["exact_match"] == pytest.approx(reference.accuracy_score(gold_NL, predicted_NL))
    assert values["hamming_loss"] == pytest.approx(reference.hamming_loss(gold_NL, predicted_NL))
    by_label = reference.f1_score(gold_NL, predicted_NL, average=None, zero_division=0)
    assert [values[f"label/{label}/f1"] for label in LABELS[:5]] == pytest.approx(list(by_label))


def test_by_hand() -> None:
    values = classification_scores(["a", "a", "b", "c"], ["a", "b", "b", "b"], ["a", "b", "c", "d"]).values()

    assert values["accuracy"] == 0.5
    assert values["label/b/precision"] == pytest.approx(1 / 3)
    assert values["label/b/recall"] == 1.0
    assert values["label/a/f1"] == pytest.approx(2 / 3)
    assert values["label/c/f1"] == 0.0
    assert values["label/d/support"] == 0.0
    assert values["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3), "d occurs nowhere, so it has no say"
    assert values["weighted_f1"] == pytest.approx((2 * 2 / 3 + 1 / 2) / 4)


def test_a_label_that_is_only_predicted_lowers_the_macro_average() -> None:
    gold, predicted = ["a", "a"], ["a", "b"]
    values = classification_scores(gold, predicted, ["a", "b", "c"]).values()

    assert values["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert values["macro_f1"] == pytest.approx(reference.f1_score(gold, predicted, average="macro"))


def test_multilabel_by_hand() -> None:
    values = multilabel_scores(
        [["a", "b"], [], ["c"]], [["b", "a", "a"], [], ["a"]], ["a", "b", "c"]
    ).values()

    assert (values["precision"], values["recall"]) == pytest.approx((2 / 3, 2 / 3))
    assert values["exact_match"] == pytest.approx(2 / 3)
    assert values["hamming_loss"] == pytest.approx(2 / 9)
    assert values["label/a/precision"] == 0.5


def test_labels_that_training_did_not_know_count_as_mistakes() -> None:
    gold, predicted = ["new", "a", "b"], ["a", "a", "b"]
    values = classification_scores(gold, predicted, ["b", "a"]).values()

    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["label/new/support"] == 1.0
    assert values["macro_f1"] == pytest.approx(reference.f1_score(gold, predicted, average="macro"))
    assert all_labels(["b", "a"], gold, predicted) == ["b", "a", "new"]
    assert confusion_matrix(gold, predicted, ["b", "a"]).tolist() == [[1, 0], [0, 1]]
    assert confusion_matrix(gold, predicted, ["b", "a", "new"]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_nothing_to_score_is_zero_and_json() -> None:
    empty = classification_scores([], [], ["a", "b"])
    assert empty.examples == 0
    assert set(empty.values()) == set(classification_scores(["a"], ["b"], ["a", "b"]).values())
    assert set(empty.values().values()) == {0.0}
    assert empty.intervals() == {}
    json.dumps(empty.values(), allow_nan=False)

    without_labels = multilabel_scores([[], []], [[], []], []).values()
    assert (without_labels["f1"], without_labels["exact_match"], without_labels["hamming_loss"]) == (0, 1, 0)
    assert multilabel_scores([], [], ["a"]).values()["exact_match"] == 0.0
    assert confusion_matrix([], [], []).shape == (0, 0)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError):
        classification_scores(["a", "a"], ["a"], ["a"])
    with pytest.raises(ValueError):
        multilabel_scores([["a"], ["a"]], [["a"]], ["a"])
