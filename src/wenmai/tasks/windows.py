"""Long texts: overlapping windows of tokens on the way in, one answer a token on the way out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row


def window_bounds(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """The windows ``[start, stop)`` of a text: the fewest that overlap by at least ``overlap``, of even lengths.

    Args:
        tokens: length of the text; 0 gives one empty window.
        room: most tokens in a window.
        overlap: tokens that neighbours share at least; less than ``room``.
    """
    if tokens <= room:
        return [(0, tokens)]
    count = -(-(tokens - overlap) // (room - overlap))
    length = min(room, -(-(tokens + (count - 1) * overlap) // count))
    starts = [round(i * (tokens - length) / (count - 1)) for i in range(count)]
    return [(start, start + length) for start in starts]


def window_rows(encoding: Encoding, tokenizer: Tokenizer, *, max_length: int, overlap: int) -> list[Row]:
    """One row a window, special tokens of a single sequence around it.

    Args:
        encoding: the whole text.
        max_length: most tokens in a row, special tokens included.
        overlap: tokens that neighbouring windows share.
    """
    template = tokenizer.single
    before, after = template.before, template.after
    room = max_length - len(before) - len(after)
    rows = []
    for start, stop in window_bounds(len(encoding), room, min(overlap, room - 1)):
        ids = encoding.ids[start:stop]
        rows.append(
            Row(
                inputs={
                    "input_ids": [*before, *ids, *after],
                    "token_type_ids": [template.types[1]] * (len(before) + len(ids) + len(after)),
                },
                offsets=[(0, 0)] * len(before) + encoding.offsets[start:stop] + [(0, 0)] * len(after),
                content=(len(before), len(before) + len(ids)),
                window=start,
            )
        )
    return rows


def merge_windows(
    outputs: Sequence[NDArray[np.float32]], rows: Sequence[Row]
) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    """Outputs a token of the whole text, each from the window in which the token stands farthest from a cut.

    Args:
        outputs: per row an array (T, ...), special tokens included.
        rows: the windows of one text, in order.

    Returns:
        the outputs (tokens of the text, ...) and the tokens' offsets.
    """
    total = max(row.window + row.content[1] - row.content[0] for row in rows)
    merged = np.zeros((total, *outputs[0].shape[1:]), dtype=outputs[0].dtype)
    offsets: list[tuple[int, int]] = [(0, 0)] * total
    room = np.full(total, -1)
    for array, row in zip(outputs, rows, strict=True):
        first, stop = row.content
        length = stop - first
        here = np.arange(length)
        left = here if row.window > 0 else np.full(length, total)
        right = length - 1 - here if row.window + length < total else np.full(length, total)
        distance = np.minimum(left, right)
        at = row.window + here
        better = distance > room[at]
        merged[at[better]] = array[first:stop][better]
        room[at[better]] = distance[better]
        for index in here[better]:
            offsets[row.window + int(index)] = row.offsets[first + int(index)]
    return merged, offsets
