"""Text to token ids with offsets into the text that the user gave.

The tokenizers of transformers drop characters in silence (U+3000, CR LF, zero-width characters, combining
accents), make one piece of many characters (full-width Latin, ``在北京`` in SentencePiece), give several
pieces the same characters (``½``; the word mark that SentencePiece puts before a text), and read ``</s>`` in
a text as a special token. So nothing here counts tokens to find characters: every token carries its own
range, and ``characters=True`` gives one token a character.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.roformer import rules
from wenmai.errors import UserError
from wenmai.text.normalize import NormalizedText, joins_before
from wenmai.text.normalize import normalize as normalized

METASPACE = "▁"
"""What SentencePiece writes for the space before a word, and before a text."""

Normalization = Literal["none", "nfkc", "simplified"]
"""What the tokenizer reads instead of the text; see :class:`Tokenizer`."""

_BLANK_OF_PIECES = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Encoding:
    """The tokens of one text, without special tokens.

    Args:
        ids: vocabulary ids.
        offsets: per token its characters ``[start, end)`` of the text; in order, not overlapping, not empty.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> Encoding:
        return Encoding(self.ids[start:stop], self.offsets[start:stop])


@dataclass(frozen=True)
class Template:
    """The special tokens of one sequence, or of a pair, as ids, with the token types of each part.

    Args:
        before, between, after: special ids before the first, between the two, after the last text.
        types: token type of (before, first, between, second, after).
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]


class Tokenizer:
    """A fast tokenizer of transformers, seen through offsets.

    Args:
        pretrained: a ``PreTrainedTokenizerFast`` (in transformers 5 every tokenizer with a Rust backend).
        max_length: the longest input, special tokens included, that the model has positions for.
        normalize: what the tokenizer reads instead of the text: ``nfkc`` unifies width and compatibility forms
            and drops controls, ``simplified`` also turns traditional characters into simplified ones. Offsets
            lead back to the text as it was given all the same.
    """

    def __init__(self, pretrained: Any, *, max_length: int = 512, normalize: Normalization = "none"):
        self.pretrained = pretrained
        self.max_length = max_length
        self.normalize: Normalization = normalize
        self.pad_id: int = pretrained.pad_token_id if pretrained.pad_token_id is not None else 0
        self.unk_id: int | None = pretrained.unk_token_id
        self.mask_id: int | None = pretrained.mask_token_id
        self.vocab_size: int = len(pretrained)
        self.special_ids: frozenset[int] = frozenset(pretrained.all_special_ids)
        self.single = self._template("甲", None)
        self.pair = self._template("甲", "乙")
        self._single_characters: dict[str, int] = {}
        mark = pretrained.convert_tokens_to_ids(METASPACE)
        self._mark_id: int | None = None if mark == self.unk_id else mark
        # text is text: of the special tokens only a mask can be written in it
        self._never_in_text = (self.special_ids | {self.unk_id}) - {self.mask_id}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_single_characters": {}}

    def encode(self, text: str, *, characters: bool = False) -> Encoding:
        """Ids and offsets of a text, without special tokens and of any length.

        Args:
            characters: one token for every character, spaces and controls included, so that every span of
                characters is a span of tokens. Without it the tokenizer's own pieces, where

                * unknown pieces over several characters, and special tokens other than the mask, are split
                  into characters
                * of several pieces for one character only the first stays, and a word mark that stands for no
                  character goes
                * ranges leave out the blanks around a word and take in the accents after it
                * characters that the tokenizer drops have no token
        """
        return self.encode_batch([text], characters=characters)[0]

    def encode_batch(self, texts: Sequence[str], *, characters: bool = False) -> list[Encoding]:
        if characters:
            return [self._by_character(text) for text in texts]
        if not texts:
            return []
        if self.normalize != "none":
            normal = [self._normalized(text) for text in texts]
            encoded = self._encode_pieces([text.text for text in normal])
            return [_in_the_original(*pair) for pair in zip(encoded, normal, strict=True)]
        return self._encode_pieces(texts)

    def _encode_pieces(self, texts: Sequence[str]) -> list[Encoding]:
        found = self.pretrained(
            [SURROGATE.sub("\ufffd", text) for text in texts],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [
            self._by_piece(text, ids, offsets)
            for text, ids, offsets in zip(texts, found["input_ids"], found["offset_mapping"], strict=True)
        ]

    def _normalized(self, text: str) -> NormalizedText:
        return normalized(text, simplify=self.normalize == "simplified")

    @cached_property
    def pieces_span_characters(self) -> bool:
        """Whether usual Chinese words are pieces of several characters (SentencePiece, byte-level BPE)."""
        probe = "中国人民银行今天在北京发布了新的货币政策报告"
        return len(self.encode(probe)) < len(probe)

    @cached_property
    def document_ends(self) -> tuple[list[int], list[int]]:
        """The ids before and after a text by which a decoder knows its beginning and its end; one each at least.

        Raises:
            UserError: the vocabulary has none.
        """
        tokens = self.pretrained
        bos, eos = (
            None if token is None else int(token) for token in (tokens.bos_token_id, tokens.eos_token_id)
        )
        first = eos if bos is None else bos
        before = self.single.before or ([] if first is None else [first])
        after = self.single.after or ([] if eos is None else [eos])
        if not before or not after:
            raise UserError(
                "the tokenizer has no token for the end of a text, by which a decoder knows where one ends: "
                "name one as eos_token in tokenizer_config.json"
            )
        return before, after

    def continuation(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text of ids that follow those of a prompt; a character that was begun and not finished is left out."""
        known, whole = (self._text(tokens) for tokens in (list(prompt), [*prompt, *ids]))
        # the joint may be read together (a blank between words); elsewhere the beginning stays what it was
        text = whole[len(known) :] if whole.startswith(known) else self._text(list(ids))
        return text.rstrip("\ufffd")

    def _text(self, ids: list[int]) -> str:
        text: str = self.pretrained.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        decoder = self.pretrained.backend_tokenizer.decoder
        if decoder is None or type(decoder).__name__ == "WordPiece":
            # pieces are joined by blanks, which belong between Latin words only
            text = _BLANK_OF_PIECES.sub("", text)
        return text

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides which rows a text becomes: vocabulary, rules, special tokens, versions."""
        parts = [
            rules(self.pretrained),
            json.dumps(self.pretrained.special_tokens_map, sort_keys=True, default=str),
            self.normalize,
            str(self.max_length),
            *(version(package) for package in ("tokenizers", "transformers")),
        ]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json`` and its configuration, so that transformers opens it too."""
        try:
            self.pretrained.save_pretrained(folder)
        except Exception as error:
            # the Rust side knows no narrower class for a full disk
            if "(os error " in str(error):
                raise OSError(str(error)) from error
            raise

    @cached_property
    def ordinary_ids(self) -> NDArray[np.int64]:
        """The ids of the vocabulary without special tokens, ascending."""
        return np.setdiff1d(np.arange(self.vocab_size), np.array(sorted(self.special_ids)))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return list(self.pretrained.convert_ids_to_tokens(list(ids)))

    def _by_character(self, text: str) -> Encoding:
        known = self._single_characters
        ids = []
        for character in text:
            found = known.get(character)
            if found is None:
                found = known[character] = self._character_id(character)
            ids.append(found)
        return Encoding(ids, [(i, i + 1) for i in range(len(text))])

    def _character_id(self, character: str) -> int:
        """The id of a character wherever it stands: its only piece, without the word mark if the vocabulary
        has that, else the unknown token."""
        if self.normalize != "none":
            alone = self._normalized(character).text
            character = alone if len(alone) == 1 else character
        text = SURROGATE.sub("\ufffd", character)
        ids: list[int] = self.pretrained(text, add_special_tokens=False, verbose=False)["input_ids"]
        pieces = self.tokens(ids)
        real = [i for i, piece in enumerate(pieces) if piece != METASPACE]
        if len(real) == 1:
            token, piece = ids[real[0]], pieces[real[0]]
            inside_word = self.pretrained.convert_tokens_to_ids(piece.removeprefix(METASPACE))
            return token if inside_word in (None, self.unk_id) else int(inside_word)
        if ids and not real:
            return ids[0]
        if self.unk_id is not None:
            return self.unk_id
        # vocabularies of bytes know no unknown token; the last byte of a character tells most
        return ids[-1] if ids else self.pad_id

    def _by_piece(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> Encoding:
        kept_ids: list[int] = []
        kept_offsets: list[tuple[int, int]] = []
        position = 0
        for index, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
            start = max(start, position)
            if start >= end:
                continue
            if token == self._mark_id and index + 1 < len(ids) and offsets[index + 1][0] < end:
                # the mark before the text shares the first character with the piece that really has it
                continue
            if end - start > 1:  # what is a single character stays, blank or not
                start, end = _without_blanks(text, start, end)
            if start > position:
                _take_marks(text, kept_offsets, start)
            if end - start > 1 and token in self._never_in_text:
                split = self._by_character(text[start:end])
                kept_ids += split.ids
                kept_offsets += [(start + first, start + last) for first, last in split.offsets]
            else:
                kept_ids.append(token)
                kept_offsets.append((start, end))
            position = end
        _take_marks(text, kept_offsets, len(text))
        return Encoding(kept_ids, kept_offsets)

    def _template(self, first: str, second: str | None) -> Template:
        encoded = self.pretrained(first, second, add_special_tokens=True, return_token_type_ids=True)
        ids, types = encoded["input_ids"], encoded["token_type_ids"]
        owner = encoded.sequence_ids(0)
        first_at = [i for i, who in enumerate(owner) if who == 0]
        second_at = [i for i, who in enumerate(owner) if who == 1] or [len(owner)]
        before, after = slice(0, first_at[0]), slice(second_at[-1] + 1, None)
        between = slice(first_at[-1] + 1, second_at[0])
        if (
            len(ids) == len(first_at) + len(owner[second_at[0] :])
            and self.pretrained.eos_token_id is not None
        ):
            # a decoder's tokenizer puts nothing around a text: its end is where a decoder has read all of it
            end = [int(self.pretrained.eos_token_id)]
            return Template(
                [], end if second is not None else [], end, ([], 0, [0] if second else [], 0, [0])
            )
        if second is None:
            between, after = slice(0, 0), slice(first_at[-1] + 1, None)
        return Template(
            before=ids[before],
            between=ids[between],
            after=ids[after],
            types=(
                types[before],
                types[first_at[0]],
                types[between],
                types[second_at[0]] if second is not None else 0,
                types[after],
            ),
        )


def _in_the_original(encoding: Encoding, normal: NormalizedText) -> Encoding:
    """An encoding of normalised text with ranges of the text that was given.

    Of several tokens for the same characters (``㎏`` read as ``kg``) only the first stays.
    """
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        first, last = normal.to_original(start, end)
        first = max(first, offsets[-1][1] if offsets else 0)
        if first < last:
            ids.append(token)
            offsets.append((first, last))
    return Encoding(ids, offsets)


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    """A piece's range without spaces, controls, zero-width characters around it, unless it is all blank."""
    first, stop = start, end
    while first < stop and _is_blank(text[first]):
        first += 1
    while first < stop and _is_blank(text[stop - 1]):
        stop -= 1
    return (first, stop) if first < stop else (start, end)


@lru_cache(maxsize=65536)
def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _take_marks(text: str, offsets: list[tuple[int, int]], stop: int) -> None:
    """Lengthens the last range over what joins its last character and was dropped before ``stop``.

    Tokenizers that compose accents and Hangul syllables count only the first of the characters they join.
    """
    if offsets:
        start, end = offsets[-1]
        while end < stop and joins_before(text[end]):
            end += 1
        offsets[-1] = (start, end)
