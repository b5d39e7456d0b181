"""Strict scores of entities and other labelled spans, and what exactly went wrong.

A predicted span is right only if its start, its end and its label all equal those of a gold span (CoNLL-2003,
Tjong Kim Sang and De Meulder, https://aclanthology.org/W03-0419); on flat spans this is seqeval's
``mode="strict"`` with IOB2. Spans are sets: repetitions count once, nested and overlapping spans are welcome.

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import LabelCounts, Metrics, all_labels
from wenmai.metrics.scores import Scores, TallyScores, ratio
from wenmai.text.spans import Span

NO_SPAN = "(none)"
"""The row of spurious and the column of missed spans in a confusion matrix."""

ErrorKind = Literal["wrong_label", "wrong_boundary", "wrong_both", "missed", "spurious"]
SpanSets = Sequence[Collection[Span]]


class SpanError(NamedTuple):
    """One mistake in one example; ``gold`` is None for a spurious span, ``predicted`` for a missed one."""

    kind: ErrorKind
    gold: Span | None
    predicted: Span | None


def span_scores(gold: SpanSets, predicted: SpanSets, labels: Sequence[str]) -> TallyScores:
    """Micro ``precision``, ``recall``, ``f1``, macro averages, ``boundary_f1``, ``exact_match``, labels.

    ``boundary_f1`` ignores labels; ``exact_match`` is the share of examples whose predicted spans are the
    gold spans (none in both included). Without any span, gold or predicted, the F1s are 0.0 and
    ``exact_match`` is 1.0.

    Args:
        gold, predicted: the spans of each example, in the same order.
        labels: the labels in the order of the report; others in the data follow them, sorted.
    """
    names = _labels_of(gold, predicted, labels)
    ids = {name: i for i, name in enumerate(names)}
    number = len(names)
    boundary_right, boundary_predicted, boundary_gold, exact, examples = range(3 * number, 3 * number + 5)

    def marks() -> Iterator[list[int]]:
        for wanted, found in _paired_sets(gold, predicted):
            row = [ids[span.label] for span in wanted & found]
            row += [ids[span.label] + number for span in found]
            row += [ids[span.label] + 2 * number for span in wanted]
            wanted_ranges = {span[:2] for span in wanted}
            found_ranges = {span[:2] for span in found}
            row += [boundary_right] * len(wanted_ranges & found_ranges)
            row += [boundary_predicted] * len(found_ranges)
            row += [boundary_gold] * len(wanted_ranges)
            row += [exact] if wanted == found else []
            yield [*row, examples]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        both = sums[..., boundary_predicted] + sums[..., boundary_gold]
        return {
            **counts.pooled(),
            **counts.averages(),
            "boundary_f1": ratio(2 * sums[..., boundary_right], both),
            "exact_match": ratio(sums[..., exact], sums[..., examples]),
            **counts.by_label(names),
        }

    return TallyScores.of(marks(), 3 * number + 5, summary)


def span_scores_by(gold: SpanSets, predicted: SpanSets, key: Callable[[int, Span], str]) -> dict[str, Scores]:
    """Strict ``precision``, ``recall``, ``f1`` and ``support`` (gold spans) of groups of spans.

    A gold span counts in its own group, found or missed, and so does a predicted span, right or spurious: no
    span counts twice, and the groups' counts add up to those of :func:`span_scores`.

    Args:
        gold, predicted: the spans of each example, in the same order.
        key: example index and span to the name of the group.

    Returns:
        group -> scores, sorted by name. Each is over all N examples, which most groups touch few of, so that
        the resamples of two models and of all groups are the same.
    """
    owners: defaultdict[str, list[int]] = defaultdict(list)
    columns: defaultdict[str, list[int]] = defaultdict(list)
    for index, (wanted, found) in enumerate(_paired_sets(gold, predicted)):
        for span in wanted | found:
            group = key(index, span)
            held = [column for column, spans in enumerate((wanted & found, found, wanted)) if span in spans]
            owners[group] += [index] * len(held)
            columns[group] += held

    return {
        group: TallyScores(
            np.bincount(owners[group], minlength=len(gold)),
            np.array(columns[group], dtype=np.int32),
            3,
            group_metrics,
        )
        for group in sorted(columns)
    }


def group_metrics(sums: NDArray[np.float64]) -> Metrics:
    """Precision, recall, F1 and support from how many of a group are right, predicted and gold (..., 3)."""
    counts = LabelCounts.split(sums, 1)
    return {**counts.pooled(), "support": sums[..., 2]}


def span_confusion(
    gold: SpanSets, predicted: SpanSets, labels: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Which labels were taken for which: names, and counts (L + 1, L + 1), rows gold, columns predicted.

    Spans with the same boundaries are compared by label. Everything else was missed (last column,
    :data:`NO_SPAN`) or made up (last row). Where several labels share boundaries, right ones are taken out
    first and the rest are paired in alphabetical order.

    Args:
        gold, predicted: the spans of each example, in the same order.
        labels: the labels in the order of the report; others in the data follow them, sorted.
    """
    names = _labels_of(gold, predicted, labels)
    ids = {name: i for i, name in enumerate(names)}
    none = len(names)
    matrix = np.zeros((none + 1, none + 1), dtype=np.int64)
    for wanted, found in _paired_sets(gold, predicted):
        for span in wanted & found:
            matrix[ids[span.label], ids[span.label]] += 1
        for missed, spurious in _same_boundaries(wanted - found, found - wanted):
            row = none if missed is None else ids[missed.label]
            column = none if spurious is None else ids[spurious.label]
            matrix[row, column] += 1
    return [*names, NO_SPAN], matrix


