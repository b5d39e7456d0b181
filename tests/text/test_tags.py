"""Tags and spans: hand-written rows, seqeval's strict mode, brute force over all short rows."""

from __future__ import annotations

import itertools
import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from wenmai.errors import UserError
from wenmai.text.spans import Span
from wenmai.text.tags import (
    allowed_transitions,
    detect_scheme,
    label_tags,
    spans_from_tags,
    tags_from_spans,
)

SCHEMES = ["BIO", "BIOES", "BMES"]


def test_the_vocabulary_starts_with_o_and_goes_label_by_label():
    assert label_tags(["LOC", "PER"], "BIO") == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert label_tags(["LOC"], "BIOES") == ["O", "B-LOC", "I-LOC", "E-LOC", "S-LOC"]
    assert label_tags(["LOC"], "BMES") == ["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC"]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", "B-PER I-PER I-PER B-PER O B-LOC I-LOC"),
        ("BIOES", "B-PER I-PER E-PER S-PER O B-LOC E-LOC"),
        ("BMES", "B-PER M-PER E-PER S-PER O B-LOC E-LOC"),
    ],
)
def test_each_scheme_by_hand(scheme, tags):
    spans = [Span(0, 3, "PER"), Span(3, 4, "PER"), Span(5, 7, "LOC")]
    assert tags_from_spans(spans[::-1], 7, scheme) == tags.split()
    for strict in (True, False):
        assert spans_from_tags(tags.split(), scheme=scheme, strict=strict) == spans
        assert spans_from_tags(tags.split(), strict=strict) == spans


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 3, "PER"), (2, 4, "LOC")], r"\[0, 3\) 'PER' and \[2, 4\) 'LOC' overlap"),
        ([(0, 3, "PER"), (0, 3, "LOC")], "overlap"),
        ([(3, 3, "PER")], "must hold a token"),
        ([(4, 6, "PER")], "within the 5 tokens"),
        ([(-1, 2, "PER")], "within the 5 tokens"),
    ],
)
def test_spans_that_tags_can_not_say_are_refused(spans, message):
    with pytest.raises(UserError, match=message):
        tags_from_spans(spans, 5, "BIO")


@pytest.mark.parametrize(
    ("tags", "strict", "lenient"),
    [
        ("I-PER I-PER O", [], [(0, 2, "PER")]),
        ("B-PER I-LOC I-PER", [(0, 1, "PER")], [(0, 1, "PER"), (1, 2, "LOC"), (2, 3, "PER")]),
        ("O I-PER B-PER I-PER", [(2, 4, "PER")], [(1, 2, "PER"), (2, 4, "PER")]),
        ("B-PER I-PER O", [(0, 2, "PER")], [(0, 2, "PER")]),
        ("B-PER O S-LOC", [(2, 3, "LOC")], [(0, 1, "PER"), (2, 3, "LOC")]),
        ("B-PER I-PER E-LOC", [], [(0, 2, "PER"), (2, 3, "LOC")]),
        ("E-PER M-PER S-PER", [(2, 3, "PER")], [(0, 1, "PER"), (1, 2, "PER"), (2, 3, "PER")]),
        ("B-PER B-PER E-PER", [(1, 3, "PER")], [(0, 1, "PER"), (1, 3, "PER")]),
        ("", [], []),
    ],
)
def test_broken_chunks_by_hand(tags, strict, lenient):
    assert spans_from_tags(tags.split(), strict=True) == strict
    assert spans_from_tags(tags.split(), strict=False) == lenient


def test_underscores_bare_prefixes_and_dashes_in_labels():
    assert spans_from_tags(["B_Time", "I_Time", "O", "B-A-1_x"], strict=True) == [
        Span(0, 2, "Time"),
        Span(3, 4, "A-1_x"),
    ]
    assert spans_from_tags(list("BMES"), strict=True) == [Span(0, 3, ""), Span(3, 4, "")]


@pytest.mark.parametrize("tag", ["", "X-PER", "B-", "PER", "o", "B:PER", "I_", "BPER"])
def test_a_tag_of_no_scheme_is_named(tag):
    for read in (lambda: spans_from_tags(["O", tag], strict=False), lambda: detect_scheme([tag])):
        with pytest.raises(UserError, match="none of O, B-label") as caught:
            read()
        assert repr(tag) in str(caught.value)


def test_schemes_are_told_by_their_prefixes():
    assert detect_scheme([]) == detect_scheme(["O"]) == detect_scheme(["B-S", "I-E", "O"]) == "BIO"
    assert detect_scheme(["S-PER"]) == detect_scheme(["B-PER", "E-PER", "O"]) == "BIOES"
    assert detect_scheme(["M_PER", "E_PER"]) == "BMES"
    with pytest.raises(UserError, match="mixed"):
        detect_scheme(["I-PER", "M-PER"])


@pytest.mark.parametrize(("scheme", "reference"), [("BIO", IOB2), ("BIOES", IOBES)])
def test_strict_is_seqevals_strict_on_random_tags(scheme, reference):
    rng = random.Random(7)
    vocabulary = label_tags(["A", "B", "C"], scheme)
    rows = [rng.choices(vocabulary, k=rng.randint(1, 12)) for _ in range(1500)]
    for tags, found in zip(rows, Entities(rows, reference).entities, strict=True):
        expected = [Span(entity.start, entity.end, entity.tag) for entity in found]
        assert spans_from_tags(tags, scheme=scheme, strict=True) == expected, tags


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_lenient_is_the_conll_script_on_random_tags(scheme):
    rng = random.Random(8)
    vocabulary = label_tags(["A", "B"], scheme)
    for _ in range(1500):
        tags = rng.choices(vocabulary, k=rng.randint(1, 12))
        expected = [Span(start, end + 1, label) for label, start, end in get_entities(tags)]
        assert spans_from_tags(tags, strict=False) == expected, tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_survive_tags(scheme):
    rng = random.Random(9)
    for _ in range(500):
        length = rng.randint(0, 15)
        spans, at = [], 0
        while at < length:
            end = rng.randint(at + 1, length)
            if rng.random() < 0.6:
                spans.append(Span(at, end, rng.choice("XY")))
            at = end
        tags = tags_from_spans(spans, length, scheme)
        assert len(tags) == length
        assert spans_from_tags(tags, scheme=scheme, strict=True) == spans
        assert spans_from_tags(tags, strict=False) == spans


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_path_is_allowed_exactly_if_it_is_what_its_spans_are_written_as(scheme):
    vocabulary = label_tags(["X", "Y"], scheme)
    allowed = allowed_transitions(vocabulary)
    count = len(vocabulary)
    assert allowed.shape == (count + 2, count)
    for length in range(1, 5):
        for path in itertools.product(range(count), repeat=length):
            tags = [vocabulary[i] for i in path]
            legal = (
                allowed[count, path[0]]
                and allowed[count + 1, path[-1]]
                and all(allowed[i, j] for i, j in itertools.pairwise(path))
            )
            rewritten = tags_from_spans(spans_from_tags(tags, scheme=scheme, strict=True), length, scheme)
            assert legal == (rewritten == tags), tags
