"""Texts to a tokenizer that is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import AddedToken

from wenmai.backbones.lexicon import train_characters, train_words
from wenmai.backbones.pieces import train_bpe, train_byte_bpe, train_unigram
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.vocabulary_plan import Kind, VocabularyPlan
from wenmai.backbones.wordpiece import train_wordpiece
from wenmai.progress import SILENT, Progress

TRAINERS: dict[Kind, Callable[..., Any]] = {
    "wordpiece": train_wordpiece,
    "bpe": train_bpe,
    "byte_bpe": train_byte_bpe,
    "unigram": train_unigram,
    "character": train_characters,
    "word": train_words,
}


def train_tokenizer(texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT) -> Tokenizer:
    """A tokenizer that transformers opens too, once it is saved.

    The same texts give the same one, whatever the process; only ``unigram``, which sums in several threads, may have
    a few other of its rarest pieces. It has fewer tokens than asked for if the texts do not hold more.

    Args:
        texts: lines or documents; gone through more than once, so not an iterator but what gives one each time
            (a list, or an object with ``__iter__`` that opens files).

    Raises:
        UserError: the size does not hold what every vocabulary of the kind needs.
    """
    if iter(texts) is texts:
        raise ValueError(
            "the texts are gone through more than once: give a list, or an object that opens them"
        )
    pretrained = TRAINERS[plan.kind](texts, plan, progress=progress)
    if plan.extra:
        pretrained.add_tokens([AddedToken(token, normalized=False) for token in plan.extra])
    return Tokenizer(pretrained, max_length=plan.max_length)