def span_errors(gold: Collection[Span], predicted: Collection[Span]) -> list[SpanError]:
    """The mistakes in one example, in order of their place in the text; right spans are not in it.

    Every wrong span is part of one mistake only. Same boundaries come first (``wrong_label``), then overlaps
    with the same label (``wrong_boundary``), then other overlaps (``wrong_both``), larger overlaps before
    smaller ones; what is left was ``missed`` or is ``spurious``.
    """
    missed, spurious = set(gold) - set(predicted), set(predicted) - set(gold)
    errors: list[SpanError] = []
    for wanted, found in _same_boundaries(missed, spurious):
        if wanted is not None and found is not None:
            errors.append(SpanError("wrong_label", wanted, found))
            missed.remove(wanted)
            spurious.remove(found)

    candidates = [
        (wanted.label != found.label, -overlap, wanted, found)
        for wanted in missed
        for found in spurious
        if (overlap := min(wanted.end, found.end) - max(wanted.start, found.start)) > 0
    ]
    for other_label, _, wanted, found in sorted(candidates):
        if wanted in missed and found in spurious:
            errors.append(SpanError("wrong_both" if other_label else "wrong_boundary", wanted, found))
            missed.remove(wanted)
            spurious.remove(found)

    errors += [SpanError("missed", wanted, None) for wanted in missed]
    errors += [SpanError("spurious", None, found) for found in spurious]
    return sorted(errors, key=_place)


def _place(error: SpanError) -> tuple[list[Span], ErrorKind]:
    return sorted(span for span in (error.gold, error.predicted) if span is not None), error.kind


def _paired_sets(gold: SpanSets, predicted: SpanSets) -> Iterator[tuple[set[Span], set[Span]]]:
    for wanted, found in zip(gold, predicted, strict=True):
        yield set(wanted), set(found)


def _labels_of(gold: SpanSets, predicted: SpanSets, labels: Sequence[str]) -> list[str]:
    return all_labels(
        labels, *({span.label for span in spans} for part in (gold, predicted) for spans in part)
    )


def _same_boundaries(missed: set[Span], spurious: set[Span]) -> Iterator[tuple[Span | None, Span | None]]:
    """Wrong spans paired where their boundaries agree, each once; None stands for a missing partner."""
    rivals: defaultdict[tuple[int, int], list[Span]] = defaultdict(list)
    for span in sorted(spurious, reverse=True):
        rivals[span[:2]].append(span)
    for span in sorted(missed):
        partners = rivals[span[:2]]
        yield span, partners.pop() if partners else None
    for left in rivals.values():
        for span in left:
            yield None, span
