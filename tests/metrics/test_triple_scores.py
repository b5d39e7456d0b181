"""Scores of triples: set arithmetic on random triples, the types of overlap by their published definitions."""

from __future__ import annotations

import random

import pytest

from wenmai.metrics.triples import (
    Triple,
    as_spans,
    count_group,
    overlap_types,
    surfaces,
    triple_scores,
    triple_scores_of,
)
from wenmai.text.spans import Span

TEXT = "王明和李红在北京，王明爱北京。"
PREDICATES = ["爱", "在"]


def random_span(rng: random.Random) -> Span:
    start = rng.randrange(len(TEXT) - 2)
    return Span(start, start + rng.randint(1, 2), rng.choice(["", "", "人"]))


def random_triples(rng: random.Random) -> list[Triple]:
    pool = [random_span(rng) for _ in range(3)]
    return [
        Triple(rng.choice(pool), rng.choice(["爱", "在", "新"]), rng.choice(pool))
        for _ in range(rng.randint(0, 5))
    ]


def f1(gold: list[set[object]], predicted: list[set[object]]) -> tuple[float, float, float]:
    right = sum(len(g & p) for g, p in zip(gold, predicted, strict=True))
    found, wanted = sum(map(len, predicted)), sum(map(len, gold))
    precision, recall = right / found if found else 0.0, right / wanted if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def test_scores_are_set_arithmetic() -> None:
    rng = random.Random(0)
    for _ in range(60):
        gold = [random_triples(rng) for _ in range(rng.randint(1, 6))]
        predicted = [
            [t for t in triples if rng.random() < 0.6] + random_triples(rng)[: rng.randint(0, 2)]
            for triples in gold
        ]
        values = triple_scores(gold, predicted, [TEXT] * len(gold), PREDICATES).values()
        measures = {
            "": lambda t: t,
            "partial_": lambda t: (t.subject.end, t.predicate, t.object.end),
            "surface_": lambda t: (TEXT[t[0].start : t[0].end], t[1], TEXT[t[2].start : t[2].end]),
            "pair_": lambda t: (t.subject[:2], t.object[:2]),
        }
        for prefix, key in measures.items():
            expected = f1([{key(t) for t in ts} for ts in gold], [{key(t) for t in ts} for ts in predicted])
            for name, value in zip(("precision", "recall", "f1"), expected, strict=True):
                if prefix != "pair_" or name == "f1":
                    assert values[prefix + name] == pytest.approx(value), (prefix, name)
        for predicate in PREDICATES:
            own = [[{t for t in ts if t.predicate == predicate} for ts in part] for part in (gold, predicted)]
            assert values[f"label/{predicate}/f1"] == pytest.approx(f1(*own)[2])  # type: ignore[arg-type]
        same = [set(g) == set(p) for g, p in zip(gold, predicted, strict=True)]
        assert values["exact_match"] == pytest.approx(sum(same) / len(same))


@pytest.mark.parametrize("by_surface", [False, True])
def test_groups_of_texts_are_scored_as_if_they_were_alone(by_surface: bool) -> None:
    rng = random.Random(2)
    gold, predicted = ([random_triples(rng) for _ in range(20)] for _ in range(2))
    groups = {"a": [0, 3, 4], "b": [3, 19], "none": []}
    found = triple_scores_of(gold, predicted, [TEXT] * 20, groups, by_surface=by_surface)
    prefix = "surface_" if by_surface else ""
    for name, indices in groups.items():
        own = [[part[i] for i in indices] for part in (gold, predicted)]
        expected = triple_scores(*own, [TEXT] * len(indices), PREDICATES).values()
        values = found[name].values()
        for metric in ("precision", "recall", "f1"):
            assert values[metric] == expected[prefix + metric]
        wanted = [{surfaces(t, TEXT) for t in ts} if by_surface else set(ts) for ts in own[0]]
        assert values["support"] == sum(map(len, wanted))
        assert found[name].examples == 20


def test_partial_is_the_last_word_and_surface_any_place() -> None:
    gold = [Triple(Span(0, 2, ""), "在", Span(6, 8, ""))]
    last_word = [Triple(Span(1, 2, ""), "在", Span(7, 8, ""))]
    elsewhere = [Triple(Span(9, 11, ""), "在", Span(12, 14, ""))]
    values = triple_scores([gold], [last_word], [TEXT], PREDICATES).values()
    assert (values["f1"], values["partial_f1"], values["surface_f1"]) == (0, 1, 0)
    values = triple_scores([gold], [elsewhere], [TEXT], PREDICATES).values()
    assert (values["f1"], values["partial_f1"], values["surface_f1"]) == (0, 0, 1)
    assert surfaces(gold[0], TEXT) == ("王明", "在", "北京")


def published_types(triples: list[Triple]) -> set[str]:
    """Zeng et al. 2018 as Wei et al. 2020 count them: lists of pairs and of entities with and without repetitions."""
    relations = list({(s[:2], p, o[:2]) for s, p, o in triples})
    pairs = [(s, o) for s, _, o in relations]
    entities = [entity for pair in set(pairs) for entity in pair]
    found = set()
    if len(pairs) != len(set(pairs)):
        found.add("EPO")
    if len(entities) != len(set(entities)):
        found.add("SEO")
    return found


def test_overlap_types_are_the_published_ones() -> None:
    rng = random.Random(1)
    counts: dict[str, int] = {}
    for _ in range(500):
        triples = [t for t in random_triples(rng) if t.subject[:2] != t.object[:2]]
        found = overlap_types(triples, TEXT, by_surface=False)
        assert found - {"SOO", "normal"} == published_types(triples)
        inside = any({*range(s.start, s.end)} & {*range(o.start, o.end)} for s, _, o in triples)
        assert ("SOO" in found) == inside
        assert ("normal" in found) == (bool(triples) and not (found - {"normal"}))
        for name in found:
            counts[name] = counts.get(name, 0) + 1
    assert min(counts[name] for name in ("normal", "SEO", "EPO", "SOO")) > 10


def test_the_same_entity_by_place_and_by_surface() -> None:
    triples = [Triple(Span(0, 2, ""), "在", Span(6, 8, "")), Triple(Span(9, 11, ""), "爱", Span(12, 14, ""))]
    assert overlap_types(triples, TEXT, by_surface=False) == {"normal"}
    assert overlap_types(triples, TEXT, by_surface=True) == {"EPO"}
    assert [count_group(triples * n) for n in (0, 1, 2, 3)] == ["0", "2", "4", "5+"]


def test_triples_as_spans_share_a_place_where_they_share_both_ends() -> None:
    person, other, place = Span(0, 2, ""), Span(3, 5, ""), Span(6, 8, "")
    gold = [Triple(person, "在", place), Triple(other, "爱", place)]
    predicted = [Triple(person, "爱", place)]
    (wanted,), (found,) = as_spans([gold], [predicted])
    assert wanted == {Span(0, 1, "在"): gold[0], Span(1, 2, "爱"): gold[1]}
    assert found == {Span(0, 1, "爱"): predicted[0]}
