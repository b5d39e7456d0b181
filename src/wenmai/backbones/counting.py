"""Characters and words of much text, counted in bounded memory, and which of them get a token."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from wenmai.backbones.tokenizer import SURROGATE
from wenmai.backbones.vocabulary_plan import VocabularyPlan
from wenmai.progress import SILENT, Progress

MOST_WORDS = 4_000_000
"""Different words that are counted at a time; the rarest go when there are more."""


def whole_characters(text: str) -> str:
    """The text as Rust takes it: halves of surrogate pairs become U+FFFD."""
    return SURROGATE.sub("\ufffd", text)


def count_characters(texts: Iterable[str], plan: VocabularyPlan, progress: Progress = SILENT) -> Counter[str]:
    """How often each character stands in the texts, as the tokenizer reads them."""
    counts: Counter[str] = Counter()
    with progress.task("counting characters", None, "texts") as step:
        for text in texts:
            counts.update(read_as(text, plan))
            step.advance()
    return counts


def read_as(text: str, plan: VocabularyPlan) -> str:
    """The text as the tokenizers of all kinds but ``wordpiece`` read it, blanks apart."""
    text = whole_characters(text)
    return text.lower() if plan.lowercase else text


def drawn(texts: Iterable[str], characters: int, plan: VocabularyPlan) -> Iterator[str]:
    """Texts drawn evenly, about ``plan.sample`` characters of them; the same ones every time.

    Args:
        characters: of all texts together.
    """
    share = plan.sample / max(characters, 1)
    draws = random.Random(0)
    for text in texts:
        if share >= 1 or draws.random() < share:
            yield read_as(text, plan)


def without_rare(counts: Counter[str], most: int) -> Counter[str]:
    """At most half of ``most`` different words, those of the highest counts; single characters all stay."""
    least = 1
    while len(counts) > most // 2:
        least += 1
        kept = Counter({word: n for word, n in counts.items() if n >= least or len(word) == 1})
        if len(kept) == sum(len(word) == 1 for word in kept):
            return kept
        counts = kept
    return counts


def frequent(
    counts: Mapping[str, int], plan: VocabularyPlan, *, always: Iterable[str], room: int
) -> list[str]:
    """The characters that get a token, the most frequent first, then by code.

    Args:
        counts: how often each stands in the text.
        always: those that get one in any case.
        room: how many there may be.

    Raises:
        UserError: there is not even room for ``always``.
    """
    needed = set(always)
    if len(needed) > room:
        raise plan.least_size(len(needed))
    most = room if plan.characters is None else max(len(needed), min(room, plan.characters))
    ordered = sorted(counts, key=lambda one: (-counts[one], one))
    total = sum(counts.values())
    covered = accumulate((counts[one] for one in ordered), initial=0)
    for one, before in zip(ordered, covered, strict=False):
        if len(needed) == most or before >= plan.coverage * total:
            break
        if counts[one] >= plan.min_frequency:
            needed.add(one)
    return sorted(needed, key=lambda one: (-counts.get(one, 0), one))
