"""A row is one sequence for the backbone; a batch is rows padded to the same length.

Shape letters: B rows, T tokens, N items of a ragged target (spans, say), K numbers an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = dict[str, Tensor]
Arrays = dict[str, NDArray[Any]]
"""A batch before it becomes tensors."""
Tokens = list[int] | NDArray[Any]
"""A number for each token: a list while a task makes it, an integer array once it comes from a file."""
Target = int | float | Tokens

IGNORE = -100
"""The target id that no loss counts."""


@dataclass
class Row:
    """One sequence for the backbone.

    Args:
        inputs: what the backbone reads, each of length T: ``input_ids``, ``token_type_ids`` ...
        targets: what the loss reads: a number, a list or array of length T, or an integer array (N, K) of any N.
        offsets: token -> characters of the ORIGINAL text; ``(0, 0)`` for special tokens. Never a tensor.
        content: the tokens ``[start, stop)`` that are text rather than special tokens.
        window: number of content tokens of the same text that precede this row's first content token.
    """

    inputs: dict[str, Tokens]
    targets: dict[str, Target] = field(default_factory=dict)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    content: tuple[int, int] = (0, 0)
    window: int = 0

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Rows to tensors: :func:`stack` for the model."""
    return tensors(stack(rows, pad_id))


def tensors(arrays: Arrays) -> Batch:
    """The same batch, not copied."""
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def stack(rows: Sequence[Row], pad_id: int) -> Arrays:
    """Rows to arrays, padded on the right to the longest row.

    Args:
        rows: at least one; all with the same keys.
        pad_id: pads ``input_ids``; other inputs are padded with 0, targets with :data:`IGNORE`.

    Returns:
        the inputs (B, T), ``attention_mask`` (B, T) of 0 and 1, and the targets (B,), (B, T) or (B, N, K).
    """
    padding = Padding(np.array([len(row) for row in rows]))
    batch: Arrays = {}
    for key in rows[0].inputs:
        batch[key] = padding.tokens([row.inputs[key] for row in rows], pad_id if key == "input_ids" else 0)
    batch["attention_mask"] = padding.mask()
    for key in rows[0].targets:
        batch[key] = padding.target([row.targets[key] for row in rows])
    return batch


class Padding:
    """Makes arrays of rows that are padded on the right to the longest.

    Args:
        length_B: tokens of each row.
    """

    def __init__(self, length_B: NDArray[np.int64]):
        self._real_BT = np.arange(int(length_B.max())) < length_B[:, None]

    def mask(self) -> NDArray[np.int64]:
        """(B, T) of 1 at tokens and 0 at padding."""
        return self._real_BT.astype(np.int64)

    def tokens(self, sequences: Sequence[Tokens], fill: int) -> NDArray[np.int64]:
        """(B, T) from a number for each token."""
        array = np.full(self._real_BT.shape, fill, dtype=np.int64)
        # all rows at once: a batch has too many for one by one
        array[self._real_BT] = np.concatenate(sequences)
        return array

    def constants(self, numbers: Sequence[int], fill: int) -> NDArray[np.int64]:
        """(B, T) from one number a row, which all its tokens have."""
        value_B1 = np.array(numbers, dtype=np.int64)[:, None]
        if (value_B1 == fill).all():
            return np.full(self._real_BT.shape, fill, dtype=np.int64)
        return np.where(self._real_BT, value_B1, fill)

    def target(self, values: Sequence[Any]) -> NDArray[Any]:
        """(B,), (B, T) or (B, N, K) from a target of each row; see :class:`Row`."""
        first = values[0]
        if isinstance(first, np.ndarray) and first.ndim == 2:
            return _padded_items(values)
        if isinstance(first, list | np.ndarray):
            return self.tokens(values, IGNORE)
        # as torch has it: numbers with a fraction are single precision
        return np.array(values, dtype=np.float32 if isinstance(first, float) else np.int64)


def _padded_items(items: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    count = max(1, max(len(array) for array in items))
    out = np.full((len(items), count, items[0].shape[1]), IGNORE, dtype=np.int64)
    for row, array in zip(out, items, strict=True):
        row[: len(array)] = array
    return out
