"""Characters to tokens and back, against a search over all runs of tokens."""

from __future__ import annotations

import random

from wenmai.text.spans import Span, TokenAligner, overlapping, to_character_span, to_token_span


def random_offsets(rng: random.Random) -> list[tuple[int, int]]:
    offsets, at = [], 0
    for _ in range(rng.randint(0, 8)):
        kind = rng.random()
        if kind < 0.2:
            offsets.append((0, 0) if rng.random() < 0.5 else (at, at))
        else:
            at += rng.choice([0, 0, 1])
            offsets.append((at, at + rng.randint(1, 3)))
            at = offsets[-1][1]
    return offsets


def test_aligner_finds_the_run_of_tokens_that_a_search_finds():
    rng = random.Random(1)
    found_some = lost_some = 0
    for _ in range(1000):
        offsets = random_offsets(rng)
        aligner = TokenAligner(offsets)
        for start in range(12):
            for end in range(start, 13):
                runs = [
                    (first, stop)
                    for first in range(len(offsets))
                    for stop in range(first + 1, len(offsets) + 1)
                    if offsets[first][0] == start
                    and offsets[stop - 1][1] == end
                    and offsets[first][0] < offsets[first][1]
                    and offsets[stop - 1][0] < offsets[stop - 1][1]
                ]
                expected = runs[0] if runs else None
                assert aligner.to_tokens(start, end) == expected == to_token_span(start, end, offsets)
                if expected:
                    assert to_character_span(*expected, offsets) == (start, end)
                found_some += expected is not None
                lost_some += expected is None
    assert found_some > 1000 and lost_some > 1000


def test_special_tokens_are_never_part_of_an_edge():
    offsets = [(0, 0), (0, 2), (3, 4), (0, 0)]
    assert to_token_span(0, 2, offsets) == (1, 2)
    assert to_token_span(0, 4, offsets) == (1, 3)
    assert to_token_span(0, 3, offsets) is None
    assert to_token_span(1, 4, offsets) is None
    assert to_token_span(3, 2, offsets) is None
    assert to_token_span(0, 0, offsets) is None


def test_overlapping_names_each_pair_once():
    spans = [(0, 4, "A"), (2, 3, "B"), (3, 6, "C"), (6, 7, "D"), (0, 4, "A")]
    assert overlapping(spans) == [
        (Span(0, 4, "A"), Span(2, 3, "B")),
        (Span(0, 4, "A"), Span(3, 6, "C")),
    ]
    assert overlapping([(0, 1, "A"), (0, 1, "B")]) == [(Span(0, 1, "A"), Span(0, 1, "B"))]
