"""Trees and triples as cases: kinds of mistakes and labels are few, so that a reader can filter by them."""

from __future__ import annotations

from typing import Any

import pytest

from wenmai.evaluation.cases import as_case

TEXT = "我喜欢红苹果。他走了。"
SENTENCES = [{"start": 0, "end": 7}, {"start": 7, "end": 11}]


def word(start: int, end: int, upos: str, head: int, relation: str) -> dict[str, Any]:
    return {"start": start, "end": end, "upos": upos, "head": head, "relation": relation}


GOLD = [
    word(0, 1, "PRON", 2, "nsubj"),
    word(1, 3, "VERB", 0, "root"),
    word(3, 6, "NOUN", 2, "obj"),
    word(7, 8, "PRON", 2, "nsubj"),
    word(8, 9, "VERB", 0, "root"),
]


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({}, []),
        ({3: word(7, 8, "NOUN", 2, "nsubj")}, ["wrong part of speech"]),
        ({0: word(0, 1, "PRON", 3, "nsubj")}, ["wrong head"]),
        ({2: word(3, 6, "NOUN", 2, "nmod")}, ["wrong relation"]),
        ({2: word(3, 4, "NOUN", 2, "obj")}, ["wrong boundary"]),
    ],
)
def test_words_say_what_is_wrong_about_them(changed: dict[int, dict[str, Any]], kinds: list[str]) -> None:
    found = [changed.get(i, one) for i, one in enumerate(GOLD)]
    line = {"text": TEXT, "words": found, "sentences": SENTENCES}
    case = as_case({**line, "gold": {"words": GOLD, "sentences": SENTENCES}}, 1)
    assert case["kinds"] == kinds and case["right"] is (not kinds)
    assert (
        {"PRON", "VERB", "NOUN", "nsubj", "root", "obj"}
        <= {*case["labels"]}
        <= {*("PRON", "VERB", "NOUN", "nsubj", "root", "obj", "nmod")}
    )
    assert case["spans"][-1]["label"] == "VERB root"
    assert as_case(line, 1)["right"] is None


def end(surface: str) -> dict[str, int]:
    return {"start": TEXT.index(surface), "end": TEXT.index(surface) + len(surface)}


def triples(*named: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"subject": end(s), "predicate": p, "object": end(o)} for s, p, o in named]


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ([("我", "喜", "苹果")], []),
        ([("我", "吃", "苹果")], ["wrong predicate"]),
        ([("我", "喜", "红苹果")], ["wrong object"]),
        ([("他", "喜", "苹果"), ("我", "喜", "苹果")], ["spurious"]),
        ([("他", "吃", "红")], ["missed", "spurious"]),
        ([], ["missed"]),
    ],
)
def test_triples_say_what_is_wrong_about_them(found: list[tuple[str, str, str]], kinds: list[str]) -> None:
    line = {"text": TEXT, "relations": triples(*found)}
    case = as_case({**line, "gold": {"relations": triples(("我", "喜", "苹果"))}}, 1)
    assert case["kinds"] == kinds and case["right"] is (not kinds)
    assert case["gold"] == "(我, 喜, 苹果)"
    assert case["labels"] == sorted({"喜", *(predicate for _, predicate, _ in found)})
    assert as_case({**line, "gold": {"relations": []}}, 1)["gold"] == "(no triples)"


def test_a_relation_shows_of_what_it_was_asked() -> None:
    line = {"text": TEXT, "subject": end("我"), "object": end("苹果"), "label": "喜", "score": 1.0}
    case = as_case({**line, "gold": {"label": "吃"}}, 1)
    assert [(s["label"], s["start"], s["end"], s["status"]) for s in case["spans"]] == [
        ("subject", 0, 1, "asked"),
        ("object", 4, 6, "asked"),
    ]
    assert (case["right"], case["labels"]) == (False, ["吃", "喜"])


def test_right_intents_are_shown_as_right_beside_a_wrong_slot() -> None:
    slot = {"start": 3, "end": 6, "label": "dish"}
    line = {"text": TEXT, "intents": ["buy"], "slots": [], "scores": {"buy": 1.0}}
    case = as_case({**line, "gold": {"intents": ["buy"], "slots": [slot]}}, 1)
    assert (case["right"], case["predicted_right"], case["predicted"]) == (False, True, "buy")
