"""Relations between marked entities, scored as SemEval-2010 task 8 does, whatever its labels are.

Shape letters: R relations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import LabelCounts, Metrics, all_labels
from wenmai.metrics.scores import TallyScores, ratio

_DIRECTED = re.compile(r"(?P<relation>.+)\((?:e1,e2|e2,e1)\)")


def relation_of(label: str) -> str:
    """``Cause-Effect`` of ``Cause-Effect(e2,e1)``; a label without direction is its own relation."""
    directed = _DIRECTED.fullmatch(label)
    return label if directed is None else directed["relation"]


def relation_scores(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str], *, no_relation: str | None
) -> TallyScores:
    """``macro_precision``, ``macro_recall``, ``macro_f1``, ``weighted_f1``, ``micro_...``, ``accuracy``, relations.

    The official measure of SemEval-2010 task 8 (Hendrickx et al. 2010, https://aclanthology.org/S10-1006) is
    ``macro_f1``: the mean of the F1s of the relations but ``no_relation`` ("Other"), direction counted. Both directions
    of a relation are one class, of which an example is right only if its direction is too; with the wrong direction it
    counts as predicted and as gold, and not as right. Macro averages run over the relations that occur in gold or
    predicted of the examples at hand, which on a whole test set are all.

    ``micro_f1`` pools the same counts (TACRED's measure, Zhang et al. 2017); ``accuracy`` is over all labels,
    ``no_relation`` included; ``wrong_direction`` is the share of examples whose relation is right and direction not.

    Args:
        gold, predicted: one label an example, in the same order.
        labels: the labels in the order of the report; others in the data follow them, sorted.
        no_relation: the label that stands for no relation, or none of those that count; None: all count.
    """
    names = [label for label in all_labels(labels, gold, predicted) if label != no_relation]
    relations = list(dict.fromkeys(map(relation_of, names)))
    ids = {name: relations.index(relation_of(name)) for name in names}
    number = len(relations)
    accurate, turned, examples = range(3 * number, 3 * number + 3)

    def marks() -> Iterator[list[int]]:
        for wanted, found in zip(gold, predicted, strict=True):
            row = [ids[found] + number] if found in ids else []
            row += [ids[wanted] + 2 * number] if wanted in ids else []
            if wanted == found:
                row += [ids[wanted], accurate] if wanted in ids else [accurate]
            elif wanted in ids and found in ids and ids[wanted] == ids[found]:
                row.append(turned)
            yield [*row, examples]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        return {
            **counts.averages(),
            **{f"micro_{name}": value for name, value in counts.pooled().items()},
            "accuracy": ratio(sums[..., accurate], sums[..., examples]),
            "wrong_direction": ratio(sums[..., turned], sums[..., examples]),
            **counts.by_label(relations),
        }

    return TallyScores.of(marks(), 3 * number + 3, summary)
