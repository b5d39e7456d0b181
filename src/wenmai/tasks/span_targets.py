"""Gold spans of characters as targets of tokens, for tasks that tag: what a row says, and what no row can say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from wenmai.backbones.tokenizer import Encoding
from wenmai.data.rows import IGNORE, Row
from wenmai.text.spans import Span, TokenAligner
from wenmai.text.tags import Scheme, tags_from_spans


def token_spans(
    spans: Iterable[Span],
    text: str,
    encoding: Encoding,
    labels: Collection[str],
    *,
    overlap: str | None,
) -> tuple[list[Span], list[str]]:
    """The spans in tokens, and a sentence for each that can't be expressed.

    Args:
        spans: of characters; those with labels that are not among ``labels`` are passed over.
        overlap: None where spans may overlap; else the outermost of overlapping ones stays, of equally long ones the
            first, and this is said of the others.
    """
    aligner = TokenAligner(encoding.offsets)
    found: list[Span] = []
    lost = []
    taken = np.zeros(len(encoding), dtype=bool)
    for span in sorted(set(spans), key=lambda s: (s.start - s.end, s)):
        if span.label not in labels:
            continue
        named = f"{text[span.start : span.end]!r} at {span.start}:{span.end} ({span.label})"
        tokens = aligner.to_tokens(span.start, span.end)
        if tokens is None:
            lost.append(f"{named} begins or ends inside a token: set task.tokens: characters")
        elif overlap is not None and taken[tokens[0] : tokens[1]].any():
            lost.append(f"{named} {overlap}")
        else:
            taken[tokens[0] : tokens[1]] = True
            found.append(Span(*tokens, span.label))
    return sorted(found), lost


def too_long(spans: Iterable[Span], room: int, what: str) -> list[str]:
    """A sentence for each span of more tokens than a window holds."""
    return [
        f"{what} of {span.end - span.start} tokens ({span.label}) is longer than a window of {room} tokens"
        for span in spans
        if span.end - span.start > room
    ]


def tag_targets(row: Row, spans: Sequence[Span], tag_ids: Mapping[str, int], scheme: Scheme) -> list[int]:
    """Tag ids; special tokens, and tokens of spans that the window cuts through, do not count."""
    first, stop = row.content
    begin, end = row.window, row.window + stop - first
    inside = [
        Span(s.start - begin, s.end - begin, s.label) for s in spans if begin <= s.start and s.end <= end
    ]
    ids = [tag_ids[tag] for tag in tags_from_spans(inside, end - begin, scheme)]
    for span in spans:
        if span.start < begin < span.end or span.start < end < span.end:
            for at in range(max(span.start, begin), min(span.end, end)):
                ids[at - begin] = IGNORE
    return [IGNORE] * first + ids + [IGNORE] * (len(row) - stop)
