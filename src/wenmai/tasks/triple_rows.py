"""Gold triples in characters to rows of (first token, last token, predicate ...), and which of them no row can hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Encoding
from wenmai.data.rows import Row
from wenmai.heads.casrel import nearest_spans
from wenmai.heads.gplinker import OBJECT_FIRST, OBJECT_LAST, SUBJECT_FIRST, SUBJECT_LAST
from wenmai.metrics.triples import Triple, surfaces
from wenmai.text.spans import TokenAligner

Ints = NDArray[np.int64]

ROLES = ("subject", "object")
ENDS = [SUBJECT_FIRST, SUBJECT_LAST, OBJECT_FIRST, OBJECT_LAST]
"""The columns that are tokens."""


class TripleLabels(NamedTuple):
    """What predicates and types are called; where there are no types, each list of them is ``[""]``."""

    predicates: list[str]
    subject_types: list[str]
    object_types: list[str]

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """From the task's labels: predicates, ``subject<TAB>type``, ``object<TAB>type``."""
        types = {
            role: [label.partition("\t")[2] for label in labels if label.startswith(f"{role}\t")] or [""]
            for role in ROLES
        }
        return cls([label for label in labels if "\t" not in label], types["subject"], types["object"])

    def ids(self, triple: Triple) -> tuple[int, int, int] | None:
        """Numbers of predicate, subject type and object type; None if one is unknown."""
        known = zip(self, (triple.predicate, triple.subject.label, triple.object.label), strict=True)
        try:
            predicate, subject_type, object_type = (names.index(name) for names, name in known)
        except ValueError:
            return None
        return predicate, subject_type, object_type


def token_triples(
    gold: Iterable[Triple], text: str, encoding: Encoding, names: TripleLabels
) -> tuple[Ints, list[str]]:
    """The triples (N, 7) in tokens of the text, inclusive, and a sentence for each that can't be expressed.

    Returns:
        columns as in :class:`wenmai.heads.gplinker.GPLinkerHead`; sorted, each once.
    """
    aligner = TokenAligner(encoding.offsets)
    found: set[tuple[int, ...]] = set()
    lost: list[str] = []
    for triple in sorted(gold):
        named = f"{surfaces(triple, text)} at {triple.subject.start} and {triple.object.start}"
        ids = names.ids(triple)
        if ids is None:
            lost.append(f"{named}: its predicate or a type does not occur in the training set")
            continue
        subject, target = (
            aligner.to_tokens(span.start, span.end) for span in (triple.subject, triple.object)
        )
        if subject is None or target is None:
            lost.append(f"{named} begins or ends inside a token: set task.tokens: characters")
            continue
        predicate, *types = ids
        found.add((subject[0], subject[1] - 1, predicate, target[0], target[1] - 1, *types))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 7), lost


def inside_row(row: Row, triples_N7: Ints) -> Ints:
    """The triples of a text that have both ends inside the row, in the row's tokens."""
    first, stop = row.content
    inside_N7 = triples_N7.copy()
    inside_N7[:, ENDS] += first - row.window
    ends_N4 = inside_N7[:, ENDS]
    held_N7: Ints = inside_N7[((ends_N4 >= first) & (ends_N4 < stop)).all(axis=1)]
    return held_N7


def held_apart(rows: Sequence[Row], triples_N7: Ints) -> int:
    """How many triples of a text no row holds both ends of."""
    ends_N4 = triples_N7[:, ENDS]
    held_N = np.zeros(len(triples_N7), dtype=bool)
    for row in rows:
        begin, end = row.window, row.window + row.content[1] - row.content[0]
        held_N |= ((ends_N4 >= begin) & (ends_N4 < end)).all(axis=1)
    return int((~held_N).sum())


def not_nearest(triples_N7: Ints, tokens: int) -> int:
    """How many of a row's triples beginnings and ends do not give back: what a cascade can't find at its best.

    Args:
        tokens: T of the row.
    """
    if not len(triples_N7):
        return 0

    def spans(first_N: Ints, last_N: Ints, label_N: Ints) -> set[tuple[int, ...]]:
        labels = int(label_N.max()) + 1
        scores_TL = np.full((tokens, 2 * labels), -1.0)
        scores_TL[first_N, label_N] = 1.0
        scores_TL[last_N, labels + label_N] = 1.0
        begin, end, label, _ = nearest_spans(scores_TL)
        return set(zip(begin.tolist(), end.tolist(), label.tolist(), strict=True))

    s_first, s_last, predicate, o_first, o_last, s_type, _ = triples_N7.T
    subjects = spans(s_first, s_last, s_type)
    missed = 0
    for begin, end in {(begin, end) for begin, end in triples_N7[:, :2].tolist()}:
        own_N = (s_first == begin) & (s_last == end)
        objects = spans(o_first[own_N], o_last[own_N], predicate[own_N])
        missed += sum(
            (begin, end, row[5]) not in subjects or (row[3], row[4], row[2]) not in objects
            for row in triples_N7[own_N].tolist()
        )
    return missed
