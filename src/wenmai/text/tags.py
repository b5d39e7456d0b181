"""One tag a token, and the spans that a row of tags stands for.

==========  =====================================================  ======================
scheme      a span of three tokens, and one of a single token       prefixes
==========  =====================================================  ======================
``BIO``     B-LOC I-LOC I-LOC, B-LOC (also known as IOB2)           B I O
``BIOES``   B-LOC I-LOC E-LOC, S-LOC                                B I E S O
``BMES``    B-LOC M-LOC E-LOC, S-LOC (BIOES with M for I)           B M E S O
==========  =====================================================  ======================

``B_LOC`` is read as ``B-LOC``, and a prefix alone (``B``, as in word segmentation) has the label ``""``.
Ramshaw & Marcus 1995 (tags for chunks); Tjong Kim Sang & Veenstra 1999 (their variants).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.errors import UserError
from wenmai.text.spans import Span

Scheme = Literal["BIO", "BIOES", "BMES"]

OUTSIDE = "O"
_PREFIXES: dict[Scheme, str] = {"BIO": "BI", "BIOES": "BIES", "BMES": "BMES"}
_SEPARATORS = "-_"


def label_tags(labels: Sequence[str], scheme: Scheme) -> list[str]:
    """The tags of a scheme: ``O``, then for every label its prefixes in the order of the table above."""
    return [OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in _PREFIXES[scheme])]


def tags_from_spans(spans: Sequence[tuple[int, int, str]], length: int, scheme: Scheme) -> list[str]:
    """One tag for each of ``length`` tokens.

    Args:
        spans: ranges of tokens, in any order.

    Raises:
        UserError: two spans overlap, or a span is empty or reaches outside the tokens.
    """
    begin, inside, end, single = ("B", "I", "I", "B") if scheme == "BIO" else tuple(_PREFIXES[scheme])
    tags = [OUTSIDE] * length
    last = Span(0, 0, "")
    for span in sorted(Span(*span) for span in spans):
        start, stop, label = span
        if not 0 <= start < stop <= length:
            raise UserError(
                f"span [{start}, {stop}) {label!r}: it must hold a token and lie within the {length} tokens"
            )
        if start < last.end:
            raise UserError(
                f"spans [{last.start}, {last.end}) {last.label!r} and [{start}, {stop}) {label!r} overlap: "
                "one tag a token can't say both; keep one of them, or use a head for nested spans"
            )
        if stop - start == 1:
            tags[start] = f"{single}-{label}"
        else:
            tags[start] = f"{begin}-{label}"
            tags[start + 1 : stop - 1] = [f"{inside}-{label}"] * (stop - start - 2)
            tags[stop - 1] = f"{end}-{label}"
        last = span
    return tags


def spans_from_tags(
    tags: Sequence[str], *, scheme: Literal["auto", "BIO", "BIOES", "BMES"] = "auto", strict: bool
) -> list[Span]:
    """The spans of tokens that the tags stand for, in order.

    Args:
        scheme: ``auto`` takes :func:`detect_scheme` of these tags; for many short texts detect it once.
        strict: only what the scheme begins and ends counts, as in seqeval's strict mode: an I or E without
            its B stands for nothing, and in BIOES neither does a B without its E. Otherwise as the CoNLL-2000
            script has it: an I after O or after another label begins a chunk too, and a chunk lasts until its
            label or its run ends. Tags in IOB1 are read right only this way.

    Raises:
        UserError: a tag that no scheme has.
    """
    roles = [_split(tag) for tag in tags]
    if not strict:
        return list(_lenient_spans(roles))
    found = detect_scheme(tags) if scheme == "auto" else scheme
    return list(_strict_spans(roles, ends_are_marked=found != "BIO"))


def detect_scheme(tags: Iterable[str]) -> Scheme:
    """The scheme whose prefixes occur: M makes it BMES, else E or S makes it BIOES, else it is BIO.

    Raises:
        UserError: a tag that no scheme has, or both I and M.
    """
    prefixes = {tag[0] for tag in {*tags} if _split(tag)[0] != OUTSIDE}
    if {"I", "M"} <= prefixes:
        raise UserError("tags with I (BIO, BIOES) and with M (BMES) are mixed: write one scheme throughout")
    if "M" in prefixes:
        return "BMES"
    return "BIOES" if prefixes & {"E", "S"} else "BIO"


def allowed_transitions(tags: Sequence[str]) -> NDArray[np.bool_]:
    """Which tag may follow which, so that every path through the matrix is well formed.

    Args:
        tags: the L tags of :func:`label_tags`, in the order of the model's outputs.

    Returns:
        booleans (L + 2, L): ``[i, j]`` tag j may follow tag i; ``[L, j]`` a sequence may start with tag j;
        ``[L + 1, j]`` a sequence may stop after tag j.
    """
    roles = [_split(tag) for tag in tags]
    marked = detect_scheme(tags) != "BIO"

    def is_open(role: str) -> bool:
        return role in "BI" and marked

    allowed = np.zeros((len(tags) + 2, len(tags)), dtype=np.bool_)
    for j, (role, label) in enumerate(roles):
        goes_on = role in "IE"
        for i, (before, label_before) in enumerate(roles):
            allowed[i, j] = (before in "BI" and label_before == label) if goes_on else not is_open(before)
        allowed[-2, j] = not goes_on
        allowed[-1, j] = not is_open(role)
    return allowed


def _split(tag: str) -> tuple[str, str]:
    """A tag's role (one of O B I E S) and its label."""
    role, label = tag[:1], tag[2:]
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if role not in ("B", "I", "M", "E", "S") or (len(tag) > 1 and (tag[1] not in _SEPARATORS or not label)):
        raise UserError(
            f"tag {tag!r} is none of O, B-label, I-label, M-label, E-label, S-label (also written B_label)"
        )
    return ("I" if role == "M" else role), label


def _strict_spans(roles: Sequence[tuple[str, str]], *, ends_are_marked: bool) -> Iterator[Span]:
    start: int | None = None
    label = ""
    for index, (role, here) in enumerate(roles):
        if start is not None and role in "IE" and here == label:
            if role == "E":
                yield Span(start, index + 1, label)
                start = None
            continue
        if start is not None and not ends_are_marked:
            yield Span(start, index, label)
        start = index if role == "B" else None
        label = here
        if role == "S":
            yield Span(index, index + 1, here)
    if start is not None and not ends_are_marked:
        yield Span(start, len(roles), label)


def _lenient_spans(roles: Sequence[tuple[str, str]]) -> Iterator[Span]:
    start: int | None = None
    label = ""
    for index, (role, here) in enumerate(roles):
        if start is not None and not (role in "IE" and here == label):
            yield Span(start, index, label)
            start = None
        if start is None and role != OUTSIDE:
            start, label = index, here
        if start is not None and role in "ES":
            yield Span(start, index + 1, label)
            start = None
    if start is not None:
        yield Span(start, len(roles), label)
