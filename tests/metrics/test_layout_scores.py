"""Scores of entities are seqeval's strict ones on words' tags; those of links are arithmetic of sets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from wenmai.metrics.layout import Link, LinkSets, layout_scores
from wenmai.text.spans import Span
from wenmai.text.tags import tags_from_spans

LABELS = ["answer", "header", "question"]
WORDS, PAGES = 12, 30


def random_page(rng: np.random.Generator) -> list[Span]:
    cuts = np.unique(np.concatenate([[0, WORDS], rng.integers(0, WORDS, 6)])).tolist()
    kept = [(a, b) for a, b in pairwise(cuts) if rng.random() < 0.7]
    return [Span(a, b, LABELS[int(rng.integers(3))]) for a, b in kept]


def disturbed(rng: np.random.Generator, page: list[Span]) -> list[Span]:
    return [
        span._replace(label=LABELS[int(rng.integers(3))]) if rng.random() < 0.3 else span
        for span in page
        if rng.random() < 0.8
    ]


def random_links(rng: np.random.Generator, page: list[Span]) -> set[Link]:
    return {(a, b) for a in page for b in page if a != b and rng.random() < 0.2}


@pytest.mark.parametrize("seed", range(3))
def test_entities_as_seqeval_counts_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = [random_page(rng) for _ in range(PAGES)]
    found = [disturbed(rng, page) for page in gold]
    none: LinkSets = [set()] * PAGES
    values = layout_scores(gold, found, none, labels=LABELS, links=None, given_links=None).values()
    tags = [[tags_from_spans(page, WORDS, "BIO") for page in pages] for pages in (gold, found)]
    theirs = classification_report(*tags, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert values[name] == pytest.approx(theirs["micro avg"][key])
        for label in LABELS:
            assert values[f"label/{label}/{name}"] == pytest.approx(theirs[label][key])
    assert not any("link" in name for name in values)


@pytest.mark.parametrize("seed", range(3))
def test_links_by_arithmetic_of_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = [random_page(rng) for _ in range(PAGES)]
    found = [disturbed(rng, page) for page in gold]
    wanted = [random_links(rng, page) for page in gold]
    between_found = [{link for link in random_links(rng, page) | links if {*link} <= {*page}}
                     for page, links in zip(found, wanted, strict=True)]  # fmt: skip
    between_gold = [
        links ^ set(list(random_links(rng, page))[:2]) for page, links in zip(gold, wanted, strict=True)
    ]
    scores = layout_scores(gold, found, wanted, labels=LABELS, links=between_found, given_links=between_gold)
    for kind, given in (("link", between_found), ("given_link", between_gold)):
        right = sum(len(a & b) for a, b in zip(wanted, given, strict=True))
        precision, recall = right / sum(map(len, given)), right / sum(map(len, wanted))
        values = scores.values()
        assert values[f"{kind}_precision"] == pytest.approx(precision)
        assert values[f"{kind}_recall"] == pytest.approx(recall)
        assert values[f"{kind}_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_by_hand() -> None:
    key, value, other = Span(0, 1, "question"), Span(2, 4, "answer"), Span(4, 5, "answer")
    scores = layout_scores(
        [[key, value, other]],
        [[key, value, other._replace(label="header")]],
        [{(key, value), (key, other)}],
        labels=LABELS,
        links=[{(key, value), (value, key)}],  # the direction counts
        given_links=[{(key, value), (key, other)}],
    ).values()
    assert scores["f1"] == pytest.approx(2 / 3)
    assert (scores["link_precision"], scores["link_recall"], scores["given_link_f1"]) == (0.5, 0.5, 1.0)


def test_given_entities_are_not_scored() -> None:
    key, value = Span(0, 1, "question"), Span(2, 4, "answer")
    links: LinkSets = [{(key, value)}]
    values = layout_scores([[key, value]], None, links, labels=LABELS, links=links, given_links=None).values()
    assert values == {"link_precision": 1.0, "link_recall": 1.0, "link_f1": 1.0}


def test_nothing_gives_the_same_keys() -> None:
    empty = layout_scores([], [], [], labels=LABELS, links=[], given_links=[]).values()
    full = layout_scores([[]], [[]], [set()], labels=LABELS, links=[set()], given_links=[set()]).values()
    assert empty.keys() == full.keys() and set(empty.values()) == {0.0}
