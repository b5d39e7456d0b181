"""Scores of (subject, predicate, object) triples: exact, by last word, by surface; and how triples overlap.

A triple is right if its predicate and both of its ends are those of a gold triple. What an end has to agree in:

* exact: its characters, and its label where triples are typed
* partial: its last word, as in NYT* and WebNLG* (Zeng et al. 2018, https://aclanthology.org/P18-1047; Wei et al. 2020,
  https://aclanthology.org/2020.acl-main.136). Two spans of one text have the same last word where they end together
* surface: what is written there, anywhere in the text: the measure of data that names entities without their place

Triples are sets: repetitions count once. Shape letters: N examples, L predicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import LabelCounts, Metrics, all_labels
from wenmai.metrics.scores import Scores, TallyScores, ratio
from wenmai.metrics.spans import group_metrics
from wenmai.text.spans import Span

MOST_TRIPLES = 5
"""Texts with so many triples, or more, are one group."""
VARIANTS = ("pair", "partial", "surface")


class Triple(NamedTuple):
    """The label of an end is ``""`` where triples have no types."""

    subject: Span
    predicate: str
    object: Span


TripleSets = Sequence[Collection[Triple]]


def surfaces(triple: Triple, text: str) -> tuple[str, str, str]:
    """What is written at both ends, and the predicate between them."""
    subject, predicate, target = triple
    return text[subject.start : subject.end], predicate, text[target.start : target.end]


def triple_scores(
    gold: TripleSets, predicted: TripleSets, texts: Sequence[str], predicates: Sequence[str]
) -> TallyScores:
    """Micro ``precision``, ``recall``, ``f1`` and macro averages of exact triples, and each predicate's values.

    ``partial_`` and ``surface_precision``, ``_recall``, ``_f1`` take the other two measures; ``pair_f1`` is exact but
    for predicate and labels; ``exact_match`` is the share of texts with exactly the gold triples (or none, as in gold).

    Args:
        gold, predicted: the triples of each text, in the same order.
        texts: what their offsets count in.
        predicates: in the order of the report; others in the data follow them, sorted.
    """
    used = ({triple.predicate for triples in part for triple in triples} for part in (gold, predicted))
    names = all_labels(predicates, *used)
    ids = {name: i for i, name in enumerate(names)}
    number = len(names)
    first = 3 * number
    exact, examples = first + 3 * len(VARIANTS), first + 3 * len(VARIANTS) + 1

    def marks() -> Iterator[list[int]]:
        for wanted, found, text in zip(map(set, gold), map(set, predicted), texts, strict=True):
            row = [ids[triple.predicate] for triple in wanted & found]
            row += [ids[triple.predicate] + number for triple in found]
            row += [ids[triple.predicate] + 2 * number for triple in wanted]
            wanted_keys, found_keys = _keys(wanted, text), _keys(found, text)
            for at, variant in enumerate(VARIANTS):
                one, other = wanted_keys[variant], found_keys[variant]
                for column, count in enumerate((len(one & other), len(other), len(one))):
                    row += [first + 3 * at + column] * count
            row += [exact] if wanted == found else []
            yield [*row, examples]

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        variants: Metrics = {}
        for at, variant in enumerate(VARIANTS):
            columns = (sums[..., first + 3 * at + column] for column in range(3))
            measures = dict(zip(("precision", "recall", "f1"), LabelCounts(*columns).measures(), strict=True))
            kept = ("f1",) if variant == "pair" else measures
            variants |= {f"{variant}_{name}": measures[name] for name in kept}
        return {
            **counts.pooled(),
            **counts.averages(),
            **variants,
            "exact_match": ratio(sums[..., exact], sums[..., examples]),
            **counts.by_label(names),
        }

    return TallyScores.of(marks(), examples + 1, summary)


def triple_scores_of(
    gold: TripleSets,
    predicted: TripleSets,
    texts: Sequence[str],
    groups: Mapping[str, Collection[int]],
    *,
    by_surface: bool,
) -> dict[str, Scores]:
    """``precision``, ``recall``, ``f1`` and ``support`` (gold triples) of groups of texts, which may share texts.

    Each is over all N texts, so that the resamples of two models and of all groups are the same.

    Args:
        groups: name -> indices of its texts.
        by_surface: triples are compared by what is written, not by place.
    """

    def kept(triples: Collection[Triple], text: str) -> set[Hashable]:
        return {surfaces(triple, text) if by_surface else triple for triple in triples}

    columns: list[list[int]] = []
    for one, other, text in zip(gold, predicted, texts, strict=True):
        wanted, found = kept(one, text), kept(other, text)
        counts = (len(wanted & found), len(found), len(wanted))
        columns.append([column for column, count in enumerate(counts) for _ in range(count)])
    return {
        name: TallyScores.of(
            (columns[i] if i in members else [] for i in range(len(texts))), 3, group_metrics
        )
        for name, members in ((name, frozenset(indices)) for name, indices in groups.items())
    }


def _keys(triples: Collection[Triple], text: str) -> Mapping[str, set[Hashable]]:
    return {
        "pair": {(subject[:2], target[:2]) for subject, _, target in triples},
        "partial": {(subject.end, predicate, target.end) for subject, predicate, target in triples},
        "surface": {surfaces(triple, text) for triple in triples},
    }


def overlap_types(triples: Collection[Triple], text: str, *, by_surface: bool) -> set[str]:
    """How the triples of a text overlap (Zeng et al. 2018): ``normal``, or some of ``SEO``, ``EPO``, ``SOO``.

    EPO: two triples have the same subject and object. SEO: different pairs share an entity. SOO: the two ends of a
    triple share characters (Zheng et al. 2021, https://aclanthology.org/2021.acl-long.486). A text without triples
    has no type.

    Args:
        by_surface: entities are the same if they are written alike; else, if they have the same place.
    """
    if not triples:
        return set()

    def entity(span: Span) -> Hashable:
        return text[span.start : span.end] if by_surface else span[:2]

    relations = {(entity(s), predicate, entity(o)) for s, predicate, o in triples}
    pairs = {(subject, target) for subject, _, target in relations}
    found = set()
    if len(pairs) < len(relations):
        found.add("EPO")
    if max(Counter(end for pair in pairs for end in {*pair}).values()) > 1:
        found.add("SEO")
    if any(s.start < o.end and o.start < s.end for s, _, o in triples):
        found.add("SOO")
    return found or {"normal"}


def count_group(triples: Collection[Triple]) -> str:
    """``0``, ``1`` ... or ``5+`` triples."""
    return f"{MOST_TRIPLES}+" if len(triples) >= MOST_TRIPLES else str(len(triples))


def as_spans(
    gold: TripleSets, predicted: TripleSets
) -> tuple[list[dict[Span, Triple]], list[dict[Span, Triple]]]:
    """Triples as spans that :mod:`wenmai.metrics.spans` compares: a place for each pair of ends, predicates as labels.

    Returns:
        of the gold and of the predicted triples of each text, span -> triple.
    """
    found: tuple[list[dict[Span, Triple]], list[dict[Span, Triple]]] = ([], [])
    for both in zip(gold, predicted, strict=True):
        places: dict[tuple[Span, Span], int] = {}
        for part, triples in zip(found, both, strict=True):
            spans = {}
            for triple in triples:
                at = places.setdefault((triple.subject, triple.object), len(places))
                spans[Span(at, at + 1, triple.predicate)] = triple
            part.append(spans)
    return found
