"""A WordPiece vocabulary for Chinese: characters one by one, words of other scripts in pieces.

The pieces inside words are learned with byte-pair merges, as in the trainers of tokenizers; the order in which its
own WordPiece trainer numbers ``##`` characters, and so how it breaks ties, differs from run to run. Here the first
character of a word stays, and the others become characters of a private plane, which the merges order by code.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer

from wenmai.backbones.counting import MOST_WORDS, frequent, without_rare
from wenmai.backbones.token_surface import INSIDE
from wenmai.backbones.tokenizer import SURROGATE
from wenmai.backbones.vocabulary_plan import VocabularyPlan
from wenmai.progress import SILENT, Progress

LONGEST_WORD = 100
"""Characters; BERT's tokenizers read longer words as unknown."""
PRIVATE = 0xF0000
"""The first of 131,068 code points that are in no normalised text."""
REPEATS = 1000


def train_wordpiece(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> BertTokenizer:
    """A tokenizer as of Chinese BERT whose vocabulary comes from the texts; the same texts give the same one.

    Single characters come first, by frequency; what room they leave goes to the pieces of longer words.

    Raises:
        UserError: the size does not hold ASCII letters, digits and punctuation.
    """
    words = _count_words(texts, plan, progress)
    singles = _singles(words, plan)
    pieces = _pieces(words, singles, plan)
    tokens = [*plan.special.names(), *singles, *pieces]
    return BertTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        do_lower_case=plan.lowercase,
        pad_token=plan.special.pad,
        unk_token=plan.special.unk,
        cls_token=plan.special.cls,
        sep_token=plan.special.sep,
        mask_token=plan.special.mask,
        model_max_length=plan.max_length,
    )


def _count_words(texts: Iterable[str], plan: VocabularyPlan, progress: Progress) -> Counter[str]:
    """Words as BERT cuts them: Chinese characters and punctuation one by one, the rest at blanks."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=plan.lowercase
    )
    between_blanks: Counter[str] = Counter()
    with progress.task("counting characters and words", None, "texts") as step:
        for text in texts:
            between_blanks.update(normalizer.normalize_str(SURROGATE.sub("\ufffd", text)).split())
            if len(between_blanks) > MOST_WORDS:
                between_blanks = without_rare(between_blanks, MOST_WORDS)
            step.advance()
    cut = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for run, count in between_blanks.items():
        for word, _ in cut.pre_tokenize_str(run):
            words[word] += count
    return words


def _units(word: str) -> Iterator[str]:
    yield word[0]
    for character in word[1:]:
        yield INSIDE + character


def _singles(words: Counter[str], plan: VocabularyPlan) -> list[str]:
    units: Counter[str] = Counter()
    for word, count in words.items():
        if len(word) <= LONGEST_WORD:
            for unit in _units(word):
                units[unit] += count
    for name in plan.special.names():
        units.pop(name, None)
    letters = string.ascii_lowercase if plan.lowercase else string.ascii_letters
    in_words = [*letters, *string.digits]
    always = [*in_words, *(INSIDE + one for one in in_words), *string.punctuation]
    return frequent(units, plan, always=always, room=plan.room)


def _pieces(words: Counter[str], singles: list[str], plan: VocabularyPlan) -> list[str]:
    """Pieces of two characters and more, in the order in which they are merged."""
    if len(singles) == plan.room:
        return []
    kept = set(singles)
    inside = sorted(
        unit.removeprefix(INSIDE) for unit in singles if unit.startswith(INSIDE) and len(unit) == 3
    )
    hidden = {ord(character): PRIVATE + i for i, character in enumerate(inside)}
    shown = {PRIVATE + i: character for i, character in enumerate(inside)}

    def repeated() -> Iterator[str]:
        for word, count in words.items():
            # a word with an unknown character is unknown: its other parts would seem to touch
            if 1 < len(word) <= LONGEST_WORD and kept.issuperset(_units(word)):
                piece = f"{word[0]}{word[1:].translate(hidden)} "
                for first in range(0, count, REPEATS):
                    yield piece * min(REPEATS, count - first)

    alphabet = [one for one in singles if len(one) == 1] + [chr(code) for code in shown]
    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + plan.room - len(singles),
        min_frequency=plan.min_frequency,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    rust.train_from_iterator(repeated(), trainer)
    vocabulary: dict[str, int] = rust.get_vocab()
    merged = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if len(piece) > 1]
    return [(INSIDE if ord(piece[0]) in shown else "") + piece.translate(shown) for piece in merged]
