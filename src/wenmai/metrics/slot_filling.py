"""Intents and slots of texts: each alone, and how many texts are understood whole.

Shape letters: S slot names, I intents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import LabelCounts, Metrics, all_labels
from wenmai.metrics.scores import TallyScores, ratio
from wenmai.metrics.spans import SpanSets

IntentSets = Sequence[Collection[str]]


def slot_filling_scores(
    gold: tuple[IntentSets, SpanSets],
    predicted: tuple[IntentSets, SpanSets],
    intents: Sequence[str],
    slots: Sequence[str],
) -> TallyScores:
    """``intent_accuracy``, ``slot_precision``, ``slot_recall``, ``slot_f1``, ``sentence_accuracy``, labels.

    An example's intents are right if they are exactly the gold ones. A slot is right if its start, its end and its name
    are (micro averages; seqeval's strict mode on flat slots). A sentence is right if its intents and all of its slots
    are and it has no others: the "overall" or "exact match" accuracy of Liu & Lane (2016) and Goo et al. (2018).
    ``intent_f1`` is micro-averaged over single intents, which differs from the accuracy only where texts have several.
    Without any slot, gold or predicted, ``slot_f1`` is 0.0.

    Args:
        gold, predicted: the intents and the slots of each example, in the same order.
        intents, slots: names in the order of the report; others in the data follow them, sorted. Both may have the same
            name: in the report they are ``intent:NAME`` and ``slot:NAME``.
    """
    intent_names = all_labels(intents, *gold[0], *predicted[0])
    slot_names = all_labels(
        slots, *({span.label for span in s} for part in (gold, predicted) for s in part[1])
    )
    intent_ids = {name: i for i, name in enumerate(intent_names)}
    slot_ids = {name: i for i, name in enumerate(slot_names)}
    slot_columns, intent_columns = 3 * len(slot_names), 3 * len(intent_names)
    intents_right, all_right, examples = range(
        slot_columns + intent_columns, slot_columns + intent_columns + 3
    )

    def marks() -> Iterator[list[int]]:
        for wanted, found, wanted_spans, found_spans in zip(
            *(map(set, part) for part in (gold[0], predicted[0], gold[1], predicted[1])), strict=True
        ):
            row = _marked([slot_ids[s.label] for s in wanted_spans & found_spans], 0, len(slot_names), 0)
            row += _marked([slot_ids[s.label] for s in found_spans], 1, len(slot_names), 0)
            row += _marked([slot_ids[s.label] for s in wanted_spans], 2, len(slot_names), 0)
            row += _marked([intent_ids[i] for i in wanted & found], 0, len(intent_names), slot_columns)
            row += _marked([intent_ids[i] for i in found], 1, len(intent_names), slot_columns)
            row += _marked([intent_ids[i] for i in wanted], 2, len(intent_names), slot_columns)
            same_intents = wanted == found
            row += [intents_right] if same_intents else []
            row += [all_right] if same_intents and wanted_spans == found_spans else []
            yield [*row, examples]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        slot_counts = LabelCounts.split(sums, len(slot_names))
        intent_counts = LabelCounts.split(sums[..., slot_columns:], len(intent_names))
        return {
            "sentence_accuracy": ratio(sums[..., all_right], sums[..., examples]),
            "intent_accuracy": ratio(sums[..., intents_right], sums[..., examples]),
            "intent_f1": intent_counts.pooled()["f1"],
            **{f"slot_{name}": value for name, value in slot_counts.pooled().items()},
            "slot_macro_f1": slot_counts.averages()["macro_f1"],
            **intent_counts.by_label([f"intent:{name}" for name in intent_names]),
            **slot_counts.by_label([f"slot:{name}" for name in slot_names]),
        }

    return TallyScores.of(marks(), slot_columns + intent_columns + 3, summary)


def _marked(ids: Sequence[int], part: int, number: int, first: int) -> list[int]:
    """Columns of ids in one of the three parts of :meth:`LabelCounts.split`."""
    return [first + part * number + i for i in ids]
