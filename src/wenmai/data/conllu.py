"""CoNLL-U, the format of Universal Dependencies: read into texts with words and trees, and written again.

https://universaldependencies.org/format.html. Columns are ID, FORM, LEMMA, UPOS, XPOS, FEATS, HEAD, DEPREL, DEPS, MISC;
what is read are ID, FORM, UPOS, HEAD, DEPREL and ``SpaceAfter=No`` in MISC.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wenmai.data.lines import Line, read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable

COLUMNS = 10
ID, FORM, UPOS, HEAD, RELATION, MISC = 0, 1, 3, 6, 7, 9
NOTHING = "_"

_COMMENT = re.compile(r"#\s*(?P<key>text|sent_id)\s*=\s?(?P<value>.*)")
_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"(\d+)-(\d+)")
_EMPTY_NODE = re.compile(r"\d+\.\d+")
_LINE_OR_COLUMN_END = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class _BadLineError(Exception):
    pass


@dataclass
class _Token:
    """What stands between blanks: a word, or several that are written as one (a multi-word token).

    Args:
        words: their numbers, from 1.
    """

    form: str
    space_after: bool
    words: list[int]


@dataclass
class _Sentence:
    """Args: ``words``: form, UPOS, head and relation of each; None for what is not given."""

    line: int
    text: str | None = None
    sent_id: str | None = None
    tokens: list[_Token] = field(default_factory=list)
    words: list[tuple[str, str | None, int | None, str | None]] = field(default_factory=list)
    last_of_range: int = 0

    def add(self, cells: Sequence[str]) -> None:
        """A line of a token, a word or an empty node.

        Raises:
            _BadLineError: it does not follow from the lines before it, or a cell is not what it should be.
        """
        number, form = cells[ID], cells[FORM]
        space_after = "SpaceAfter=No" not in cells[MISC].split("|")
        following = len(self.words) + 1
        if _EMPTY_NODE.fullmatch(number):
            return
        if found := _RANGE.fullmatch(number):
            first, last = int(found[1]), int(found[2])
            if first != following or last <= first or self.last_of_range >= first:
                raise _BadLineError(f"the range {number} does not begin with the next word, {following}")
            self.tokens.append(_Token(form, space_after, list(range(first, last + 1))))
            self.last_of_range = last
            return
        if not _NUMBER.fullmatch(number) or int(number) != following:
            raise _BadLineError(f"ID {number!r} where word {following} of the sentence is expected")
        head = cells[HEAD]
        if head != NOTHING and not _NUMBER.fullmatch(head):
            raise _BadLineError(
                f"HEAD {head!r} is no number of a word, 0 for the root or {NOTHING} for nothing"
            )
        upos, relation = (None if cell == NOTHING else cell for cell in (cells[UPOS], cells[RELATION]))
        self.words.append((form, upos, None if head == NOTHING else int(head), relation))
        if following > self.last_of_range:
            self.tokens.append(_Token(form, space_after, [following]))


def scan_conllu(path: str, encoding: str) -> Scanned:
    """``{"text", "words": [{"start", "end", "upos", "head", "relation"}]}`` of every sentence, ``sent_id`` as ``id``.

    * The text is that of the comment ``# text =``, in which every token must stand in its place; without it, tokens
      are joined by a space unless ``SpaceAfter=No``.
    * The words of a multi-word token (``1-2``) share its characters out where their forms, written one after the
      other, are the token (``do`` and ``n't`` of ``don't``). Where they are not (``de`` and ``le`` of ``du``), the
      token is one word: it takes the place of that of its words which is nearest to the root, and what hung on the
      others hangs on it.
    * Empty nodes (``8.1``), enhanced dependencies, lemmas, language-specific parts of speech and features are passed
      over.

    A sentence with a bad line is rejected whole, with the first such line.
    """
    sentence: _Sentence | None = None
    bad: Rejected | None = None
    first = True
    for line in read_lines(path, encoding):
        if isinstance(line, Line) and not line.text.strip():
            yield from _finished(sentence, bad, path)
            sentence, bad = None, None
            continue
        if bad is not None:
            continue
        if isinstance(line, Rejected):
            bad = line
            continue
        sentence = sentence or _Sentence(line.number)
        if line.text.startswith("#"):
            if found := _COMMENT.match(line.text):
                setattr(sentence, found["key"], found["value"])
            continue
        cells = line.text.split("\t")
        if len(cells) != COLUMNS:
            message = f"{len(cells)} column(s) between tabs, CoNLL-U has {COLUMNS}"
            if first:
                raise unreadable(
                    path, f"{message}: is it in another format? set data.format", line=line.number
                )
            bad = rejected(path, line.number, f"{message}; the sentence is left out whole", record=line.text)
            continue
        first = False
        try:
            sentence.add(cells)
        except _BadLineError as error:
            bad = rejected(path, line.number, f"{error}; the sentence is left out whole", record=line.text)
    yield from _finished(sentence, bad, path)


def _finished(sentence: _Sentence | None, bad: Rejected | None, path: str) -> Iterator[Record | Rejected]:
    if bad is not None:
        yield bad
    elif sentence is not None and sentence.words:
        try:
            yield Record(_record(sentence), path, sentence.line)
        except _BadLineError as error:
            yield rejected(path, sentence.line, str(error), record=sentence.text)


def _record(sentence: _Sentence) -> dict[str, Any]:
    if sentence.last_of_range > len(sentence.words):
        raise _BadLineError(
            f"a range ends with word {sentence.last_of_range}, the last is {len(sentence.words)}"
        )
    text, places = _located(sentence.tokens, sentence.text)
    groups: list[tuple[list[int], int, int]] = []
    for token, start in zip(sentence.tokens, places, strict=True):
        forms = [sentence.words[number - 1][0] for number in token.words]
        if "".join(forms) == token.form:
            for number, form in zip(token.words, forms, strict=True):
                groups.append(([number], start, start + len(form)))
                start += len(form)
        else:
            groups.append((token.words, start, start + len(token.form)))
    new = {0: 0} | {number: i for i, (group, _, _) in enumerate(groups, 1) for number in group}
    words = []
    for group, start, end in groups:
        _, upos, head, relation = sentence.words[_highest(group, sentence) - 1]
        word: dict[str, Any] = {"start": start, "end": end}
        if upos is not None:
            word["upos"] = upos
        if head is not None:
            word |= {"head": new.get(head, head), "relation": relation}
        words.append(word)
    record: dict[str, Any] = {} if sentence.sent_id is None else {"id": sentence.sent_id}
    return {**record, "text": text, "words": words}


def _located(tokens: Sequence[_Token], text: str | None) -> tuple[str, list[int]]:
    """The text, and the first character of each token."""
    if text is None:
        text = "".join(token.form + " " * token.space_after for token in tokens).rstrip(" ")
    places = []
    position = 0
    for token in tokens:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith(token.form, position):
            raise _BadLineError(
                f"the token {token.form!r} does not stand at character {position} of '# text', where "
                f"{text[position : position + 20]!r} stands: correct the one or the other"
            )
        places.append(position)
        position += len(token.form)
    if text[position:].strip():
        raise _BadLineError(f"'# text' goes on behind the last token: {text[position : position + 20]!r}")
    return text, places


def _highest(group: Sequence[int], sentence: _Sentence) -> int:
    """The word of a group that is nearest to the root, so that no word above it hangs on the group."""

    def depth(number: int) -> int:
        for steps in range(len(sentence.words)):
            head = sentence.words[number - 1][2]
            if not head or head > len(sentence.words):
                return steps
            number = head
        return len(sentence.words)

    return group[0] if len(group) == 1 else min(group, key=depth)


def conllu_lines(prediction: Mapping[str, Any]) -> str:
    """A record or a prediction of dependency parsing as CoNLL-U: its sentences, each with an empty line behind it.

    Args:
        prediction: ``text``, ``words``, and ``sentences`` if there are several.
    """
    text = prediction["text"]
    sentences = prediction.get("sentences") or [{"start": 0, "end": len(text)}]
    starts = [word["start"] for word in prediction["words"]]
    parts = []
    for number, sentence in enumerate(sentences, 1):
        first, stop = (bisect_left(starts, sentence[key]) for key in ("start", "end"))
        words = prediction["words"][first:stop]
        if not words:
            continue
        if (name := prediction.get("id")) is not None:
            parts.append(f"# sent_id = {name}" + (f"-{number}" if len(sentences) > 1 else ""))
        parts.append(f"# text = {_on_one_line(text[words[0]['start'] : words[-1]['end']])}")
        for at, word in enumerate(words, 1):
            joined = at < len(words) and words[at]["start"] == word["end"]
            cells = [NOTHING] * COLUMNS
            cells[ID], cells[FORM] = str(at), _on_one_line(text[word["start"] : word["end"]])
            cells[UPOS], cells[RELATION] = word.get("upos") or NOTHING, word.get("relation") or NOTHING
            cells[HEAD] = NOTHING if word.get("head") is None else str(word["head"])
            cells[MISC] = "SpaceAfter=No" if joined else NOTHING
            parts.append("\t".join(cells))
        parts.append("")
    return "".join(f"{part}\n" for part in parts)


def _on_one_line(text: str) -> str:
    return _LINE_OR_COLUMN_END.sub(" ", text)
