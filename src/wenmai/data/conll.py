"""CoNLL columns: a token and its tag a line, an empty line between sentences; into texts with entities."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from wenmai.data.lines import Line, read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable
from wenmai.text.tags import OUTSIDE, spans_from_tags

PREFIXES = ("B", "I", "M", "E", "S")
POSITION_SENTENCES = 20
OPEN_WIDTH_PUNCTUATION = frozenset("“”‘’…—·")
DOCUMENT_MARK = "-DOCSTART-"


class _Token(NamedTuple):
    line: int
    text: str
    tag: str


_Sentence = list[_Token]


def scan_conll(
    path: str, encoding: str, *, delimiter: str | None = None, text_column: int = 0, tag_column: int = -1
) -> Scanned:
    """``{"text", "entities"}`` of every sentence.

    * Columns stand between tabs if the first line has one, else between spaces; ``delimiter`` overrides.
    * Tags are BIO, BIOES or BMES, read leniently (an I after O begins an entity); the prefix ends in ``-`` or
      ``_``.
    * If every token of the first 20 sentences ends in a digit after something else, and not all of them are
      numbers, the digit is the character's position in its word (Weibo NER writes ``人1``) and is taken off
      all tokens.
    * Tokens are joined without a space, except between two tokens of which one has several characters where
      neither neighbouring character is Chinese or full-width: ``["New", "York", "的", "iPhone", "7"]`` is
      ``New York的iPhone 7``, ``["2", "0", "年"]`` is ``20年``. Tokens with a position are joined as they are.

    Args:
        text_column, tag_column: number of the token's and the tag's column from 0; -1 is the last.
    """
    sentences = _sentences(path, encoding, delimiter, text_column, tag_column)
    first = list(islice(sentences, POSITION_SENTENCES))
    numbered = _numbered([sentence for sentence in first if not isinstance(sentence, Rejected)])
    for sentence in chain(first, sentences):
        yield sentence if isinstance(sentence, Rejected) else _record(sentence, path, numbered)


def _sentences(
    path: str, encoding: str, delimiter: str | None, text_column: int, tag_column: int
) -> Iterator[_Sentence | Rejected]:
    """Sentences; one with a bad line is rejected whole, with the first such line."""
    sentence: _Sentence = []
    bad: Rejected | None = None
    separator, columns = delimiter, 0
    for line in read_lines(path, encoding):
        if isinstance(line, Line) and (not line.text.strip(" \t") or line.text.startswith(DOCUMENT_MARK)):
            if bad or sentence:
                yield bad or sentence
            sentence, bad = [], None
            continue
        if bad:
            continue
        if isinstance(line, Rejected):
            bad = line
            continue
        separator = separator or ("\t" if "\t" in line.text else " ")
        cells = _cells(line.text, separator)
        columns = columns or _known_columns(cells, path, line, text_column, tag_column)
        if len(cells) != columns:
            message = (
                f"{len(cells)} columns, but the first line has {columns}; the sentence is left out whole"
            )
            bad = rejected(path, line.number, message, record=line.text)
        elif not cells[text_column]:
            bad = rejected(path, line.number, "the token is empty", record=line.text)
        elif not _is_tag(cells[tag_column]):
            message = (
                f"{cells[tag_column]!r} is no tag: O is expected, or one of {' '.join(PREFIXES)} "
                "with '-' or '_' and a label, such as B-PER"
            )
            bad = rejected(path, line.number, message, record=line.text)
        else:
            sentence.append(_Token(line.number, cells[text_column], cells[tag_column]))
    if bad or sentence:
        yield bad or sentence


def _cells(text: str, separator: str) -> list[str]:
    """The columns of a line; between spaces, a leading space is itself the token."""
    if separator != " ":
        return text.split(separator)
    token, rest = (" ", text[1:]) if text.startswith(" ") else text.partition(" ")[::2]
    return [token, *(cell for cell in rest.split(" ") if cell)]


def _known_columns(cells: Sequence[str], path: str, line: Line, text_column: int, tag_column: int) -> int:
    if len(cells) < 2 or max(text_column, tag_column) >= len(cells):
        raise unreadable(
            path,
            f"{len(cells)} column(s) found, a token and a tag are needed: set data.delimiter to what stands "
            "between them, or data.columns: {text: NUMBER, entities: NUMBER}",
            line=line.number,
        )
    return len(cells)


def _is_tag(tag: str) -> bool:
    return tag == OUTSIDE or (len(tag) > 2 and tag[0] in PREFIXES and tag[1] in "-_")


def _numbered(sentences: Sequence[_Sentence]) -> bool:
    tokens = [token.text for sentence in sentences for token in sentence]
    ends = all(len(token) > 1 and token[-1] in "0123456789" for token in tokens)
    return bool(tokens) and ends and not all(token.isdigit() for token in tokens)


def _record(sentence: _Sentence, path: str, numbered: bool) -> Record | Rejected:
    words = [token.text for token in sentence]
    if numbered:
        for token in sentence:
            if len(token.text) < 2 or token.text[-1] not in "0123456789":
                message = (
                    f"{token.text!r} does not end in its position in the word, as the file's first tokens do"
                )
                return rejected(path, token.line, message, record=token.text)
        words = [word[:-1] for word in words]
    text, ranges = join_words(words, spaced=not numbered)
    entities = [
        {"start": ranges[span.start][0], "end": ranges[span.end - 1][1], "label": span.label}
        for span in spans_from_tags([token.tag for token in sentence], strict=False)
    ]
    return Record({"text": text, "entities": entities}, path, sentence[0].line)


def join_words(words: Sequence[str], *, spaced: bool = True) -> tuple[str, list[tuple[int, int]]]:
    """One text from its words, and the characters ``(start, end)`` of each.

    If ``spaced``, a space goes between two words of which one has several characters, where neither
    neighbouring character is Chinese or full-width: words of one character come from texts that were cut into
    characters.
    """
    parts: list[str] = []
    ranges: list[tuple[int, int]] = []
    length = 0
    before = ""
    for word in words:
        if (
            spaced
            and before
            and len(before) + len(word) > 2
            and not (is_wide(before[-1]) or is_wide(word[0]))
        ):
            parts.append(" ")
            length += 1
        parts.append(word)
        ranges.append((length, length + len(word)))
        length += len(word)
        before = word
    return "".join(parts), ranges


def is_wide(character: str) -> bool:
    """Whether no blank stands beside it: Chinese and full-width characters."""
    return unicodedata.east_asian_width(character) in "WF" or character in OPEN_WIDTH_PUNCTUATION
