"""The best answers over windows against brute force over every span of every window."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from wenmai.data.rows import Row
from wenmai.tasks.answer_decoding import best_answers
from wenmai.tasks.task import RowOutputs
from wenmai.tasks.windows import window_bounds


def drawn(
    rng: np.random.Generator, tokens: int, room: int, overlap: int
) -> tuple[list[RowOutputs], list[Row]]:
    """Windows of a context whose tokens have 1 to 3 characters with gaps between; scores with many ties."""
    stops = np.cumsum(rng.integers(1, 5, tokens))
    widths = np.minimum(rng.integers(1, 4, tokens), np.diff(stops, prepend=0))
    offsets = list(zip((stops - widths).tolist(), stops.tolist(), strict=True))
    outputs: list[RowOutputs] = []
    rows = []
    for start, stop in window_bounds(tokens, room, overlap):
        head = int(rng.integers(1, 4))
        size = head + stop - start + 1
        outputs.append(
            {name: (rng.integers(-6, 7, size) / 2).astype(np.float32) for name in ("start", "end")}
        )
        rows.append(
            Row(
                inputs={"input_ids": [1] * size},
                offsets=[(0, 0)] * head + offsets[start:stop] + [(0, 0)],
                content=(head, head + stop - start),
                window=start,
            )
        )
    return outputs, rows


def brute_force(
    outputs: list[RowOutputs], rows: list[Row], *, longest: int, against_null: bool
) -> dict[tuple[int, int], float]:
    best: dict[tuple[int, int], float] = {}
    for out, row in zip(outputs, rows, strict=True):
        null = out["start"][0] + out["end"][0] if against_null else 0.0
        for i in range(*row.content):
            for j in range(i, row.content[1]):
                span = row.offsets[i][0], row.offsets[j][1]
                if span[1] - span[0] <= longest:
                    score = float(out["start"][i] + out["end"][j] - null)
                    best[span] = max(best.get(span, -np.inf), score)
    return best


@pytest.mark.parametrize("against_null", [True, False])
def test_best_answers_are_those_of_brute_force(against_null: bool) -> None:
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(250):
        tokens, room = int(rng.integers(0, 14)), int(rng.integers(2, 8))
        outputs, rows = drawn(rng, tokens, room, int(rng.integers(0, room)))
        several += len(rows) > 2
        longest, count = int(rng.integers(1, 12)), int(rng.integers(1, 6))
        found = best_answers(outputs, rows, count=count, longest=longest, against_null=against_null)
        spans = brute_force(outputs, rows, longest=longest, against_null=against_null)
        expected = sorted(
            ((*span, score) for span, score in spans.items()), key=lambda s: (-s[2], s[0], s[1])
        )
        assert [tuple(answer) for answer in found.best] == expected[:count]
        total = np.log(np.exp(list(spans.values())).sum()) if spans else -np.inf
        assert found.log_total == pytest.approx(total)
    assert several > 50


def test_windows_compare_whatever_their_scale() -> None:
    """A constant on all scores of one window changes nothing: its softmax does not see it either."""
    rng = np.random.default_rng(1)
    outputs, rows = drawn(rng, 12, 6, 2)
    plain = best_answers(outputs, rows, count=3, longest=9, against_null=True)
    outputs[1] = {name: scores + 8 for name, scores in outputs[1].items()}
    assert best_answers(outputs, rows, count=3, longest=9, against_null=True) == plain


def test_twenty_thousand_characters_in_bounded_memory() -> None:
    rng = np.random.default_rng(2)
    outputs, rows = drawn(rng, 20_000, 300, 100)
    outputs[70]["start"][rows[70].content[0] + 120] = 50
    outputs[70]["end"][rows[70].content[0] + 123] = 50
    tracemalloc.start()
    found = best_answers(outputs, rows, count=5, longest=100, against_null=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    best = found.best[0]
    first = rows[70].content[0]
    assert (best.start, best.end) == (rows[70].offsets[first + 120][0], rows[70].offsets[first + 123][1])
    assert peak < 8e6  # all spans of the context at once would take 16 MB an array, and more than one
