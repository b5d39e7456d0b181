"""Triples that name their entities without offsets: DuIE and CMeIE (``spo_list``), CasRel's JSON (``triple_list``)."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from wenmai.data.json_files import json_file_is_lines, scan_json, scan_jsonl
from wenmai.data.records import Record, Rejected, Scanned, rejected

TripleFormat = Literal["spo_list", "triple_list"]
FORMATS: tuple[TripleFormat, ...] = ("spo_list", "triple_list")
VALUE = "@value"
"""Key of the object itself in DuIE 2.0 and CMeIE; the object's other keys are properties of it."""

FIRST_UNSPACED = "\u2e80"
"""From here on (CJK radicals, kana, Chinese, Hangul) Unicode holds the scripts that are written without spaces."""


class Named(NamedTuple):
    """A triple as the file has it. Types are None where the file gives none."""

    subject: str
    predicate: str
    object: str
    subject_type: str | None = None
    object_type: str | None = None


class _NotThisShapeError(Exception):
    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def scan_triples(path: str, encoding: str, *, listed: TripleFormat) -> Scanned:
    """``{"text", "relations", "unlocated"}`` of a file with a record a line, or of a JSON list.

    Both ends of a triple are looked for in the text (:func:`locate`). Triples that are not found there, such as
    CMeIE's ``subject_placeholder``, are put under ``unlocated`` as ``[subject, predicate, object]``. A record without
    ``spo_list`` or ``triple_list`` is unlabelled; ``id`` is kept.

    Args:
        listed: the field that holds the triples.
    """
    scan = scan_jsonl if json_file_is_lines(path, encoding) else scan_json
    for record in scan(path, encoding):
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield Record(_converted(record.data, listed), record.path, record.line)
        except _NotThisShapeError as error:
            yield rejected(record.path, record.line, str(error), field=error.field, record=record.data)


def triple_format(data: Mapping[str, Any]) -> TripleFormat | None:
    """The format that a record of a plain JSON file has the shape of."""
    return next((name for name in FORMATS if isinstance(data.get(name), list)), None)


def _converted(data: Mapping[str, Any], listed: TripleFormat) -> dict[str, Any]:
    text = data.get("text")
    if not isinstance(text, str):
        raise _NotThisShapeError("missing" if text is None else f"a text is expected, not {text!r}", "text")
    record: dict[str, Any] = {"id": data["id"]} if data.get("id") is not None else {}
    record["text"] = text
    if data.get(listed) is None:
        return record
    if not isinstance(data[listed], list):
        raise _NotThisShapeError(f"a list is expected, not {data[listed]!r}", listed)
    read = _spo if listed == "spo_list" else _triple
    relations: list[dict[str, Any]] = []
    unlocated: list[list[str]] = []
    for i, item in enumerate(data[listed]):
        for named in read(item, f"{listed}[{i}]"):
            places = locate(text, named.subject, named.object)
            if places is None:
                unlocated.append([named.subject, named.predicate, named.object])
                continue
            relation = {
                "subject": _end(places[0], named.subject_type),
                "predicate": named.predicate,
                "object": _end(places[1], named.object_type),
            }
            if relation not in relations:
                relations.append(relation)
    record["relations"] = relations
    return {**record, "unlocated": unlocated} if unlocated else record


def _end(place: tuple[int, int], label: str | None) -> dict[str, Any]:
    end: dict[str, Any] = {"start": place[0], "end": place[1]}
    return end if label is None else {**end, "label": label}


def _triple(item: Any, field: str) -> Iterator[Named]:
    if not (isinstance(item, list) and len(item) == 3 and all(isinstance(part, str) for part in item)):
        raise _NotThisShapeError(f"[subject, predicate, object] is expected, not {item!r}", field)
    yield Named(*item)


def _spo(item: Any, field: str) -> Iterator[Named]:
    """DuIE 1.0 has texts as objects, DuIE 2.0 and CMeIE ``{"@value": text}``, in DuIE with properties such as
    ``inWork`` beside it: these are triples of their own, ``predicate/inWork``."""
    if not isinstance(item, dict):
        raise _NotThisShapeError(f"an object is expected, not {item!r}", field)

    def a_text(value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise _NotThisShapeError(
                "missing" if value is None else f"a text is expected, not {value!r}", f"{field}.{key}"
            )
        return value

    subject, predicate = a_text(item.get("subject"), "subject"), a_text(item.get("predicate"), "predicate")
    subject_type, target, types = item.get("subject_type"), item.get("object"), item.get("object_type")
    if isinstance(target, str):
        target = {VALUE: target}
    if not isinstance(target, dict) or not target:
        raise _NotThisShapeError(
            f'a text or {{"{VALUE}": text}} is expected, not {target!r}', f"{field}.object"
        )
    for key, value in target.items():
        own = types.get(key) if isinstance(types, dict) else types
        yield Named(
            subject,
            predicate if key == VALUE else f"{predicate}/{key}",
            a_text(value, f"object.{key}"),
            None if subject_type is None else a_text(subject_type, "subject_type"),
            None if own is None else a_text(own, f"object_type.{key}"),
        )


def locate(text: str, subject: str, target: str) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Where the two ends of a triple stand, if both are in the text.

    Of several occurrences the pair is taken that comes first by this rule: whole words before parts of Latin words or
    numbers, ends that share no character before ends that do, the smallest gap between them, the earliest subject, the
    earliest object. What does not occur as it is written is looked for without regard to case.
    """
    subjects, targets = _occurrences(text, subject), _occurrences(text, target)
    # of the targets that share no character with a subject, only its neighbours can be the nearest
    starts = [start for start, _ in targets]
    near = [
        (s, targets[i])
        for s in subjects
        for i in (bisect_right(starts, s[0] - len(target)) - 1, bisect_left(starts, s[1]))
        if 0 <= i < len(targets)
    ]
    pairs = near or [(s, o) for s in subjects for o in targets]
    return min(pairs, key=lambda pair: _distance(*pair), default=None)


def _distance(subject: tuple[int, int], target: tuple[int, int]) -> tuple[bool, int, int, int]:
    gap = max(subject[0], target[0]) - min(subject[1], target[1])
    return gap < 0, gap, subject[0], target[0]


def _occurrences(text: str, surface: str) -> list[tuple[int, int]]:
    """Of whole words, if there are any."""
    found = _found(text, surface)
    if not found:
        found = _found(*map(_lower, (text, surface)))
    whole = [
        (start, end) for start, end in found if not (_inside_word(text, start) or _inside_word(text, end))
    ]
    return whole or found


def _found(text: str, surface: str) -> list[tuple[int, int]]:
    if not surface:
        return []
    return [(m.start(), m.start() + len(surface)) for m in re.finditer(f"(?={re.escape(surface)})", text)]


def _lower(text: str) -> str:
    """Small letters where they are as many characters: offsets stay what they are."""
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _inside_word(text: str, at: int) -> bool:
    """Whether a border cuts through a Latin word or a number."""
    return 0 < at < len(text) and all(c.isalnum() and c < FIRST_UNSPACED for c in text[at - 1 : at + 1])
