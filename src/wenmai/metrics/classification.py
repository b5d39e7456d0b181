"""Accuracy, precision, recall and F1 of classes, single-label and multi-label, and the confusion matrix.

Per label: precision = right / predicted, recall = right / gold, F1 = 2 right / (predicted + gold), each 0.0
where its denominator is 0 (van Rijsbergen 1979; scikit-learn with ``zero_division=0``). Macro averages run
over the labels that occur in gold or predicted of the examples at hand, which is scikit-learn's default;
macro F1 is the mean of the F1s, not the F1 of the means (Opitz and Burst 2019,
https://arxiv.org/abs/1911.03347).

Shape letters: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.scores import TallyScores, ratio

Metrics = dict[str, NDArray[np.float64]]


class LabelCounts(NamedTuple):
    """Right, predicted and gold instances of each label: (..., L) each."""

    right: NDArray[np.float64]
    predicted: NDArray[np.float64]
    gold: NDArray[np.float64]

    @classmethod
    def split(cls, sums: NDArray[np.float64], labels: int) -> LabelCounts:
        """From the first 3 L columns of summed counts, which lie in this order."""
        return cls(*(sums[..., part * labels : (part + 1) * labels] for part in range(3)))

    def pooled(self) -> Metrics:
        """Micro averages: precision, recall and F1 of all labels' instances together."""
        totals = LabelCounts(*(part.sum(axis=-1) for part in self))
        return dict(zip(("precision", "recall", "f1"), totals.measures(), strict=True))

    def measures(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Precision, recall and F1 of each label."""
        return (
            ratio(self.right, self.predicted),
            ratio(self.right, self.gold),
            ratio(2 * self.right, self.predicted + self.gold),
        )

    def averages(self) -> Metrics:
        """Macro averages, and F1 weighted by the gold instances."""
        precision, recall, f1 = self.measures()
        occurring = (self.predicted + self.gold > 0).sum(axis=-1)
        return {
            "macro_precision": ratio(precision.sum(axis=-1), occurring),
            "macro_recall": ratio(recall.sum(axis=-1), occurring),
            "macro_f1": ratio(f1.sum(axis=-1), occurring),
            "weighted_f1": ratio((f1 * self.gold).sum(axis=-1), self.gold.sum(axis=-1)),
        }

    def by_label(self, labels: Sequence[str]) -> Metrics:
        """``label/<name>/precision``, ``recall``, ``f1`` and ``support`` (gold instances)."""
        columns = dict(zip(("precision", "recall", "f1"), self.measures(), strict=True))
        columns["support"] = self.gold
        return {
            f"label/{label}/{name}": column[..., i]
            for i, label in enumerate(labels)
            for name, column in columns.items()
        }


def all_labels(labels: Iterable[str], *used: Iterable[str]) -> list[str]:
    """The known labels in their order, then those that only occur in the data, sorted: all are counted."""
    known = dict.fromkeys(labels)
    strangers = {label for column in used for label in column if label not in known}
    return [*known, *sorted(strangers)]


def classification_scores(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> TallyScores:
    """One label an example: ``accuracy``, macro averages, ``weighted_f1`` and each label's own values.

    Micro precision, recall and F1 equal the accuracy here and are left out.

    Args:
        gold, predicted: one label an example, in the same order.
        labels: the labels in the order of the report; others in the data follow them, sorted.
    """
    names = all_labels(labels, gold, predicted)
    gold_N, predicted_N = _ids(gold, names), _ids(predicted, names)
    number = len(names)
    right_N = gold_N == predicted_N
    columns_N3 = np.stack([predicted_N + number, gold_N + 2 * number, gold_N], axis=1).astype(np.int32)
    marked_N3 = np.ones_like(columns_N3, dtype=np.bool_)
    marked_N3[:, 2] = right_N

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        accuracy = ratio(counts.right.sum(axis=-1), counts.gold.sum(axis=-1))
        return {"accuracy": accuracy, **counts.averages(), **counts.by_label(names)}

    return TallyScores(2 + right_N.astype(np.int64), columns_N3[marked_N3], 3 * number, summary)


def multilabel_scores(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> TallyScores:
    """Any number of labels an example: micro and macro averages, ``exact_match``, ``hamming_loss``, labels.

    ``exact_match`` is the share of examples with exactly the gold labels (also called subset accuracy);
    ``hamming_loss`` the share of wrong decisions among the N L decisions, lower is better (Schapire and
    Singer 1999).

    Args:
        gold, predicted: the labels of each example, in the same order; repetitions count once.
        labels: the labels in the order of the report; others in the data follow them, sorted.
    """
    names = all_labels(labels, *gold, *predicted)
    ids = {name: i for i, name in enumerate(names)}
    number = len(names)

    def marks() -> Iterator[list[int]]:
        for gold_labels, predicted_labels in zip(gold, predicted, strict=True):
            wanted, found = set(gold_labels), set(predicted_labels)
            row = [ids[label] for label in wanted & found]
            row += [ids[label] + number for label in found]
            row += [ids[label] + 2 * number for label in wanted]
            row += [3 * number] if wanted == found else []
            yield [*row, 3 * number + 1]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        exact, examples = sums[..., -2], sums[..., -1]
        wrong = (counts.predicted + counts.gold - 2 * counts.right).sum(axis=-1)
        return {
            **counts.pooled(),
            **counts.averages(),
            "exact_match": ratio(exact, examples),
            "hamming_loss": ratio(wrong, examples * number),
            **counts.by_label(names),
        }

    return TallyScores.of(marks(), 3 * number + 2, summary)


def confusion_matrix(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    """How often each gold label (row) was predicted as each label (column): (L, L).

    As in scikit-learn, examples whose gold or predicted label is not among ``labels`` are left out; give
    ``all_labels(labels, gold, predicted)`` to have them all.
    """
    number = len(labels)
    gold_N, predicted_N = _ids(gold, labels), _ids(predicted, labels)
    both_N = (gold_N >= 0) & (predicted_N >= 0)
    cells = np.bincount(gold_N[both_N] * number + predicted_N[both_N], minlength=number * number)
    return cells.reshape(number, number)


def _ids(column: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    ids = {name: i for i, name in enumerate(names)}
    return np.array([ids.get(label, -1) for label in column], dtype=np.int64)
