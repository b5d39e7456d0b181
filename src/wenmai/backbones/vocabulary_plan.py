"""What a tokenizer is to be like that is learned from text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from wenmai.errors import UserError

Kind = Literal["wordpiece", "bpe", "byte_bpe", "unigram", "character", "word"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class SpecialTokens:
    """The names of the special tokens; their ids are 0 to 4 in this order."""

    pad: str = "[PAD]"
    unk: str = "[UNK]"
    cls: str = "[CLS]"
    sep: str = "[SEP]"
    mask: str = "[MASK]"

    def names(self) -> list[str]:
        return [self.pad, self.unk, self.cls, self.sep, self.mask]


@dataclass(frozen=True)
class VocabularyPlan:
    """What is learned, and how much of it.

    Args:
        size: of the vocabulary, special and extra tokens included.
        kind:

            * ``wordpiece``: every Chinese character by itself; words of other scripts in pieces, inside a word
              with ``##`` before them (BERT, Devlin et al. 2019)
            * ``bpe``: pieces of any length by pairs that are frequent (Sennrich et al. 2016)
            * ``byte_bpe``: the same over the bytes of UTF-8; nothing is unknown (GPT-2)
            * ``unigram``: pieces by a language model of pieces (Kudo 2018), as in SentencePiece
            * ``character``: one token a character
            * ``word``: single characters and the most frequent words of a segmenter; a text is cut into the words
              that are the most probable together
        lowercase: upper case letters are read as lower case ones; in ``wordpiece`` without their accents.
        min_frequency: what stands fewer times in the text gets no token of its own.
        coverage: share of the text's characters that the single characters of the vocabulary cover, the most
            frequent first; the rest is unknown. Not for ``byte_bpe``.
        characters: at most so many single characters; None: as many as ``coverage`` asks for.
        special: names of the special tokens.
        extra: ordinary tokens that are wanted whatever their frequency; found in a text before all else.
        max_length: the longest input, written to the tokenizer's configuration.
        segmenter: whose words ``word`` learns.
        sample: at most so many characters of text teach the pieces of ``bpe``, ``byte_bpe`` and ``unigram``, lines
            drawn evenly: it bounds their memory. Single characters are counted in all of the text.
    """

    size: int
    kind: Kind = "wordpiece"
    lowercase: bool = False
    min_frequency: int = 2
    coverage: float = 0.9999
    characters: int | None = None
    special: SpecialTokens = field(default_factory=SpecialTokens)
    extra: tuple[str, ...] = ()
    max_length: int = 512
    segmenter: Literal["script", "rjieba"] = "rjieba"
    sample: int = 10_000_000

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"kind: {self.kind!r} given; there are {', '.join(KINDS)}")
        fixed = [*self.special.names(), *self.extra]
        if "" in fixed or len(set(fixed)) < len(fixed):
            raise UserError(
                f"special and extra tokens: {fixed} given; each needs a name of its own, and none may be empty"
            )
        if self.size <= len(fixed):
            raise UserError(
                f"size: {self.size} given, but special and extra tokens alone are {len(fixed)}; ask for more"
            )
        if not 0 < self.coverage <= 1:
            raise UserError(f"coverage: {self.coverage} given; it is a share above 0, at most 1")

    @property
    def room(self) -> int:
        """How many tokens are there to learn."""
        return self.size - len(self.special.names()) - len(self.extra)

    def least_size(self, needed: int) -> UserError:
        """The refusal of a size that does not even hold what every vocabulary of the kind needs."""
        least = needed + self.size - self.room
        return UserError(f"size: {self.size} given, but a {self.kind} vocabulary needs {least} at least")
