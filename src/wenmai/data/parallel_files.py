"""``seq.in``, ``seq.out`` and ``label`` of one folder: tokens, their tags and the intent, line by line.

How ATIS and SNIPS are handed around since Goo et al. 2018 (https://aclanthology.org/N18-2118).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from wenmai.data.conll import is_wide
from wenmai.data.lines import Line, missing, read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable
from wenmai.errors import UserError
from wenmai.text.tags import spans_from_tags

TOKENS, TAGS, INTENT = "seq.in", "seq.out", "label"
COMBINED = "#"
"""Between the intents of a text that has several: ``atis_flight#atis_airfare``."""

_TOKEN = re.compile(r"\S+")


def scan_parallel_files(path: str, encoding: str) -> Scanned:
    """``{"text", "intents", "slots"}`` of every line; places are lines of ``seq.in``.

    * The text is the line of ``seq.in`` with its blanks, but for those beside Chinese and full-width characters, which
      only keep tokens apart and go.
    * Tags are BIO, BIOES or BMES, read leniently (an I after O begins a slot), one for each token.
    * ``a#b`` in ``label`` is two intents.
    * Without ``label`` and ``seq.out`` the texts are unlabelled; one of them alone is refused.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise unreadable(
            path, f"is a file: name the folder that holds {TOKENS}" if folder.exists() else missing(folder)
        )
    there = [name for name in (TAGS, INTENT) if (folder / name).exists()]
    if len(there) == 1:
        (lacking,) = {TAGS, INTENT} - {*there}
        raise unreadable(
            path, f"has {there[0]} but no {lacking}: a text needs its intent and its tags, or neither"
        )
    files = [str(folder / name) for name in (TOKENS, *there)]
    for lines in zip_longest(*(read_lines(file, encoding) for file in files)):
        ended = [file for file, line in zip(files, lines, strict=True) if line is None]
        if ended:
            raise unreadable(
                ended[0], "has fewer lines than the files beside it: each line of all three is one text"
            )
        bad = next((line for line in lines if isinstance(line, Rejected)), None)
        yield bad or _record(files[0], *(line for line in lines if isinstance(line, Line)))


def _record(
    path: str, tokens: Line, tags: Line | None = None, intent: Line | None = None
) -> Record | Rejected:
    text, ranges = _text(tokens.text)
    if tags is None or intent is None:
        return Record({"text": text}, path, tokens.number)
    names, intents = tags.text.split(), [name for name in intent.text.strip().split(COMBINED) if name]
    problem = None
    if len(names) != len(ranges):
        problem = f"{len(ranges)} tokens, but {len(names)} tags on the same line of {TAGS}"
    elif not intents:
        problem = f"no intent on the same line of {INTENT}"
    if problem is None:
        try:
            slots = list(_slots(names, ranges))
        except UserError as error:
            problem = f"{error} on the same line of {TAGS}"
    if problem is not None:
        return rejected(path, tokens.number, problem, record=[tokens.text, tags.text, intent.text])
    return Record({"text": text, "intents": intents, "slots": slots}, path, tokens.number)


def _text(line: str) -> tuple[str, list[tuple[int, int]]]:
    """The text and the characters of each token."""
    text, ranges, position = "", [], 0
    for match in _TOKEN.finditer(line):
        between, token = line[position : match.start()], match.group()
        if text and not (is_wide(text[-1]) or is_wide(token[0])):
            text += between
        ranges.append((len(text), len(text) + len(token)))
        text += token
        position = match.end()
    return text, ranges


def _slots(tags: list[str], ranges: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for span in spans_from_tags(tags, strict=False):
        yield {"start": ranges[span.start][0], "end": ranges[span.end - 1][1], "label": span.label}
