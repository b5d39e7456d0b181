"""Vocabularies that are lists: of characters, or of words with how probable they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer
from transformers import PreTrainedTokenizerFast

from wenmai.backbones.assembly import assembled
from wenmai.backbones.counting import MOST_WORDS, count_characters, frequent, read_as, without_rare
from wenmai.backbones.tokenizer import METASPACE
from wenmai.backbones.vocabulary_plan import VocabularyPlan
from wenmai.progress import SILENT, Progress
from wenmai.text.words import is_chinese, segment_words

UNSEEN = 0.5
"""As how often seen a character counts that is no word anywhere."""


def train_characters(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> PreTrainedTokenizerFast:
    """One token a character, blanks too; no more tokens than the text has characters."""
    counts = count_characters(texts, plan, progress)
    tokens = [*plan.special.names(), *frequent(counts, plan, always=[], room=plan.room)]
    rust = RustTokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=plan.special.unk)
    )
    if plan.lowercase:
        rust.normalizer = normalizers.Lowercase()
    rust.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    rust.decoder = decoders.Fuse()
    return assembled(rust, plan)


def train_words(
    texts: Iterable[str], plan: VocabularyPlan, *, progress: Progress = SILENT
) -> PreTrainedTokenizerFast:
    """Words of a segmenter, which is not needed any more afterwards.

    Score of a word: the logarithm of its share of all words. A text becomes the words whose scores have the highest
    sum, which is how dictionary segmenters cut Chinese; what is in no word becomes characters.
    """
    characters, words = _count(texts, plan, progress)
    singles = frequent(characters, plan, always=[METASPACE], room=plan.room)
    longer = [word for word, n in words.items() if len(word) > 1 and n >= plan.min_frequency]
    longer = sorted(longer, key=lambda word: (-words[word], word))[: plan.room - len(singles)]
    total = words.total()
    scored = [(name, 0.0) for name in plan.special.names()]
    scored += [(token, math.log((words[token] or UNSEEN) / total)) for token in [*singles, *longer]]
    rust = RustTokenizer(models.Unigram(scored, unk_id=1))
    lower = [normalizers.Lowercase()] if plan.lowercase else []
    rust.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), *lower])
    rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    rust.decoder = decoders.Metaspace(prepend_scheme="never")
    return assembled(rust, plan)


def _count(
    texts: Iterable[str], plan: VocabularyPlan, progress: Progress
) -> tuple[Counter[str], Counter[str]]:
    """Characters without blanks, and words; those of other scripts with ``▁`` where they follow a blank."""
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    with progress.task("counting words", None, "texts") as step:
        for text in texts:
            text = read_as(text, plan)
            for start, end in segment_words(text, plan.segmenter):
                word = text[start:end]
                after_blank = start > 0 and text[start - 1].isspace() and not is_chinese(word)
                words[METASPACE + word if after_blank else word] += 1
                characters.update(word)
            if len(words) > MOST_WORDS:
                words = without_rare(words, MOST_WORDS)
            step.advance()
    return characters, words
