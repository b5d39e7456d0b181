"""How much of a text repeats itself.

The rules of Rae et al. 2021 (Gopher, https://arxiv.org/abs/2112.11446, table A1) with runs of characters in place of
words: a Chinese word is about 1.6 characters, so their 2 to 4 words are 3 to 5 characters and their 5 to 10 words 8
to 16.
"""

from __future__ import annotations

import numpy as np

from wenmai.corpus.documents import Rejection
from wenmai.corpus.ngrams import Hashes, code_points, growing_hashes
from wenmai.corpus.settings import RepetitionConfig

_OFTEN = 5
"""A run must come so often to be the frequent run of a short text."""


def duplicate_lines(text: str) -> tuple[float, float]:
    """Share of lines that stood before, and of the characters in them; empty lines are passed over."""
    lines = [line for line in text.split("\n") if line.strip()]
    seen: set[str] = set()
    again = characters = 0
    for line in lines:
        if line in seen:
            again += 1
            characters += len(line)
        seen.add(line)
    return again / max(1, len(lines)), characters / max(1, sum(map(len, lines)))


def top_ngram_share(hashes: Hashes, n: int) -> float:
    """Share of characters in the most frequent run of n, where it comes at least five times.

    Args:
        hashes: of all runs, shape (characters - n + 1,).
    """
    ordered = np.sort(hashes)
    if not (ordered[_OFTEN - 1 :] == ordered[: 1 - _OFTEN]).any():
        return 0.0
    most = int(np.unique(ordered, return_counts=True)[1].max())
    return min(1.0, most * n / (len(hashes) + n - 1))


def repeated_share(hashes: Hashes, n: int) -> float:
    """Share of characters that lie in a run of n which stood before; each character counts once."""
    ordered = np.sort(hashes)
    if not (ordered[1:] == ordered[:-1]).any():
        return 0.0
    first = np.unique(hashes, return_index=True)[1]
    again = np.ones(len(hashes), bool)
    again[first] = False
    edges = np.zeros(len(hashes) + n, np.int32)
    starts = np.flatnonzero(again)
    edges[starts] += 1
    edges[starts + n] -= 1
    return float(np.count_nonzero(np.cumsum(edges)[:-1])) / (len(hashes) + n - 1)


def repetitive(text: str, limits: RepetitionConfig) -> Rejection | None:
    """Why a text repeats itself too much, if it does."""
    if "\n" in text:
        lines, characters = duplicate_lines(text)
        if lines > limits.duplicate_lines:
            return Rejection("duplicate_lines", f"{lines:.2f} of its lines stood before")
        if characters > limits.duplicate_line_characters:
            return Rejection(
                "duplicate_lines", f"{characters:.2f} of its characters are in lines that stood before"
            )
    points = code_points(text)
    wanted = sorted({*limits.top_ngrams, *limits.repeated_ngrams})
    often = again = True
    for n, hashes in growing_hashes(points, wanted):
        if not (often or again):
            break  # what no short run does, no longer run does
        if often and n in limits.top_ngrams:
            share = top_ngram_share(hashes, n)
            often = share > 0
            if share > limits.top_ngrams[n]:
                return Rejection("frequent_run", f"{share:.2f} of it is one run of {n} characters")
        if again and n in limits.repeated_ngrams:
            share = repeated_share(hashes, n)
            again = share > 0
            if share > limits.repeated_ngrams[n]:
                return Rejection(
                    "repeated_runs", f"{share:.2f} of it stood before, in runs of {n} characters"
                )
    return None
