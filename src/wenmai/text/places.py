"""Where a text has what a record names without saying where: values, pairs of entities, and tags inside the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

Range = tuple[int, int]
"""Characters ``[start, end)``."""

TAGS = ("<e1>", "</e1>", "<e2>", "</e2>")
"""Around the first and the second entity of a pair, as SemEval-2010 task 8 writes them."""

# a blank inside the tags belongs to the tag: "an <e1> apple </e1> tree" was "an apple tree"
_TAG = re.compile(r"(?P<open><e[12]>) ?| ?(?P<close></e[12]>)")


class NotThereError(ValueError):
    """A text does not have what it should; the message says what."""


def places(text: str, value: str) -> list[Range]:
    """Every place of a value, those that overlap each other too."""
    found: list[Range] = []
    at = text.find(value) if value else -1
    while at >= 0:
        found.append((at, at + len(value)))
        at = text.find(value, at + 1)
    return found


def apart(one: Range, other: Range) -> bool:
    """Whether two ranges share no character."""
    return one[1] <= other[0] or other[1] <= one[0]


def pair_places(text: str, first: str | Range, second: str | Range) -> tuple[Range, Range, list[str]]:
    """The places of two entities, each given by its place or by its surface.

    The first place of each that the text has; where these overlap, the first places, in reading order of the first
    entity and then of the second, that do not; if all overlap, as in "his tail" and "his", the first of each that are
    not the same.

    Returns:
        both ranges, and a sentence for each surface that the text has more than once.

    Raises:
        NotThereError: the text lacks a surface.
    """
    candidates = [places(text, entity) if isinstance(entity, str) else [entity] for entity in (first, second)]
    for entity, found in zip((first, second), candidates, strict=True):
        if not found:
            raise NotThereError(f"{entity!r} does not stand in the text: give its start and end")
    chosen = next((pair for pair in product(*candidates) if apart(*pair)), None)
    chosen = chosen or next((pair for pair in product(*candidates) if pair[0] != pair[1]), None)
    one, other = chosen or (candidates[0][0], candidates[1][0])
    said = [
        _ambiguous(entity, found, place)
        for entity, found, place in zip((first, second), candidates, (one, other), strict=True)
        if isinstance(entity, str) and len(found) > 1
    ]
    return one, other, said


def value_places(
    text: str, values: Iterable[tuple[str, str]]
) -> tuple[list[tuple[int, int, str]], list[str]]:
    """The places of named values, the longest first: each takes the first place that no other has taken a part of.

    A value whose every place is taken stands inside or across another and gets the first of its places.

    Args:
        values: name and value.

    Returns:
        ``(start, end, name)`` in order, and a sentence for each value that the text has more often than the record.

    Raises:
        NotThereError: the text lacks a value.
    """
    ordered = sorted(values, key=lambda item: -len(item[1]))
    taken: list[tuple[int, int, str]] = []
    for name, value in ordered:
        found = places(text, value)
        if not found:
            raise NotThereError(
                f"slots.{name}: {value!r} does not stand in the text: correct it, or give start and end"
            )
        free = [place for place in found if all(apart(place, other[:2]) for other in taken)]
        taken.append((*(free or found)[0], name))
    said = []
    for value in dict.fromkeys(value for _, value in ordered):
        found = places(text, value)
        wanted = [place for place in taken if text[place[0] : place[1]] == value]
        if len(found) > len(wanted):
            said.append(_ambiguous(value, found, wanted[0][:2]))
    return sorted(taken), said


def named_values(slots: Mapping[str, object]) -> list[tuple[str, str]]:
    """``{"name": "uc"}`` and ``{"name": ["uc", "qq"]}`` as pairs of name and value.

    Raises:
        NotThereError: a value is neither a text nor a list of texts.
    """
    pairs: list[tuple[str, str]] = []
    for name, given in slots.items():
        values = given if isinstance(given, list | tuple) else [given]
        for value in values:
            if not isinstance(value, str) or not value:
                raise NotThereError(f"slots.{name}: a text or a list of texts is expected, not {given!r}")
            pairs.append((name, value))
    return pairs


def tagged_pair(text: str) -> tuple[str, Range, Range] | None:
    """A text with :data:`TAGS` in it, without them, and the two entities; None if it has none of the tags.

    One blank behind an opening and before a closing tag goes with the tag.

    Raises:
        NotThereError: a tag is missing, there twice, or closes before it opens or with nothing inside.
    """
    parts: list[str] = []
    at: dict[str, int] = {}
    length = position = 0
    for match in _TAG.finditer(text):
        tag = match["open"] or match["close"]
        if tag in at:
            raise NotThereError(
                f"the tag {tag} stands twice in the text; each of {', '.join(TAGS)} is needed once"
            )
        parts.append(text[position : match.start()])
        length += len(parts[-1])
        at[tag], position = length, match.end()
    if not at:
        return None
    lacking = [tag for tag in TAGS if tag not in at]
    if lacking:
        raise NotThereError(f"the text has no {', '.join(lacking)}; each of {', '.join(TAGS)} is needed once")
    first, second = (at["<e1>"], at["</e1>"]), (at["<e2>"], at["</e2>"])
    for number, (start, end) in enumerate((first, second), 1):
        if start >= end:
            raise NotThereError(f"</e{number}> must stand behind <e{number}>, with the entity between them")
    return "".join([*parts, text[position:]]), first, second


def _ambiguous(value: str, found: Sequence[Range], chosen: Range) -> str:
    return f"{value!r} stands {len(found)} times in the text; the one at {chosen[0]}:{chosen[1]} is taken"
