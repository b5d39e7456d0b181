"""Decoding against enumeration of all paths."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from wenmai.heads.viterbi import (
    FORBIDDEN,
    best_tags,
    forward_backward,
    hard_transitions,
    segment_probabilities,
    sequence_marginals,
    tag_probabilities,
    viterbi,
)

TAGS = 3
O, B, I = range(TAGS)  # noqa: E741
BIO = np.ones((TAGS + 2, TAGS), dtype=bool)
BIO[O, I] = BIO[TAGS, I] = False


def all_paths(logits, transitions):
    """Every path with its score, added up step by step."""
    tokens, labels = logits.shape
    for path in itertools.product(range(labels), repeat=tokens):
        score = transitions[labels, path[0]] + transitions[labels + 1, path[-1]]
        score += sum(logits[t, tag] for t, tag in enumerate(path))
        score += sum(transitions[a, b] for a, b in itertools.pairwise(path))
        yield path, score


def random_case(seed, *, tokens, forbid=None):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(tokens, TAGS)) * 2
    transitions = rng.normal(size=(TAGS + 2, TAGS)) * 2
    if forbid is not None:
        transitions[~BIO] = forbid
    return logits, transitions


CASES = [
    random_case(seed, tokens=1 + seed % 5, forbid=forbid)
    for seed, forbid in itertools.product(range(10), [None, -np.inf, FORBIDDEN])
]


@pytest.mark.parametrize(("logits", "transitions"), CASES)
def test_viterbi_finds_the_best_of_all_paths(logits, transitions):
    best, score = max(all_paths(logits, transitions), key=lambda item: item[1])
    path, found = viterbi(logits, transitions)
    assert tuple(path) == best
    assert found == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(("logits", "transitions"), CASES)
def test_marginals_and_total_are_sums_over_all_paths(logits, transitions):
    expected, total = np.zeros_like(logits), 0.0
    for path, score in all_paths(logits, transitions):
        total += np.exp(score)
        for t, tag in enumerate(path):
            expected[t, tag] += np.exp(score)
    np.testing.assert_allclose(sequence_marginals(logits, transitions), expected / total, atol=1e-12)
    assert forward_backward(logits, transitions)[2] == pytest.approx(np.log(total), abs=1e-10)


@pytest.mark.parametrize(("logits", "transitions"), CASES)
def test_a_segment_is_as_probable_as_the_paths_that_agree_on_it(logits, transitions):
    path, _ = viterbi(logits, transitions)
    segments = list(itertools.combinations(range(len(path) + 1), 2))
    total = sum(np.exp(score) for _, score in all_paths(logits, transitions))
    expected = [
        sum(np.exp(s) for other, s in all_paths(logits, transitions) if list(other[a:b]) == path[a:b]) / total
        for a, b in segments
    ]
    np.testing.assert_allclose(
        segment_probabilities(logits, transitions, path, segments), expected, atol=1e-12
    )


def test_a_tag_that_nothing_leads_to():
    allowed = np.ones_like(BIO)
    allowed[:TAGS, I] = False
    logits, _ = random_case(0, tokens=3)
    legal = hard_transitions(allowed)
    total = sum(np.exp(score) for _, score in all_paths(logits, legal))
    assert forward_backward(logits, legal)[2] == pytest.approx(np.log(total))
    marginals = sequence_marginals(logits, legal)
    np.testing.assert_allclose(marginals.sum(axis=1), 1.0)
    assert marginals[0, I] > 0 and not marginals[1:, I].any()


def test_best_tags_is_the_best_legal_path():
    # by itself every token would be I; after O or at the start that is illegal
    logits = np.array([[1.0, 0.5, 9.0], [3.0, 0.0, 9.0], [0.0, 0.0, 5.0]])
    assert best_tags(logits, np.ones_like(BIO)) == [I, I, I]
    assert best_tags(logits, BIO) == [B, I, I]
    assert best_tags(logits[:1], BIO) == [O]
    no_i_at_the_end = BIO.copy()
    no_i_at_the_end[TAGS + 1, I] = False
    assert best_tags(logits, no_i_at_the_end) == [B, I, O]


@pytest.mark.parametrize("seed", range(20))
def test_best_tags_against_all_legal_paths(seed):
    logits, _ = random_case(seed, tokens=4)
    legal = hard_transitions(BIO)
    best, _ = max(all_paths(logits, legal), key=lambda item: item[1])
    assert tuple(best_tags(logits, BIO)) == best


def test_without_transitions_marginals_are_softmax():
    logits, transitions = random_case(3, tokens=5)
    np.testing.assert_allclose(
        sequence_marginals(logits, np.zeros_like(transitions)), tag_probabilities(logits), atol=1e-12
    )


def test_empty_text():
    none, transitions = np.zeros((0, TAGS)), np.zeros((TAGS + 2, TAGS))
    assert viterbi(none, transitions) == ([], 0.0)
    assert best_tags(none, BIO) == []
    assert sequence_marginals(none, transitions).shape == (0, TAGS)
    assert tag_probabilities(none).shape == (0, TAGS)
    assert segment_probabilities(none, transitions, [], []) == []


def test_long_float32_input_with_large_scores_stays_exact():
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(3000, TAGS)) * 300).astype(np.float32)
    transitions = np.where(BIO, 0, FORBIDDEN).astype(np.float32)
    path, score = viterbi(logits, transitions)
    assert not any(before == O and after == I for before, after in itertools.pairwise(path))
    assert score == pytest.approx(logits.astype(np.float64)[np.arange(3000), path].sum(), rel=1e-12)
    marginals = sequence_marginals(logits, transitions)
    assert np.isfinite(marginals).all()
    np.testing.assert_allclose(marginals.sum(axis=1), 1.0, atol=1e-6)


def test_needs_no_torch():
    code = "import sys, wenmai.heads.viterbi; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
