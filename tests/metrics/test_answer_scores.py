"""Exact match and F1 against their published definitions, written again in another way, on random answers."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import pytest

from wenmai.metrics.answers import (
    AnswerScorer,
    answer_score,
    answer_scores,
    cmrc_units,
    longest_common_run,
    scorer_for,
    treebank_words,
)

CMRC_MARKS = [*"-:_*^/\\~`+=，。：？！“”；’《》", "……", *"·、「」（）－～『』"]
"""As the script lists them."""


def squad_reference(gold: list[str], predicted: str) -> tuple[float, float]:
    """Rajpurkar et al. 2016 and 2018: lower case, no punctuation, no articles, white space; bags of words."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]

    texts = [text for text in gold if words(text)] or [""]
    exact, best = 0.0, 0.0
    for text in texts:
        left, right = words(text), words(predicted)
        exact = max(exact, float(" ".join(left) == " ".join(right)))
        if not left or not right:
            best = max(best, float(left == right))
            continue
        shared = sum(min(count, Counter(right)[word]) for word, count in Counter(left).items())
        if shared:
            precision, recall = shared / len(right), shared / len(left)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


def cmrc_reference(gold: list[str], predicted: str) -> tuple[float, float]:
    """Cui et al. 2019, for answers whose Latin words stand between spaces and whose only other mark is %."""

    def plain(text: str) -> str:
        return "".join(c for c in text.lower().strip() if c not in CMRC_MARKS)

    def units(text: str) -> list[str]:
        return re.findall(r"[一-龥]|%|[^\s%一-龥]+", plain(text))

    def runs(items: list[str]) -> set[tuple[str, ...]]:
        return {tuple(items[i:j]) for i in range(len(items)) for j in range(i + 1, len(items) + 1)}

    best = 0.0
    for text in gold:
        shared = max(map(len, runs(units(text)) & runs(units(predicted))), default=0)
        if shared:
            precision, recall = shared / len(units(predicted)), shared / len(units(text))
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(plain(text) == plain(predicted) for text in gold)), best


def drawn(rng: random.Random, alphabet: list[str], most: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(most)))


@pytest.mark.parametrize(
    ("scorer", "reference", "alphabet"),
    [
        ("squad", squad_reference, [*"xyz.,'-", " ", "a ", "the ", "An ", "x ", "Theory "]),
        ("cmrc", cmrc_reference, [*"中文字的aB1%，。-《》·…", " ", "A1 "]),
    ],
)
def test_random_answers_score_as_defined(
    scorer: AnswerScorer, reference: object, alphabet: list[str]
) -> None:
    assert callable(reference)
    rng = random.Random(0)
    partly = 0
    for _ in range(3000):
        gold = [drawn(rng, alphabet, 7) + "x中" for _ in range(rng.randrange(1, 4))]
        predicted = rng.choice([drawn(rng, alphabet, 7), rng.choice(gold), rng.choice(gold)[1:-1]])
        exact, overlap = answer_score(gold, predicted, scorer)
        assert (exact, overlap) == pytest.approx(reference(gold, predicted)), (gold, predicted)
        partly += 0 < overlap < 1
    assert partly > 300


@pytest.mark.parametrize("scorer", ["squad", "cmrc"])
def test_no_answer_is_right_where_there_is_none(scorer: AnswerScorer) -> None:
    assert answer_score([], "", scorer) == (1.0, 1.0)
    assert answer_score([], "中 x", scorer) == (0.0, 0.0)
    assert answer_score(["中 x"], "", scorer) == (0.0, 0.0)


def test_longest_common_run_against_all_runs() -> None:
    rng = random.Random(1)
    for _ in range(500):
        left, right = (
            [rng.choice("ab中") for _ in range(rng.randrange(9))],
            [rng.choice("ab中") for _ in range(rng.randrange(9))],
        )
        both = [
            j - i
            for i in range(len(left))
            for j in range(i + 1, len(left) + 1)
            if any(left[i:j] == right[k : k + j - i] for k in range(len(right)))
        ]
        assert longest_common_run(left, right) == max(both, default=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("98.5%", ["98.5", "%"]),
        ("u.s.", ["u.s", "."]),
        ("don't", ["do", "n't"]),
        ("$1,000", ["$", "1,000"]),
        ("a,b", ["a", ",", "b"]),
        ("hello. world.", ["hello.", "world", "."]),
        ('"abc"', ["``", "abc", "''"]),
        ('""x""', ["``", "``", "x", "''", "''"]),
        ("o'neil's", ["o'neil", "'s"]),
        ("(abc)", ["(", "abc", ")"]),
        ("x...y", ["x", "...", "y"]),
        ("at&t c#", ["at", "&", "t", "c", "#"]),
        ("５％ é", ["５％", "é"]),
        ("users' ", ["users", "'"]),
        ("'90s", ["'", "90s"]),
        ("1284–1314", ["1284", "–", "1314"]),
        ("  ", []),
    ],
)
def test_words_are_those_of_the_penn_treebank(text: str, words: list[str]) -> None:
    """The words that NLTK 3.10 finds, whose tokenizer the CMRC script calls."""
    assert treebank_words(text) == words


def test_units_are_characters_words_and_marks() -> None:
    assert cmrc_units(" 《iPhone 15》售价$999，约合7,000元！") == [
        *["iphone", "15", "售", "价", "$", "999", "约", "合", "7,000", "元"]
    ]
    assert cmrc_units("……") == ["……"]  # listed as one mark of two characters, which no character equals
    assert answer_score(["光荣和ω-force"], "光荣和ωforce", "cmrc") == (1.0, 1.0)


def test_scores_are_means_over_questions_and_apart_for_those_without_answer() -> None:
    gold = [["北京", "北京市"], ["上海"], [], []]
    predicted = ["北京市", "上海浦东", "", "广州"]
    values = answer_scores(gold, predicted, "cmrc", no_answer=True).values()
    assert values == pytest.approx(
        {
            "exact_match": 0.5,
            "f1": (1 + 2 * 2 / 6 + 1 + 0) / 4,
            "answerable_exact_match": 0.5,
            "answerable_f1": (1 + 2 * 2 / 6) / 2,
            "unanswerable_accuracy": 0.5,
        }
    )
    assert answer_scores(gold[:2], predicted[:2], "cmrc").values().keys() == {"exact_match", "f1"}
    assert set(answer_scores([], [], "squad", no_answer=True).values().values()) == {0.0}
    assert answer_scores(gold, predicted, "cmrc").subset([1]).values()["exact_match"] == 0.0


def test_the_scorer_goes_by_most_questions() -> None:
    assert scorer_for(["谁？", "Who is 王?", "who"]) == "cmrc"
    assert scorer_for(["谁？", "who", "where"]) == "squad"
    assert scorer_for([]) == "squad"
