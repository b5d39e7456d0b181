"""Texts to a tokenizer that is learned from them."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.vocabulary_plan import VocabularyPlan
from wenmai.backbones.wordpiece import train_wordpiece
from wenmai.progress import SILENT, Progress


def train_tokenizer(texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT) -> Tokenizer:
    """A tokenizer that transformers opens too, once it is saved; the same texts give the same one.

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
    pretrained = train_wordpiece(texts, plan, progress=progress)
    if plan.extra:
        pretrained.add_tokens([AddedToken(token, normalized=False) for token in plan.extra])
    return Tokenizer(pretrained, max_length=plan.max_length)
