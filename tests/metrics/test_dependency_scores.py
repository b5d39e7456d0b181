"""Words and trees scored as the CoNLL 2018 shared task does: against its published algorithm, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wenmai.metrics.dependencies import ROOT, ParsedWord, dependency_scores

UPOS = ["NOUN", "VERB", "ADJ"]
RELATIONS = ["nsubj", "nsubj:pass", "obj", "nmod", "nmod:poss"]


def conllu_rows(text: str, words: list[ParsedWord]) -> list[list[str]]:
    """ID, FORM, UPOS, HEAD, DEPREL of one sentence."""
    number = {(word.start, word.end): str(i) for i, word in enumerate(words, 1)} | {ROOT: "0"}
    return [
        [str(i), text[w.start : w.end], str(w.upos), number[w.head], str(w.relation)]
        for i, w in enumerate(words, 1)
    ]


def conll_2018(gold: list[list[list[str]]], system: list[list[list[str]]]) -> dict[str, float]:
    """The shared task's evaluation (Zeman et al. 2018, section 5), from rows of all sentences of a file.

    Forms are joined without blanks; a word is a range of these characters. Both files are walked through at once and
    ranges that are equal are aligned. A score counts the aligned words whose key is equal, where the head's key is the
    gold word that the system's head is aligned with.
    """

    def load(sentences: list[list[list[str]]]) -> tuple[str, list[dict[str, object]]]:
        characters, words = "", []
        for rows in sentences:
            first = len(words)
            for _, form, upos, _, relation in rows:
                form = "".join(form.split())
                words.append(
                    {
                        "span": (len(characters), len(characters) + len(form)),
                        "upos": upos,
                        "relation": relation.split(":")[0],
                    }
                )
                characters += form
            for word, (_, _, _, head, _) in zip(words[first:], rows, strict=True):
                word["parent"] = None if head == "0" else first + int(head) - 1
        return characters, words

    gold_text, gold_words = load(gold)
    system_text, system_words = load(system)
    assert gold_text == system_text
    matched: dict[int, int] = {}
    g = s = 0
    while g < len(gold_words) and s < len(system_words):
        here, there = gold_words[g]["span"], system_words[s]["span"]
        if here == there:
            matched[s] = g
            g, s = g + 1, s + 1
        elif here[0] <= there[0]:
            g += 1
        else:
            s += 1

    def f1(correct: int) -> float:
        return 2 * correct / (len(gold_words) + len(system_words))

    def same_head(s: int, g: int) -> bool:
        parent = system_words[s]["parent"]
        of_system = "root" if parent is None else matched.get(parent, "not aligned")
        return of_system == ("root" if gold_words[g]["parent"] is None else gold_words[g]["parent"])

    def equal(s: int, g: int, key: str) -> bool:
        return system_words[s][key] == gold_words[g][key]

    counts = {
        "upos": sum(equal(s, g, "upos") for s, g in matched.items()),
        "uas": sum(same_head(s, g) for s, g in matched.items()),
        "las": sum(same_head(s, g) and equal(s, g, "relation") for s, g in matched.items()),
    }
    return {
        "word_precision": len(matched) / len(system_words),
        "word_recall": len(matched) / len(gold_words),
        "word_f1": f1(len(matched)),
        "upos_f1": f1(counts["upos"]),
        "uas": f1(counts["uas"]),
        "las": f1(counts["las"]),
        **{f"{name}_aligned": count / len(matched) for name, count in counts.items()},
    }


def random_words(rng: np.random.Generator, text: str) -> list[ParsedWord]:
    """A random segmentation in which blanks belong to no word, with a random tree of one root."""
    places, start = [], 0
    for at in range(1, len(text) + 1):
        if at == len(text) or " " in text[at - 1 : at + 1] or rng.random() < 0.5:
            if text[start:at].strip():
                places.append((start, at))
            start = at
    order = rng.permutation(len(places))
    words: list[ParsedWord] = [ParsedWord(*place) for place in places]
    for rank, index in enumerate(order):
        head = ROOT if rank == 0 else places[order[rng.integers(rank)]]
        words[index] = ParsedWord(
            *places[index], str(rng.choice(UPOS)), head, str(rng.choice(RELATIONS)) if rank else "root"
        )
    return words


def nudged(rng: np.random.Generator, words: list[ParsedWord], text: str) -> list[ParsedWord]:
    """A system that is often right: another segmentation in places, heads and names mostly as in gold."""
    other = random_words(rng, text)
    places = {word[:2] for word in other}
    known = {word[:2]: word for word in words}
    found = []
    for word in other:
        gold = known.get(word[:2])
        if gold is not None and gold.head in places | {ROOT} and rng.random() < 0.8:
            word = word._replace(head=gold.head)
            if rng.random() < 0.7:
                word = word._replace(relation=gold.relation, upos=gold.upos)
        found.append(word)
    return found


@pytest.mark.parametrize("seed", range(25))
def test_as_the_shared_task(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [
        "".join(rng.choice(list("abcd文脉中 "), size=rng.integers(1, 30))).strip() or "a" for _ in range(8)
    ]
    gold = [random_words(rng, text) for text in texts]
    system = [nudged(rng, words, text) for words, text in zip(gold, texts, strict=True)]
    expected = conll_2018(
        [conllu_rows(text, words) for text, words in zip(texts, gold, strict=True)],
        [conllu_rows(text, words) for text, words in zip(texts, system, strict=True)],
    )
    found = dependency_scores(gold, system).values()
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["las_subtypes"] <= found["las"] <= found["uas"] <= found["word_f1"]


def test_by_hand() -> None:
    """我 | 爱 | 北京 | 。 against 我 | 爱 | 北 | 京 | 。: three words aligned; the object is none of them."""
    gold = [
        ParsedWord(0, 1, "PRON", (1, 2), "nsubj"),
        ParsedWord(1, 2, "VERB", ROOT, "root"),
        ParsedWord(2, 4, "PROPN", (1, 2), "obj"),
        ParsedWord(4, 5, "PUNCT", (1, 2), "punct"),
    ]
    system = [
        ParsedWord(0, 1, "PRON", (1, 2), "nsubj:pass"),
        ParsedWord(1, 2, "NOUN", ROOT, "root"),
        ParsedWord(2, 3, "NOUN", (3, 4), "nmod"),
        ParsedWord(3, 4, "NOUN", (1, 2), "obj"),
        ParsedWord(4, 5, "PUNCT", (3, 4), "punct"),
    ]
    found = dependency_scores([gold], [system]).values()
    assert found == pytest.approx(
        {
            "word_precision": 3 / 5,
            "word_recall": 3 / 4,
            "word_f1": 6 / 9,
            "upos_f1": 4 / 9,
            "uas": 4 / 9,
            "las": 4 / 9,
            "las_subtypes": 2 / 9,
            "upos_aligned": 2 / 3,
            "uas_aligned": 2 / 3,
            "las_aligned": 2 / 3,
        }
    )


def test_only_what_is_asked_for_and_nothing_at_all() -> None:
    words = [[ParsedWord(0, 1)], []]
    assert dependency_scores(words, words, upos=False, trees=False).values() == {
        "word_precision": 1.0,
        "word_recall": 1.0,
        "word_f1": 1.0,
    }
    empty = dependency_scores([[]], [[]])
    assert set(empty.values().values()) == {0.0}
    assert set(dependency_scores([], []).values()) == set(empty.values())


def test_subsets_add_up() -> None:
    rng = np.random.default_rng(0)
    gold = [random_words(rng, "文脉文脉文脉") for _ in range(6)]
    system = [random_words(rng, "文脉文脉文脉") for _ in range(6)]
    whole = dependency_scores(gold, system)
    part = dependency_scores(gold[2:4], system[2:4])
    assert whole.subset([2, 3]).values() == part.values()
