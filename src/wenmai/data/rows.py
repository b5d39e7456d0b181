"""A row is one sequence for the backbone; a batch is rows padded to the same length.

Shape letters: B rows, T tokens, N items of a ragged target (spans, say), K numbers an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]
Target = int | float | list[int] | np.ndarray

IGNORE = -100
"""The target id that no loss counts."""


@dataclass
class Row:
    """One sequence for the backbone.

    Args:
        inputs: what the backbone reads, each of length T: ``input_ids``, ``token_type_ids`` ...
        targets: what the loss reads: a number, a list of length T, or an integer array (N, K) of any N.
        offsets: token -> characters of the ORIGINAL text; ``(0, 0)`` for special tokens. Never a tensor.
        content: the tokens ``[start, stop)`` that are text rather than special tokens.
        window: number of content tokens of the same text that precede this row's first content token.
        words: per token the number of its word, -1 for special tokens; empty where words play no part.
    """

    inputs: dict[str, list[int]]
    targets: dict[str, Target] = field(default_factory=dict)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    content: tuple[int, int] = (0, 0)
    window: int = 0
    words: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Rows to tensors, padded on the right to the longest row.

    Args:
        rows: at least one; all with the same keys.
        pad_id: pads ``input_ids``; other inputs are padded with 0, targets with :data:`IGNORE`.

    Returns:
        the inputs (B, T), ``attention_mask`` (B, T) of 0 and 1, and the targets (B,), (B, T) or (B, N, K).
    """
    lengths_B = np.array([len(row) for row in rows])
    width = int(lengths_B.max())
    batch: Batch = {}
    for key in rows[0].inputs:
        fill = pad_id if key == "input_ids" else 0
        batch[key] = _padded([row.inputs[key] for row in rows], width, fill)
    mask_BT = np.arange(width) < lengths_B[:, None]
    batch["attention_mask"] = torch.from_numpy(mask_BT.astype(np.int64))
    for key, first in rows[0].targets.items():
        values = [row.targets[key] for row in rows]
        if isinstance(first, np.ndarray):
            batch[key] = _padded_items([np.asarray(value) for value in values])
        elif isinstance(first, list):
            batch[key] = _padded([value for value in values if isinstance(value, list)], width, IGNORE)
        else:
            batch[key] = torch.tensor(values)
    return batch


def _padded(sequences: Sequence[list[int]], width: int, fill: int) -> Tensor:
    array = np.full((len(sequences), width), fill, dtype=np.int64)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(array)


def _padded_items(items: Sequence[np.ndarray]) -> Tensor:
    count = max(1, max(len(array) for array in items))
    out = np.full((len(items), count, items[0].shape[1]), IGNORE, dtype=np.int64)
    for row, array in zip(out, items, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)
