"""Pairs of persons whose names are hidden in their text: ``2 果素瑛$程永光$程砚秋与###生有三子一女，即###、程永源。``

The form of people_relation_extract: label, the two names, and a text in which ``#`` stands for each character of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wenmai.data.lines import read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected

_LINE = re.compile(r"(?P<label>\S+) (?P<subject>[^$]+)\$(?P<object>[^$]+)\$(?P<text>.*)")
_HIDDEN = re.compile("#+")

Range = tuple[int, int]


def scan_hidden_pair(path: str, encoding: str) -> Scanned:
    """``{"text", "subject", "object", "label", "guessed"}`` of every line; the text stays as it is, names hidden.

    A run of ``#`` is a place of the person whose name is as long. The first such run of each counts. Where both names
    are of one length the first run is taken for the first person, which ``guessed`` says: of the lines whose lengths
    tell, it is so in nine of ten. A run as long as both names together is both, side by side. Lines whose runs fit no
    name are rejected.
    """
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):
            yield line
        elif line.text.strip():
            yield _record(line.text, path, line.number)


def _record(line: str, path: str, number: int) -> Record | Rejected:
    match = _LINE.fullmatch(line)
    if match is None:
        return rejected(path, number, f"{line[:60]!r} does not read as LABEL NAME$NAME$TEXT", record=line)
    names = (match["subject"], match["object"])
    found = _places([run.span() for run in _HIDDEN.finditer(match["text"])], *map(len, names))
    if found is None:
        lengths = [run.end() - run.start() for run in _HIDDEN.finditer(match["text"])]
        message = (
            f"the names {names[0]} and {names[1]} have {len(names[0])} and {len(names[1])} characters, but the runs "
            f"of # in the text have {', '.join(map(str, lengths)) or 'no length: there are none'}"
        )
        return rejected(path, number, message, record=line)
    ends = [{"start": start, "end": end} for start, end in found]
    data = {"text": match["text"], "subject": ends[0], "object": ends[1], "label": match["label"]}
    if len(names[0]) == len(names[1]):
        data["guessed"] = [
            f"both names have {len(names[0])} characters; the first run of # is taken for {names[0]}"
        ]
    return Record(data, path, number)


def _places(runs: Sequence[Range], first: int, second: int) -> tuple[Range, Range] | None:
    """The ranges of two names of these lengths, None where the runs do not fit."""
    subject = next((run for run in runs if run[1] - run[0] == first), None)
    target = next((run for run in runs if run[1] - run[0] == second and run != subject), None)
    if subject is not None and target is not None:
        return subject, target
    both = next((run for run in runs if run[1] - run[0] == first + second), None)
    if both is None:
        return None
    middle = both[0] + first
    return (both[0], middle), (middle, both[1])
