"""Draws look drawn, and are functions of the row's key alone."""

from __future__ import annotations

import numpy as np

from wenmai.data.draws import drawn, drawn_at, fractions, mixed, row_keys, uniform

KEYS = row_keys(42, 0, np.arange(20_000), np.zeros(20_000, dtype=np.int64))


def test_keys_are_those_of_the_published_hash() -> None:
    # the first numbers of SplitMix64 from states 0 and 1234567, as published with its reference implementation
    assert [hex(int(value)) for value in mixed(np.array([0, 1234567], dtype=np.uint64))] == [
        "0xe220a8397b1dcdaf",
        hex(6457827717110365317),
    ]
    for seed, epoch, example, number in [(0, 0, 0, 0), (42, 3, 17, 2), (2**40, 1, 2**33, 70000)]:
        key = 0
        for value in (seed, epoch, example, number):
            key = (key + value + 0x9E3779B97F4A7C15) % 2**64
            key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            key = (key ^ (key >> 27)) * 0x94D049BB133111EB % 2**64
            key ^= key >> 31
        assert row_keys(seed, epoch, np.array([example]), np.array([number])).tolist() == [key >> 1]


def test_keys_look_drawn() -> None:
    bits = (KEYS[:, None] >> np.arange(63)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02  # 5.6 standard deviations of 20,000 fair draws
    assert np.abs(np.corrcoef(bits[:-1].T, bits[1:].T)).max(where=~np.eye(126, dtype=bool), initial=0) < 0.04


def test_draws_are_those_of_the_published_sequence() -> None:
    """Of the state that the stream leads to: the first three numbers by plain integers."""
    for key, stream in [(0, 1), (2**62 + 12345, 7)]:
        state = int(mixed(np.array([key + stream], dtype=np.uint64))[0])
        expected = []
        for _ in range(3):
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            value = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
            expected.append(((value ^ (value >> 31)) >> 11) / 2**53)
        assert uniform(np.array([key]), stream, 3).tolist() == [expected]


def test_uniform_draws_are_uniform_and_independent() -> None:
    drawn = uniform(KEYS, 1, 8)
    assert drawn.min() >= 0 and drawn.max() < 1
    for column in drawn.T:
        counts = np.histogram(column, bins=20, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi squared with 19 degrees of freedom: p < 1e-5
    both = np.concatenate([drawn, uniform(KEYS, 2, 8)], axis=1)
    assert np.abs(np.corrcoef(both.T) - np.eye(16)).max() < 0.04  # 5.6 standard deviations
    assert np.abs(np.corrcoef(both[:-1, 0], both[1:, 0])[0, 1]) < 0.04


def test_more_draws_begin_with_the_same_ones() -> None:
    assert (uniform(KEYS[:50], 3, 40)[:, :7] == uniform(KEYS[:50], 3, 7)).all()
    assert (uniform(KEYS[:50], 3, 7)[[31, 4]] == uniform(KEYS[[31, 4]], 3, 7)).all()


def test_draws_of_rows_one_after_another_are_those_of_each() -> None:
    counts = np.array([3, 0, 7, 1])
    flat = drawn(KEYS[:4], 3, counts)
    alone = [uniform(KEYS[[row]], 3, int(count))[0] for row, count in enumerate(counts)]
    assert (fractions(flat) == np.concatenate(alone)).all()
    row, number = np.array([2, 0, 2, 3]), np.array([6, 1, 0, 0])
    assert (drawn_at(KEYS[:4], 3, row, number) == flat[[9, 1, 3, 10]]).all()
