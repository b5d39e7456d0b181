"""Strict span scores agree with seqeval on random tags and with numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from wenmai.metrics.spans import NO_SPAN, span_confusion, span_errors, span_scores, span_scores_by
from wenmai.text.spans import Span

LABELS = ["ORG", "人名", "LOC"]
LENGTH = 30


def random_spans(rng: np.random.Generator) -> list[Span]:
    spans, at = [], int(rng.integers(0, 6))
    while (end := at + int(rng.integers(1, 6))) <= LENGTH:
        spans.append(Span(at, end, str(rng.choice(LABELS))))
        at = end + int(rng.integers(0, 6))
    return spans


def disturbed(spans: list[Span], rng: np.random.Generator) -> list[Span]:
    """Some spans lost, relabelled or cut short: still flat."""
    kept = []
    for span in spans:
        chance = rng.random()
        if chance < 0.15:
            continue
        label = str(rng.choice(LABELS)) if chance < 0.35 else span.label
        end = span.end - 1 if chance > 0.85 and span.end - span.start > 1 else span.end
        kept.append(Span(span.start, end, label))
    return kept


def tags(spans: list[Span]) -> list[str]:
    column = ["O"] * LENGTH
    for span in spans:
        column[span.start : span.end] = [f"I-{span.label}"] * (span.end - span.start)
        column[span.start] = f"B-{span.label}"
    return column


@pytest.fixture(params=range(4))
def corpus(request: pytest.FixtureRequest) -> tuple[list[list[Span]], list[list[Span]]]:
    rng = np.random.default_rng(request.param)
    gold = [random_spans(rng) for _ in range(60)]
    return gold, [disturbed(spans, rng) for spans in gold]


def test_equals_seqeval_strict(corpus: tuple[list[list[Span]], list[list[Span]]]) -> None:
    gold, predicted = corpus
    values = span_scores(gold, predicted, LABELS).values()
    expected = classification_report(
        [tags(spans) for spans in gold],
        [tags(spans) for spans in predicted],
        mode="strict", scheme=IOB2, output_dict=True, zero_division=0,
    )  # fmt: skip

    for name in ("precision", "recall", "f1"):
        theirs = "f1-score" if name == "f1" else name
        assert values[name] == pytest.approx(expected["micro avg"][theirs])
        assert values[f"macro_{name}"] == pytest.approx(expected["macro avg"][theirs])
        for label in LABELS:
            assert values[f"label/{label}/{name}"] == pytest.approx(expected[label][theirs])
    assert values["weighted_f1"] == pytest.approx(expected["weighted avg"]["f1-score"])
    assert [values[f"label/{label}/support"] for label in LABELS] == [
        expected[label]["support"] for label in LABELS
    ]


def test_boundaries_alone_equal_scores_of_one_label(
    corpus: tuple[list[list[Span]], list[list[Span]]],
) -> None:
    gold, predicted = corpus
    gold_bare = [[span._replace(label="x") for span in spans] for spans in gold]
    predicted_bare = [[span._replace(label="x") for span in spans] for spans in predicted]
    values = span_scores(gold, predicted, LABELS).values()

    assert values["boundary_f1"] == pytest.approx(
        span_scores(gold_bare, predicted_bare, ["x"]).values()["f1"]
    )
    assert values["boundary_f1"] > values["f1"]
    assert values["exact_match"] == pytest.approx(
        np.mean([g == p for g, p in zip(gold, predicted, strict=True)])
    )


def test_nested_and_repeated_spans_by_hand() -> None:
    gold = [[Span(0, 4, "ORG"), Span(0, 2, "LOC"), Span(0, 2, "LOC")], []]
    predicted = [[Span(0, 4, "ORG"), Span(0, 2, "ORG"), Span(0, 4, "ORG")], [Span(1, 2, "LOC")]]
    values = span_scores(gold, predicted, ["ORG", "LOC"]).values()

    assert values["precision"] == pytest.approx(1 / 3)
    assert values["recall"] == pytest.approx(1 / 2)
    assert values["f1"] == pytest.approx(2 / 5)
    assert values["boundary_f1"] == pytest.approx(4 / 5)
    assert values["label/ORG/precision"] == 0.5
    assert values["label/LOC/f1"] == 0.0
    assert values["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert values["exact_match"] == 0.0


def test_without_spans_and_without_examples() -> None:
    silent = span_scores([[], []], [[], []], LABELS)
    assert silent.values()["f1"] == 0.0
    assert silent.values()["exact_match"] == 1.0
    assert silent.intervals(resamples=10)["f1"] == (0.0, 0.0)

    empty = span_scores([], [], LABELS)
    assert set(empty.values().values()) == {0.0}
    assert empty.intervals() == {}
    json.dumps(empty.values(), allow_nan=False)
    assert span_scores_by([], [], lambda _, span: span.label) == {}
    assert span_confusion([], [], [])[1].tolist() == [[0]]


def test_unknown_labels_count_as_mistakes() -> None:
    gold, predicted = [[Span(0, 1, "NEW")]], [[Span(0, 1, "ORG")]]
    values = span_scores(gold, predicted, ["ORG"]).values()

    assert values["recall"] == 0.0
    assert values["label/NEW/support"] == 1.0
    assert span_confusion(gold, predicted, ["ORG"])[0] == ["ORG", "NEW", NO_SPAN]


def group_key(name: str) -> Callable[[int, Span], str]:
    keys: dict[str, Callable[[int, Span], str]] = {
        "length": lambda _, span: str(span.end - span.start),
        "example": lambda index, _: "even" if index % 2 == 0 else "odd",
    }
    return keys[name]


@pytest.mark.parametrize("cut", ["length", "example"])
def test_groups_equal_scores_of_the_spans_in_them(
    corpus: tuple[list[list[Span]], list[list[Span]]], cut: str
) -> None:
    gold, predicted = corpus
    key = group_key(cut)
    groups = span_scores_by(gold, predicted, key)

    assert list(groups) == sorted(groups)
    for group, scores in groups.items():
        members = [
            [[span for span in spans if key(i, span) == group] for i, spans in enumerate(column)]
            for column in (gold, predicted)
        ]
        expected = span_scores(members[0], members[1], LABELS).values()
        values = scores.values()
        assert [values[k] for k in ("precision", "recall", "f1")] == pytest.approx(
            [expected[k] for k in ("precision", "recall", "f1")]
        )
        assert values["support"] == sum(map(len, members[0]))
        assert scores.examples == len(gold)
    assert sum(scores.values()["support"] for scores in groups.values()) == sum(map(len, gold))


def test_a_spurious_span_belongs_to_its_own_group() -> None:
    gold, predicted = [[Span(0, 2, "ORG")]], [[Span(0, 2, "ORG"), Span(4, 9, "ORG")]]
    groups = span_scores_by(gold, predicted, lambda _, span: str(span.end - span.start))

    assert groups["2"].values() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1.0}
    assert groups["5"].values() == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}


def test_confusion_by_hand() -> None:
    gold = [[Span(0, 2, "A"), Span(3, 5, "A"), Span(6, 8, "B")], [Span(0, 2, "B")]]
    predicted = [[Span(0, 2, "A"), Span(3, 5, "B"), Span(6, 9, "B")], [Span(5, 6, "A")]]

    names, matrix = span_confusion(gold, predicted, ["A", "B"])
    assert names == ["A", "B", "(none)"]
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 2], [1, 1, 0]]


def test_confusion_of_several_labels_on_the_same_boundaries() -> None:
    gold, predicted = [[Span(0, 2, "A"), Span(0, 2, "B")]], [[Span(0, 2, "B"), Span(0, 2, "C")]]
    assert span_confusion(gold, predicted, ["A", "B", "C"])[1].tolist() == [
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_confusion_margins_count_every_span(corpus: tuple[list[list[Span]], list[list[Span]]]) -> None:
    gold, predicted = corpus
    names, matrix = span_confusion(gold, predicted, LABELS)
    values = span_scores(gold, predicted, LABELS).values()

    for i, label in enumerate(names[:-1]):
        assert matrix[i].sum() == values[f"label/{label}/support"]
        assert matrix[:, i].sum() == sum(span.label == label for spans in predicted for span in spans)
    assert np.trace(matrix) / sum(map(len, gold)) == pytest.approx(values["recall"])


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([(0, 3, "A")], [(0, 3, "A")], []),
        ([(0, 3, "A")], [(0, 3, "B")], ["wrong_label"]),
        ([(0, 3, "A")], [(1, 3, "A")], ["wrong_boundary"]),
        ([(0, 3, "A")], [(2, 5, "B")], ["wrong_both"]),
        ([(0, 3, "A")], [(3, 5, "A")], ["missed", "spurious"]),
        ([(0, 3, "A")], [], ["missed"]),
        ([], [(0, 3, "A")], ["spurious"]),
        # nested: the right outer span does not excuse the invented inner one
        ([(0, 6, "A")], [(0, 6, "A"), (1, 2, "A")], ["spurious"]),
        # one gold span split in two: the larger piece is its partner
        ([(0, 6, "A")], [(0, 2, "A"), (2, 6, "A")], ["spurious", "wrong_boundary"]),
        # the same label wins over the larger overlap
        ([(0, 6, "A")], [(0, 5, "B"), (5, 6, "A")], ["wrong_boundary", "spurious"]),
    ],
)
def test_kinds_of_errors(
    gold: list[tuple[int, int, str]], predicted: list[tuple[int, int, str]], kinds: list[str]
) -> None:
    errors = span_errors([Span(*span) for span in gold], [Span(*span) for span in predicted])
    assert sorted(error.kind for error in errors) == sorted(kinds)


def test_errors_name_both_spans_in_order_of_the_text() -> None:
    gold = [Span(10, 12, "A"), Span(0, 6, "A"), Span(20, 22, "B")]
    predicted = [Span(10, 12, "B"), Span(0, 2, "A"), Span(2, 6, "A")]

    assert [tuple(error) for error in span_errors(gold, predicted)] == [
        ("spurious", None, Span(0, 2, "A")),
        ("wrong_boundary", Span(0, 6, "A"), Span(2, 6, "A")),
        ("wrong_label", Span(10, 12, "A"), Span(10, 12, "B")),
        ("missed", Span(20, 22, "B"), None),
    ]


def test_every_wrong_span_is_in_exactly_one_error() -> None:
    every = [
        Span(start, end, label) for start, end, label in product(range(4), range(1, 5), "AB") if start < end
    ]
    rng = np.random.default_rng(0)
    for _ in range(300):
        gold = [span for span in every if rng.random() < 0.3]
        predicted = [span for span in every if rng.random() < 0.3]
        errors = span_errors(gold, predicted)

        assert sorted(e.gold for e in errors if e.gold) == sorted(set(gold) - set(predicted))
        assert sorted(e.predicted for e in errors if e.predicted) == sorted(set(predicted) - set(gold))
        for kind, wanted, found in errors:
            same_place = wanted is not None and found is not None and wanted[:2] == found[:2]
            assert same_place == (kind == "wrong_label")
            assert (wanted is None, found is None) == (kind == "spurious", kind == "missed")
