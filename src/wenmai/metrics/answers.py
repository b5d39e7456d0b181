"""Answers against gold answers: exact match and F1, as SQuAD counts them and as CMRC 2018 does.

``squad`` (Rajpurkar et al. 2016, 2018) compares words: lower case, without punctuation and the articles a, an, the; F1
is that of the two bags of words. ``cmrc`` (Cui et al. 2019, the script of the CMRC 2018 task) is for Chinese: a
character each, other scripts by words, without punctuation; F1 is that of the longest run of units in both answers,
which a bag of characters would overrate.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.scores import CountScores, ratio

AnswerScorer = Literal["squad", "cmrc"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What the CMRC 2018 script passes over: not all marks (``,`` ``‘`` and ``…`` stay). It lists ``……`` too, which as two
characters never equals one."""
_IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")
_STANDS_APART = re.compile(
    r"""\.{2,}                                          # ...
    | '' | [;@\#$%&?!*()\[\]{}<>"»”–—]                  # by themselves wherever they stand
    | [:,](?!\d)                                        # but not inside numbers
    | (?<=[^.])\.(?=[\])}>"'»”\s]*$)                    # a full stop at the end only: u.s .
    | (?<=[^\s'])(?:n't|'(?:ll|re|ve|[smd])?)(?!\w)     # do n't, it 's, users '
    | (?<![\w'])'(?=\w)                                 # ' 90s""",
    re.VERBOSE,
)


def scorer_for(questions: Sequence[str]) -> AnswerScorer:
    """``cmrc`` where more than half of the questions have a Chinese character, else ``squad``."""
    chinese = sum(bool(_IDEOGRAPH.search(question)) for question in questions)
    return "cmrc" if 2 * chinese > len(questions) else "squad"


def answer_scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[str], scorer: AnswerScorer, *, no_answer: bool = False
) -> CountScores:
    """``exact_match`` and ``f1``, means over the questions of the best over each one's gold answers.

    A question without gold answers is right, by both measures, if the answer is empty (SQuAD 2.0).

    Args:
        gold: the answers of each question, none if it has none.
        predicted: one answer a question, empty for none.
        no_answer: also gives ``answerable_exact_match`` and ``answerable_f1``, of the questions that have an answer,
            and ``unanswerable_accuracy``, of the others.
    """
    rows = [
        (1, *answer_score(answers, found, scorer), len(answers) > 0)
        for answers, found in zip(gold, predicted, strict=True)
    ]
    exact_N3 = np.array(rows, dtype=np.float64).reshape(-1, 4)
    answerable_N1 = exact_N3[:, 3:]
    counts = np.concatenate([exact_N3[:, :3], exact_N3[:, :3] * answerable_N1], axis=1)
    return CountScores(counts, partial(_summary, no_answer=no_answer))


def _summary(sums: NDArray[np.float64], *, no_answer: bool) -> dict[str, NDArray[np.float64]]:
    number, exact, overlap, answerable, their_exact, their_overlap = np.moveaxis(sums, -1, 0)
    found = {"exact_match": ratio(exact, number), "f1": ratio(overlap, number)}
    if no_answer:
        found["answerable_exact_match"] = ratio(their_exact, answerable)
        found["answerable_f1"] = ratio(their_overlap, answerable)
        found["unanswerable_accuracy"] = ratio(exact - their_exact, number - answerable)
    return found


def answer_score(gold: Sequence[str], predicted: str, scorer: AnswerScorer) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 of one answer, each against the gold answer that it fits best."""
    if scorer == "squad":
        # as the script of SQuAD 2.0 does: a gold answer of nothing but articles and marks is none
        kept = [words for answer in gold if (words := squad_words(answer))] or [[]]
        mine = squad_words(predicted)
        return float(mine in kept), max(_bag_f1(words, mine) for words in kept)
    exact = cmrc_plain(predicted) in {cmrc_plain(answer) for answer in gold or ("",)}
    if not gold:
        return float(exact), float(exact)
    units = cmrc_units(predicted)
    return float(exact), max(_run_f1(cmrc_units(answer), units) for answer in gold)


def squad_words(answer: str) -> list[str]:
    return _ARTICLES.sub(" ", answer.lower().translate(_WITHOUT_PUNCTUATION)).split()


def cmrc_plain(answer: str) -> str:
    """What exact match compares."""
    return "".join(character for character in _stripped(answer) if character not in _CMRC_PUNCTUATION)


def cmrc_units(answer: str) -> list[str]:
    """What F1 compares: Chinese characters, and the words and marks between them.

    Words as NLTK's ``word_tokenize`` in the CMRC script finds them (the rules of the Penn Treebank), but for its
    splitting of sentences, which answers hardly have.
    """
    units: list[str] = []
    other = ""
    for character in cmrc_plain(answer):
        if _IDEOGRAPH.match(character):
            units += [*treebank_words(other), character]
            other = ""
        else:
            other += character
    return units + treebank_words(other)


def treebank_words(text: str) -> list[str]:
    """The words and marks of a text in Latin script."""
    words: list[str] = []
    end = 0
    for found in _STANDS_APART.finditer(text):
        words += text[end : found.start()].split()
        mark = found[0]
        if mark == '"':
            again = end == found.start() and words[-1:] == ["``"]
            opens = again or found.start() == 0 or text[found.start() - 1] in " ([{<"
            mark = "``" if opens else "''"
        words.append(mark)
        end = found.end()
    return words + text[end:].split()


def longest_common_run(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """The length of the longest run of neighbours that both hold."""
    longest = 0
    above = [0] * (len(right) + 1)
    for one in left:
        row = [0] * (len(right) + 1)
        for j, other in enumerate(right):
            if one == other:
                row[j + 1] = above[j] + 1
                longest = max(longest, row[j + 1])
        above = row
    return longest


def _stripped(answer: str) -> str:
    return answer.lower().strip()


def _bag_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    if not gold or not predicted:
        return float(gold == predicted)
    return _f1(sum((Counter(gold) & Counter(predicted)).values()), len(gold), len(predicted))


def _run_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    return _f1(longest_common_run(gold, predicted), len(gold), len(predicted))


def _f1(shared: int, gold: int, predicted: int) -> float:
    """2 P R / (P + R) with P = shared / predicted and R = shared / gold."""
    return 2 * shared / (gold + predicted) if shared else 0.0
