"""Head outputs of all windows of a text to triples of its characters, each once, with a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wenmai.data.rows import Row
from wenmai.heads.casrel import decode_casrel, nearest_spans
from wenmai.heads.gplinker import FoundTriple, decode_gplinker
from wenmai.metrics.triples import Triple
from wenmai.tasks.span_decoding import Windows
from wenmai.tasks.task import RowOutputs
from wenmai.text.spans import Span, to_character_span


class TripleLabels(NamedTuple):
    """What predicates and types are called; where there are no types, each list of them is ``[""]``."""

    predicates: list[str]
    subject_types: list[str]
    object_types: list[str]

    ROLES: ClassVar = ("subject", "object")

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """From the task's labels: predicates, ``subject<TAB>type``, ``object<TAB>type``."""
        types = {
            role: [label.partition("\t")[2] for label in labels if label.startswith(f"{role}\t")] or [""]
            for role in cls.ROLES
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


def decode_triples(
    outputs: Sequence[RowOutputs],
    rows: Sequence[Row],
    names: TripleLabels,
    *,
    head: Literal["gplinker", "casrel"],
) -> list[tuple[Triple, float]]:
    """Triples of characters in order, each with the probability of its weakest part.

    A triple that several windows hold is judged by the one in which its two ends, and what is between them, stand
    freest.

    Args:
        outputs: per row, of the head.
        rows: the windows of one text.
    """
    windows = Windows(rows)
    best: dict[Triple, float] = {}
    for index, (out, row) in enumerate(zip(outputs, rows, strict=True)):
        for found in _found(out, row, names, head):
            ends = (found.subject_first, found.subject_last, found.object_first, found.object_last)
            shift = row.window - row.content[0]
            if not windows.judges(index, min(ends) + shift, max(ends) + 1 + shift):
                continue
            subject = to_character_span(found.subject_first, found.subject_last + 1, row.offsets)
            target = to_character_span(found.object_first, found.object_last + 1, row.offsets)
            triple = Triple(
                Span(*subject, names.subject_types[found.subject_type]),
                names.predicates[found.predicate],
                Span(*target, names.object_types[found.object_type]),
            )
            probability = float(1 / (1 + np.exp(-found.score)))
            best[triple] = max(best.get(triple, 0.0), probability)
    return sorted(best.items())


def _found(out: RowOutputs, row: Row, names: TripleLabels, head: str) -> list[FoundTriple]:
    first, stop = row.content
    if first == stop:
        return []
    if head == "casrel":
        return decode_casrel(dict(out), first, stop)
    return decode_gplinker(
        dict(out),
        first,
        stop,
        subject_types=len(names.subject_types),
        object_types=len(names.object_types),
    )


def found_by_nearest_ends(triples_N7: NDArray[np.int64], tokens: int) -> int:
    """How many of a row's triples come back from beginnings and ends: the best that a cascade can do.

    Args:
        triples_N7: see :class:`wenmai.heads.gplinker.GPLinkerHead`.
        tokens: T of the row.
    """
    if not len(triples_N7):
        return 0

    def spans(first_N: NDArray[np.int64], last_N: NDArray[np.int64], label_N: NDArray[np.int64]) -> set[tuple[int, ...]]:
        labels = int(label_N.max()) + 1
        scores_TL = np.full((tokens, 2 * labels), -1.0)
        scores_TL[first_N, label_N] = 1.0
        scores_TL[last_N, labels + label_N] = 1.0
        return {span[:3] for span in nearest_spans(scores_TL)}

    s_first, s_last, predicate, o_first, o_last, s_type, _ = triples_N7.T
    subjects = spans(s_first, s_last, s_type)
    found = 0
    for subject in {(*row,) for row in triples_N7[:, [0, 1]].tolist()}:
        own = (triples_N7[:, :2] == subject).all(axis=1)
        objects = spans(o_first[own], o_last[own], predicate[own])
        found += sum(
            (row[0], row[1], row[5]) in subjects and (row[3], row[4], row[2]) in objects
            for row in triples_N7[own].tolist()
        )
    return found
