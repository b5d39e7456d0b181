"""Scores of words and trees on a text whose words are the system's own, as the CoNLL 2018 shared task counts them.

Zeman et al. 2018, "CoNLL 2018 shared task: multilingual parsing from raw text to universal dependencies"
(https://aclanthology.org/K18-2001), and its script ``conll18_ud_eval.py``: a predicted word and a gold word are aligned
if they cover the same characters, and only aligned words can be right. Precision is the share of the predicted words
that are right, recall that of the gold words. A head is right if it is aligned with the gold head; relations are
compared without their subtypes (``nsubj`` of ``nsubj:pass``).

Shape letters: N examples, K counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import Metrics
from wenmai.metrics.scores import CountScores, ratio

ROOT = (-1, -1)
"""What stands for the head of a root."""

COUNTS = ("gold", "predicted", "word", "upos", "uas", "las", "las_subtypes")


class ParsedWord(NamedTuple):
    """One word of a text.

    Args:
        start, end: its characters.
        upos: its part of speech.
        head: the characters of its head; :data:`ROOT` for a root; None where no tree was asked for.
        relation: to its head, with its subtype.
    """

    start: int
    end: int
    upos: str | None = None
    head: tuple[int, int] | None = None
    relation: str | None = None

    @property
    def universal_relation(self) -> str | None:
        return None if self.relation is None else self.relation.partition(":")[0]


def dependency_scores(
    gold: Sequence[Collection[ParsedWord]],
    predicted: Sequence[Collection[ParsedWord]],
    *,
    upos: bool = True,
    trees: bool = True,
) -> CountScores:
    """``word_precision``, ``word_recall``, ``word_f1``, and of what the words have beside their borders:

    * ``upos_f1``, ``uas``, ``las``: F1 of words with the right part of speech, head, head and relation;
      ``las_subtypes`` with the subtypes of relations
    * ``upos_aligned``, ``uas_aligned``, ``las_aligned``: the share of them among aligned words, which tells the parser
      from the segmentation

    Args:
        gold, predicted: the words of each example, in the same order of examples.
        upos, trees: whether parts of speech and trees are scored.
    """
    counts_NK = np.zeros((len(gold), len(COUNTS)))
    for row_K, wanted, found in zip(counts_NK, gold, predicted, strict=True):
        row_K[:] = _counts(wanted, found)
    measured = [*(["upos"] if upos else []), *(["uas", "las"] if trees else [])]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        of = {name: sums[..., k] for k, name in enumerate(COUNTS)}
        both = of["gold"] + of["predicted"]
        values: Metrics = {
            "word_precision": ratio(of["word"], of["predicted"]),
            "word_recall": ratio(of["word"], of["gold"]),
            "word_f1": ratio(2 * of["word"], both),
        }
        for name in measured:
            values["upos_f1" if name == "upos" else name] = ratio(2 * of[name], both)
        if trees:
            values["las_subtypes"] = ratio(2 * of["las_subtypes"], both)
        return values | {f"{name}_aligned": ratio(of[name], of["word"]) for name in measured}

    return CountScores(counts_NK, summary)


def _counts(gold: Collection[ParsedWord], predicted: Collection[ParsedWord]) -> list[int]:
    """In the order of :data:`COUNTS`."""
    wanted = {word[:2]: word for word in gold}
    pairs = [(wanted[word[:2]], word) for word in predicted if word[:2] in wanted]
    attached = [(one, other) for one, other in pairs if one.head == other.head]
    return [
        len(gold),
        len(predicted),
        len(pairs),
        sum(one.upos == other.upos for one, other in pairs),
        len(attached),
        sum(one.universal_relation == other.universal_relation for one, other in attached),
        sum(one.relation == other.relation for one, other in attached),
    ]
