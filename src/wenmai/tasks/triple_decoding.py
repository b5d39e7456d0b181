"""Head outputs of all windows of a text to triples of its characters, each once, with a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from wenmai.data.rows import Row
from wenmai.heads.casrel import decode_casrel
from wenmai.heads.gplinker import FoundTriple, decode_gplinker
from wenmai.metrics.triples import Triple
from wenmai.tasks.span_decoding import Windows
from wenmai.tasks.task import Prediction, RowOutputs
from wenmai.tasks.triple_rows import TripleLabels
from wenmai.text.spans import Span, to_character_span

CANDIDATES = tuple(percent / 100 for percent in (2, 3, 5, 7, *range(10, 70, 5), 70, 80, 90))
"""Thresholds that are tried on a dev set."""


def decode_triples(
    outputs: Sequence[RowOutputs],
    rows: Sequence[Row],
    names: TripleLabels,
    *,
    head: Literal["gplinker", "casrel"],
    threshold: float = 0.5,
) -> list[tuple[Triple, float]]:
    """Triples of characters in order, each with the probability of its weakest part.

    A triple that several windows hold is judged by the one in which its two ends, and what is between them, stand
    freest.

    Args:
        outputs: per row, of the head.
        rows: the windows of one text.
        threshold: the probability that every part of a triple is above.
    """
    above = float(np.log(threshold / (1 - threshold)))
    windows = Windows(rows)
    best: dict[Triple, float] = {}
    for index, (out, row) in enumerate(zip(outputs, rows, strict=True)):
        for found in _found(out, row, names, head, above):
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


def _found(out: RowOutputs, row: Row, names: TripleLabels, head: str, above: float) -> list[FoundTriple]:
    first, stop = row.content
    if first == stop:
        return []
    if head == "casrel":
        return decode_casrel(dict(out), first, stop, above=above)
    return decode_gplinker(
        dict(out),
        first,
        stop,
        subject_types=len(names.subject_types),
        object_types=len(names.object_types),
        above=above,
    )


def surer(predictions: Sequence[Prediction], threshold: float) -> list[Prediction]:
    """With the triples above a threshold only."""
    return [
        {**prediction, "relations": [one for one in prediction["relations"] if one["score"] > threshold]}
        for prediction in predictions
    ]
