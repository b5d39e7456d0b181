"""Pieces of any length: byte-pair encoding over characters or bytes, and a unigram model of pieces.

No piece reaches over the border of a word: Chinese text in one run, letters, at most three digits, punctuation, each
with the blank before it. Chinese has no blanks, so there the runs between punctuation teach the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer
from transformers import PreTrainedTokenizerFast

from wenmai.backbones.assembly import assembled
from wenmai.backbones.counting import count_characters, drawn, frequent
from wenmai.backbones.tokenizer import METASPACE
from wenmai.backbones.vocabulary_plan import VocabularyPlan
from wenmai.progress import SILENT, Progress

_CHINESE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー々"
_RUNS = (
    rf"BLANK?[{_CHINESE}]+|BLANK?[\p{{L}}\p{{M}}&&[^{_CHINESE}]]+|BLANK?\p{{N}}{{1,3}}"
    r"|BLANK?[^\s\p{L}\p{M}\p{N}▁]+|[\s▁]+"
)
LONGEST_PIECE = 16
"""Characters."""


def train_bpe(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> PreTrainedTokenizerFast:
    """Byte-pair encoding (Sennrich et al. 2016) over characters; blanks as ``▁``."""
    alphabet, characters = _alphabet(texts, plan, progress)
    rust = RustTokenizer(models.BPE(unk_token=plan.special.unk))
    _with_word_marks(rust, plan)
    trainer = trainers.BpeTrainer(
        vocab_size=plan.size - len(plan.extra),
        min_frequency=plan.min_frequency,
        special_tokens=plan.special.names(),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=LONGEST_PIECE,
        show_progress=False,
    )
    _learn(rust, trainer, _known(drawn(texts, characters, plan), alphabet), progress)
    return assembled(rust, plan)


def train_byte_bpe(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> PreTrainedTokenizerFast:
    """Byte-pair encoding over bytes as of GPT-2 (Radford et al. 2019)."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if plan.room < len(alphabet):
        raise plan.least_size(len(alphabet))
    rust = RustTokenizer(models.BPE())
    if plan.lowercase:
        rust.normalizer = normalizers.Lowercase()
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_RUNS.replace("BLANK", " ")), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.size - len(plan.extra),
        min_frequency=plan.min_frequency,
        special_tokens=plan.special.names(),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    characters = count_characters(texts, plan, progress).total()
    _learn(rust, trainer, drawn(texts, characters, plan), progress)
    return assembled(rust, plan)


def train_unigram(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> PreTrainedTokenizerFast:
    """Pieces by a language model of pieces (Kudo 2018), which is what SentencePiece does; blanks as ``▁``."""
    alphabet, characters = _alphabet(texts, plan, progress)
    rust = RustTokenizer(models.Unigram())
    _with_word_marks(rust, plan)
    trainer = trainers.UnigramTrainer(
        vocab_size=plan.size - len(plan.extra),
        special_tokens=plan.special.names(),
        initial_alphabet=alphabet,
        unk_token=plan.special.unk,
        max_piece_length=LONGEST_PIECE,
        show_progress=False,
    )
    _learn(rust, trainer, _known(drawn(texts, characters, plan), alphabet), progress)
    return assembled(rust, plan)


def _alphabet(texts: Iterable[str], plan: VocabularyPlan, progress: Progress) -> tuple[list[str], int]:
    """The single characters of the vocabulary, and the number of characters of all texts."""
    counts = count_characters(texts, plan, progress)
    total = counts.total()
    counts[METASPACE] += sum(counts.pop(one) for one in list(counts) if one.isspace())
    return frequent(counts, plan, always=[METASPACE], room=plan.room), total


def _with_word_marks(rust: RustTokenizer, plan: VocabularyPlan) -> None:
    lower = [normalizers.Lowercase()] if plan.lowercase else []
    rust.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), *lower])
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Split(Regex(_RUNS.replace("BLANK", METASPACE)), "isolated"),
        ]
    )
    rust.decoder = decoders.Metaspace(prepend_scheme="never")


def _known(texts: Iterable[str], alphabet: list[str]) -> Iterator[str]:
    """The texts in parts without characters that get no token: what is left of them would seem to touch."""
    known = set(alphabet)
    unknown: dict[int, str] = {}
    seen: set[str] = set()
    for text in texts:
        if fresh := set(text) - seen:
            seen |= fresh
            unknown |= {ord(one): "\0" for one in fresh if one not in known and not one.isspace()}
        yield from filter(None, text.translate(unknown).split("\0"))


def _learn(rust: RustTokenizer, trainer: trainers.Trainer, texts: Iterable[str], progress: Progress) -> None:
    with progress.task("learning pieces", None, "texts") as step:

        def told() -> Iterator[str]:
            for text in texts:
                yield text
                step.advance()

        rust.train_from_iterator(told(), trainer)
