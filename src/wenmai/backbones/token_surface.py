"""What the tokens of a vocabulary stand for, whatever mark their kind of tokenizer puts on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenizers import pre_tokenizers

from wenmai.backbones.tokenizer import METASPACE

INSIDE = "##"
"""Before the pieces of WordPiece that do not begin a word."""


class Surface(NamedTuple):
    """A token without marks.

    Args:
        text: its characters; empty for a word mark alone, or for bytes that are no whole characters.
        begins: whether it begins a word where the vocabulary tells such tokens from others.
    """

    text: str
    begins: bool


class Surfaces:
    """Reads the tokens of one tokenizer.

    Args:
        pretrained: a ``PreTrainedTokenizerFast``.

    Attributes:
        marks: which kinds of marks its tokens have; where they are the same, equal tokens mean the same.
    """

    def __init__(self, pretrained: Any):
        rust = json.loads(pretrained.backend_tokenizer.to_str())
        steps = list(_steps(rust["pre_tokenizer"])) + list(_steps(rust["decoder"]))
        self.pretrained = pretrained
        self.marks = (rust["model"]["type"] == "WordPiece", "ByteLevel" in steps, "Metaspace" in steps)
        self.pieces_inside_words, self.bytes, _ = self.marks
        self._byte_of = {character: i for i, character in enumerate(_byte_characters())} if self.bytes else {}

    def of(self, token: str) -> Surface:
        if self.bytes:
            raw = bytes(self._byte_of[character] for character in token if character in self._byte_of)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                return Surface("", False)
            return Surface(text.strip(), text.startswith(" "))
        if self.pieces_inside_words:
            inside = token.startswith(INSIDE) and len(token) > len(INSIDE)
            return Surface(token.removeprefix(INSIDE) if inside else token, not inside)
        return Surface(token.removeprefix(METASPACE), token.startswith(METASPACE))

    def ids(self) -> dict[Surface, int]:
        """The id of every surface; the first one where several tokens have the same."""
        found: dict[Surface, int] = {}
        for token, i in sorted(self.pretrained.get_vocab().items(), key=lambda one: one[1]):
            surface = self.of(token)
            if surface.text or surface.begins:
                found.setdefault(surface, i)
        return found


def _steps(part: dict[str, Any] | None) -> Iterator[str]:
    """The types of a pre-tokenizer or decoder and of those inside it."""
    if part:
        yield part["type"]
        for inner in [*part.get("pretokenizers", []), *part.get("decoders", [])]:
            yield from _steps(inner)


def _byte_characters() -> list[str]:
    """What byte-level vocabularies write for the bytes 0 to 255: printable ones stand for themselves, the others
    follow from U+0100 on."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    others = iter(sorted(one for one in alphabet if ord(one) > 0xFF))
    return [chr(byte) if chr(byte) in alphabet else next(others) for byte in range(256)]
