"""Head outputs of all windows of a text to spans of its characters, each once, with a confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenmai.data.rows import Row
from wenmai.heads.global_pointer import decode_spans
from wenmai.heads.viterbi import Allowed, hard_transitions, segment_probabilities, viterbi
from wenmai.tasks.task import RowOutputs
from wenmai.tasks.windows import merge_windows
from wenmai.text.spans import Span, to_character_span
from wenmai.text.tags import Scheme, spans_from_tags

Found = list[tuple[Span, float]]


class Windows:
    """Which of several windows over a text judges a range of its tokens: the one in which it stands freest."""

    def __init__(self, rows: Sequence[Row]):
        self._begin_W = np.array([row.window for row in rows])
        self._end_W = np.array([row.window + row.content[1] - row.content[0] for row in rows])

    def judges(self, window: int, start: int, stop: int) -> bool:
        """Whether no other window leaves more tokens between ``[start, stop)`` and its nearer cut."""
        total = self._end_W.max()
        left_W = np.where(self._begin_W > 0, start - self._begin_W, total)
        right_W = np.where(self._end_W < total, self._end_W - stop, total)
        holds_W = (self._begin_W <= start) & (stop <= self._end_W)
        freedom_W = np.where(holds_W, np.minimum(left_W, right_W), -1)
        return bool(freedom_W[window] == freedom_W.max())


def decode_tags(
    outputs: Sequence[RowOutputs], rows: Sequence[Row], tags: Sequence[str], allowed: Allowed, scheme: Scheme
) -> Found:
    """Spans from tag scores: the windows are merged first, then the best path through the whole text is taken.

    Args:
        outputs: per row ``logits`` (T, L) and, from a CRF, ``transitions`` (L + 2, L).
        allowed: which tags may follow each other; a path never breaks it.

    Returns:
        spans of characters in order, each with the probability that all its tags are right (Culotta and
        McCallum 2004).
    """
    logits_TL, offsets = merge_windows([out["logits"] for out in outputs], rows)
    if not len(logits_TL):
        return []
    transitions = outputs[0].get("transitions", hard_transitions(allowed))
    path, _ = viterbi(logits_TL, transitions)
    spans = spans_from_tags([tags[i] for i in path], scheme=scheme, strict=True)
    sure = segment_probabilities(logits_TL, transitions, path, [(span.start, span.end) for span in spans])
    return [
        (Span(*to_character_span(span.start, span.end, offsets), span.label), probability)
        for span, probability in zip(spans, sure, strict=True)
    ]


def decode_nested(
    outputs: Sequence[RowOutputs], rows: Sequence[Row], labels: Sequence[str], *, nested: bool
) -> Found:
    """Spans from scores of token pairs; a span that several windows hold is judged by the one where it stands freest.

    Args:
        outputs: per row ``logits`` (L, T, T).
        nested: False keeps the best of overlapping spans.
    """
    windows = Windows(rows)
    found: dict[Span, float] = {}
    for index, (out, row) in enumerate(zip(outputs, rows, strict=True)):
        first, stop = row.content
        for i, j, label, score in decode_spans(out["logits"][:, first:stop, first:stop]):
            start, end = row.window + i, row.window + j + 1
            if not windows.judges(index, start, end):
                continue
            characters = to_character_span(first + i, first + j + 1, row.offsets)
            probability = float(1 / (1 + np.exp(-score)))
            span = Span(*characters, labels[label])
            found[span] = max(found.get(span, 0.0), probability)
    if nested:
        return sorted(found.items())
    kept: Found = []
    taken_C = np.zeros(max((span.end for span in found), default=0), dtype=bool)
    for span, probability in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if not taken_C[span.start : span.end].any():
            taken_C[span.start : span.end] = True
            kept.append((span, probability))
    return sorted(kept)
