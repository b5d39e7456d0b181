"""Long texts: overlapping windows of tokens on the way in, one answer a token, or one for the text, on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.text.sentences import split_sentences

WindowPooling = Literal["mean", "max", "mean_probability"]
Truncation = Literal["head", "tail", "head_tail"]


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


def overlap_in(room: int, overlap: int) -> int:
    """The overlap that is asked for, or three quarters of the room where it is more: with as much as the room holds, a
    text would have a window for every token."""
    return min(overlap, 3 * room // 4)


def sentence_bounds(
    text: str, encoding: Encoding, room: int, overlap: int, *, together: bool
) -> list[tuple[int, int]]:
    """Windows ``[start, stop)`` of whole sentences that cover a text's tokens; one longer than ``room`` is cut.

    Args:
        encoding: of the text.
        room: most tokens in a window.
        overlap: tokens that neighbouring windows over one long sentence share at least.
        together: as many sentences as fit, and the last one of a window again at the start of the next if a new one
            fits beside it; False: every sentence by itself.
    """
    begins = np.array([begin for begin, _ in encoding.offsets], dtype=np.int64)
    # a token belongs to the sentence in which it begins
    cuts = np.searchsorted(begins, [start for start, _ in split_sentences(text)[1:]]).tolist()
    borders = [0, *cuts, len(encoding)]
    sentences = [(start, stop) for start, stop in pairwise(borders) if start < stop]
    if not together:
        parts = [(start, window_bounds(stop - start, room, overlap)) for start, stop in sentences]
        return [(start + left, start + right) for start, bounds in parts for left, right in bounds] or [
            (0, 0)
        ]
    windows: list[tuple[int, int]] = []
    at = 0
    while at < len(sentences):
        start, stop = sentences[at]
        if stop - start > room:
            windows += [
                (start + left, start + right) for left, right in window_bounds(stop - start, room, overlap)
            ]
            at += 1
            continue
        if at and windows and stop - sentences[at - 1][0] <= room:
            start = sentences[at - 1][0]
        while at < len(sentences) and sentences[at][1] - start <= room:
            stop = sentences[at][1]
            at += 1
        windows.append((start, stop))
    return windows or [(0, 0)]


def window_rows(encoding: Encoding, tokenizer: Tokenizer, *, max_length: int, overlap: int) -> list[Row]:
    """One row a window, special tokens of a single sequence around it.

    Args:
        encoding: the whole text.
        max_length: most tokens in a row, special tokens included.
        overlap: tokens that neighbouring windows share, as far as :func:`overlap_in` allows.
    """
    room = room_of(tokenizer, max_length)
    return rows_at(encoding, tokenizer, window_bounds(len(encoding), room, overlap_in(room, overlap)))


def room_of(tokenizer: Tokenizer, max_length: int) -> int:
    """How many of the row's tokens are left for the text, between the special tokens of a single sequence."""
    return max_length - len(tokenizer.single.before) - len(tokenizer.single.after)


def rows_at(encoding: Encoding, tokenizer: Tokenizer, bounds: Sequence[tuple[int, int]]) -> list[Row]:
    """One row a window ``[start, stop)`` of the text's tokens, special tokens of a single sequence around it."""
    template = tokenizer.single
    before, after = template.before, template.after
    rows = []
    for start, stop in bounds:
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


def pair_window_rows(
    first: Encoding, second: Encoding, tokenizer: Tokenizer, *, max_length: int, overlap: int
) -> list[Row]:
    """One row a window of the second text, each with the whole first text before it.

    Args:
        first: short enough that ``max_length`` leaves room for a token of the second.
        second: the whole text; ``content``, ``offsets`` and ``window`` of the rows are its.
        max_length: most tokens in a row, special tokens and the first text included.
        overlap: tokens that neighbouring windows share, as far as :func:`overlap_in` allows.
    """
    template = tokenizer.pair
    type_before, type_first, type_between, type_second, type_after = template.types
    head = [*template.before, *first.ids, *template.between]
    head_types = [*type_before, *[type_first] * len(first), *type_between]
    room = max_length - len(head) - len(template.after)
    rows = []
    for start, stop in window_bounds(len(second), room, overlap_in(room, overlap)):
        ids = second.ids[start:stop]
        rows.append(
            Row(
                inputs={
                    "input_ids": [*head, *ids, *template.after],
                    "token_type_ids": [*head_types, *[type_second] * len(ids), *type_after],
                },
                offsets=[(0, 0)] * len(head) + second.offsets[start:stop] + [(0, 0)] * len(template.after),
                content=(len(head), len(head) + len(ids)),
                window=start,
            )
        )
    return rows


def truncated(encoding: Encoding, room: int, how: Truncation) -> Encoding:
    """The encoding cut to ``room`` tokens, or itself if it fits.

    ``head`` keeps the beginning, ``tail`` the end, ``head_tail`` a quarter from the beginning and the rest from the end
    (Sun et al. 2019, "How to fine-tune BERT for text classification?": 128 and 382 of 510 tokens).
    """
    tokens = len(encoding)
    if tokens <= room:
        return encoding
    first = {"head": room, "tail": 0, "head_tail": room // 4}[how]
    head, tail = encoding.slice(0, first), encoding.slice(tokens - (room - first), tokens)
    return Encoding(head.ids + tail.ids, head.offsets + tail.offsets)


def pooled_windows(
    logits: Sequence[NDArray[np.float32]], rows: Sequence[Row], how: WindowPooling, *, one_label: bool
) -> NDArray[np.float64]:
    """The logits (L,) of a text from those of its windows.

    ``mean`` averages the logits (a product of the windows' probabilities), ``mean_probability`` the probabilities (a
    vote), both weighted by the windows' tokens; ``max`` takes the largest logit of each label: for labels that one
    place of the text decides.

    Args:
        logits: (L,) of each window.
        rows: the windows.
        how: see above.
        one_label: whether the probabilities are a softmax's, or one sigmoid's for each label.
    """
    logits_WL = np.stack(logits).astype(np.float64)
    if how == "max":
        highest_L: NDArray[np.float64] = logits_WL.max(axis=0)
        return highest_L
    weights_W = np.array([max(1, row.content[1] - row.content[0]) for row in rows], dtype=np.float64)
    if how == "mean" or len(rows) == 1:
        return _mean(logits_WL, weights_W)
    if one_label:
        shifted_WL = logits_WL - logits_WL.max(axis=1, keepdims=True)
        log_WL = shifted_WL - np.log(np.exp(shifted_WL).sum(axis=1, keepdims=True))
        return np.log(np.maximum(_mean(np.exp(log_WL), weights_W), np.finfo(np.float64).tiny))
    sigmoid_WL = 1 / (1 + np.exp(-np.clip(logits_WL, -500, 500)))
    holds_L = np.clip(_mean(sigmoid_WL, weights_W), 1e-12, 1 - 1e-12)
    found_L: NDArray[np.float64] = np.log(holds_L / (1 - holds_L))
    return found_L


def _mean(values_WL: NDArray[np.float64], weights_W: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_L: NDArray[np.float64] = np.average(values_WL, axis=0, weights=weights_W)
    return mean_L


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
