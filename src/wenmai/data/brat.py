"""brat standoff: a folder of ``N.txt`` with ``N.ann`` beside each.

Format: https://brat.nlplab.org/standoff.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from wenmai.data.lines import missing, read_lines, read_whole
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable
from wenmai.errors import DataError

Discontinuous = Literal["refuse", "cover", "drop"]

_TEXT_BOUND = re.compile(
    r"(?P<id>T\S+)\t(?P<label>\S+) (?P<ranges>\d+ \d+(?:;\d+ \d+)*)(?:\t(?P<surface>.*))?"
)
_RELATION = re.compile(r"R\S+\t(?P<predicate>\S+) \S+?:(?P<subject>T\S+) \S+?:(?P<object>T\S+)\s*")


class _BadLineError(Exception):
    pass


def scan_brat(path: str, encoding: str, *, discontinuous: Discontinuous) -> Scanned:
    """``{"id", "text", "entities", "relations"}`` of every document, in the order of their names.

    The id is the file's name without ending. Events, attributes, notes and equivalences (lines that begin
    with E, A, M, N, # and *) are passed over. A document without ``.ann`` is unlabelled.

    Args:
        discontinuous: entities of several pieces: ``refuse`` the document, ``cover`` them from their first to
            their last character, or ``drop`` them and their relations.
    """
    folder = Path(path)
    if not folder.is_dir():
        message = "is a file: brat is a folder of .txt and .ann files" if folder.exists() else missing(folder)
        raise unreadable(path, message)
    documents = sorted(folder.glob("*.txt"), key=lambda file: _natural(file.stem))
    if not documents:
        raise unreadable(path, "holds no .txt files: brat is a folder of .txt and .ann files")
    for file in documents:
        try:
            text = read_whole(str(file), encoding)
        except DataError as error:
            yield Rejected(error.problems[0], str(file))
            continue
        annotations = file.with_suffix(".ann")
        if not annotations.exists():
            yield Record({"id": file.stem, "text": text}, str(file))
        elif annotations.stat().st_size == 0:
            yield Record({"id": file.stem, "text": text, "entities": [], "relations": []}, str(file))
        else:
            yield from _document(file.stem, text, str(annotations), encoding, discontinuous)


def _natural(name: str) -> list[tuple[int, str]]:
    """``2`` before ``10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _document(name: str, text: str, path: str, encoding: str, discontinuous: Discontinuous) -> Scanned:
    entities: dict[str, dict[str, Any]] = {}
    dropped: set[str] = set()
    relations: list[tuple[int, re.Match[str]]] = []
    problems: list[Rejected] = []
    broken: set[str] = set()
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):
            problems.append(line)
            continue
        try:
            if line.text.startswith("T"):
                identifier, entity = _entity(line.text, text, discontinuous)
                if entity is None:
                    dropped.add(identifier)
                else:
                    entities[identifier] = entity
            elif line.text.startswith("R"):
                relations.append((line.number, _match(_RELATION, line.text, "R1<TAB>TYPE Arg1:T1 Arg2:T2")))
        except _BadLineError as error:
            broken.add(line.text.partition("\t")[0])
            problems.append(rejected(path, line.number, str(error), record=line.text))
    found = []
    for number, relation in relations:
        ends = (relation["subject"], relation["object"])
        unknown = [end for end in ends if not (end in entities or end in dropped or end in broken)]
        if unknown:
            message = f"{unknown[0]} is none of the document's entities"
            problems.append(rejected(path, number, message, record=relation.string))
        elif not (dropped | broken).intersection(ends):
            subject, target = (entities[end] for end in ends)
            found.append({"subject": subject, "predicate": relation["predicate"], "object": target})
    if problems:
        yield from problems
        return
    ordered = sorted(entities.values(), key=lambda entity: (entity["start"], entity["end"], entity["label"]))
    yield Record({"id": name, "text": text, "entities": ordered, "relations": found}, path)


def _entity(line: str, text: str, discontinuous: Discontinuous) -> tuple[str, dict[str, Any] | None]:
    """Identifier and entity; None in its place if it is to be dropped."""
    match = _match(_TEXT_BOUND, line, "T1<TAB>TYPE START END<TAB>TEXT")
    ranges = [tuple(map(int, piece.split())) for piece in match["ranges"].split(";")]
    pieces = []
    for start, end in ranges:
        if not 0 <= start < end <= len(text):
            raise _BadLineError(
                f"{match['id']}: {start}:{end} lies outside the text ({len(text)} characters) or is empty"
            )
        pieces.append(text[start:end])
    surface = match["surface"]
    if surface is not None and _letters("".join(pieces)) != _letters(surface):
        raise _BadLineError(
            f"{match['id']}: {match['ranges']} is {' '.join(pieces)!r} in the text, not {surface!r}; "
            "was the .txt file changed, or its line ends (brat counts a CR as a character)?"
        )
    if len(ranges) > 1 and discontinuous == "refuse":
        raise _BadLineError(
            f"{match['id']}: the entity has {len(ranges)} pieces ({match['ranges']}), no span can say that; "
            "set data.discontinuous: cover (from the first to the last character) or drop"
        )
    if len(ranges) > 1 and discontinuous == "drop":
        return match["id"], None
    start, end = min(start for start, _ in ranges), max(end for _, end in ranges)
    return match["id"], {"start": start, "end": end, "label": match["label"]}


def _letters(text: str) -> str:
    """A surface as the offsets must agree with it. brat writes line ends as spaces, and editors that replace
    punctuation (``・`` by ``、``) leave the offsets right."""
    return "".join(filter(str.isalnum, text)) or text


def _match(pattern: re.Pattern[str], line: str, expected: str) -> re.Match[str]:
    match = pattern.fullmatch(line)
    if match is None:
        raise _BadLineError(f"{line!r} does not read as {expected}")
    return match
