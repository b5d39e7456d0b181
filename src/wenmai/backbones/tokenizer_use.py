"""What a tokenizer makes of texts, and what its vocabulary holds."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from wenmai.backbones.token_surface import Surfaces
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.progress import SILENT, Progress
from wenmai.text.words import by_script, is_chinese

AT_ONCE = 256
MOST_UNKNOWN = 20


@dataclass(frozen=True)
class Piece:
    """A token of a text.

    Args:
        start, end: its characters of the text.
        unknown: the vocabulary has nothing for them.
    """

    token: str
    id: int
    start: int
    end: int
    text: str
    unknown: bool


@dataclass(frozen=True)
class Pieces:
    """A text cut into tokens.

    Args:
        pieces: in order.
        lost: the characters that no token stands for, blanks apart, as (start, end).
    """

    pieces: list[Piece]
    lost: list[tuple[int, int]]


@dataclass(frozen=True)
class Usage:
    """What a tokenizer makes of many lines.

    Args:
        characters: blanks apart.
        words: runs of letters and digits, single Chinese characters and marks.
        unknown: tokens that stand for what the vocabulary does not have.
        covered: share of the characters that tokens other than the unknown one stand for.
        most_unknown: the characters that are unknown or lost, the most frequent first.
    """

    lines: int
    characters: int
    words: int
    tokens: int
    unknown: int
    covered: float
    most_unknown: list[tuple[str, int]]

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / max(self.words, 1)

    @property
    def unknown_share(self) -> float:
        return self.unknown / max(self.tokens, 1)


def cut(tokenizer: Tokenizer, text: str, *, characters: bool = False) -> Pieces:
    """The tokens of a text, with where they stand and what has none."""
    encoded = tokenizer.encode(text, characters=characters)
    pieces = [
        Piece(token, i, start, end, text[start:end], i == tokenizer.unk_id)
        for token, i, (start, end) in zip(
            tokenizer.tokens(encoded.ids), encoded.ids, encoded.offsets, strict=True
        )
    ]
    lost = []
    position = 0
    for start, end in [*encoded.offsets, (len(text), len(text))]:
        if text[position:start].strip():
            lost.append((position, start))
        position = end
    return Pieces(pieces, lost)


def usage(tokenizer: Tokenizer, texts: Iterable[str], *, progress: Progress = SILENT) -> Usage:
    """Counts over lines, in constant memory."""
    lines = characters = words = tokens = unknown = 0
    bad: Counter[str] = Counter()
    with progress.task("counting tokens", None, "lines") as step:
        rest = iter(texts)
        while part := list(islice(rest, AT_ONCE)):
            for text, encoded in zip(part, tokenizer.encode_batch(part), strict=True):
                lines += 1
                characters += sum(not one.isspace() for one in text)
                words += len(by_script(text))
                tokens += len(encoded)
                position = 0
                for i, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
                    bad.update(text[position : end if i == tokenizer.unk_id else start])
                    unknown += i == tokenizer.unk_id
                    position = end
                bad.update(text[position:])
            step.advance(len(part))
    bad = Counter({one: n for one, n in bad.items() if not one.isspace()})
    ordered = sorted(bad.items(), key=lambda one: (-one[1], one[0]))
    covered = 1 - bad.total() / max(characters, 1)
    return Usage(lines, characters, words, tokens, unknown, covered, ordered[:MOST_UNKNOWN])


@dataclass(frozen=True)
class Contents:
    """What a vocabulary holds, as numbers of tokens.

    Args:
        scripts: by what the tokens are written in.
        lengths: by the number of characters, marks apart.
    """

    tokens: int
    scripts: dict[str, int]
    lengths: dict[int, int]


def contents(tokenizer: Tokenizer) -> Contents:
    """Counts the tokens of a vocabulary by script and length; special tokens have neither."""
    surfaces = Surfaces(tokenizer.pretrained)
    scripts: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for i, token in enumerate(tokenizer.tokens(range(tokenizer.vocab_size))):
        if i in tokenizer.special_ids:
            scripts["special"] += 1
            continue
        text = surfaces.of(token).text
        scripts[script(text)] += 1
        lengths[len(text)] += 1
    return Contents(tokenizer.vocab_size, dict(scripts.most_common()), dict(sorted(lengths.items())))


def script(text: str) -> str:
    """``chinese`` (also kana), ``latin``, ``other letters``, ``digits``, ``marks``, ``mixed``, or ``no text``: a word
    mark alone, or bytes that are no whole characters."""
    kinds = {_kind(one) for one in text}
    return "no text" if not kinds else kinds.pop() if len(kinds) == 1 else "mixed"


def _kind(character: str) -> str:
    if is_chinese(character):
        return "chinese"
    if character.isdigit():
        return "digits"
    if character.isalpha():
        return (
            "latin"
            if unicodedata.name(character, "").startswith(("LATIN", "FULLWIDTH LATIN"))
            else "other letters"
        )
    return "marks"
