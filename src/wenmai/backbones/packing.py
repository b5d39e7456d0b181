"""Real tokens without the padding: a padded batch as one run of N tokens, rows of equal length side by side.

Rows are ordered by length, so the run falls into blocks of rows that are equally long: attention inside a block needs
neither mask nor padding, and everything else works on single tokens anyway.

Shape letters: B rows, T tokens of a padded row, N real tokens of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Block:
    """Neighbouring rows of equal length.

    Args:
        start: the first row's first token in the run.
        rows: how many.
        length: of each, in tokens.
    """

    start: int
    rows: int
    length: int

    @property
    def tokens(self) -> slice:
        """Where they are in the run."""
        return slice(self.start, self.start + self.rows * self.length)


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch are.

    Args:
        shape: (B, T).
        index_N: of every real token its place in the flattened batch.
        place_N: of every real token its place among the real tokens of its row, from 0.
        row_N: of every real token its row.
        blocks: the run, in order.
    """

    shape: tuple[int, int]
    index_N: Tensor
    place_N: Tensor
    row_N: Tensor
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, mask_BT: Tensor) -> Packing:
        """From an attention mask of 0 and 1; padding may stand anywhere, rows may be empty."""
        rows, width = mask_BT.shape
        real_BT = mask_BT.bool()
        length_B = real_BT.sum(dim=1)
        order_B = length_B.argsort(stable=True)
        inside, place = real_BT[order_B].nonzero(as_tuple=True)
        row_N = order_B[inside]
        rank_BT = real_BT.cumsum(dim=1) - 1
        index_N = row_N * width + place
        return cls(
            (rows, width), index_N, rank_BT.flatten()[index_N], row_N, _blocks(length_B[order_B].tolist())
        )

    @property
    def whole(self) -> bool:
        """Whether there is no padding at all."""
        return len(self.index_N) == self.shape[0] * self.shape[1]

    @cached_property
    def borders(self) -> Tensor:
        """Where each row begins and the last one ends, int32, as kernels for rows of any length want it."""
        lengths = [block.length for block in self.blocks for _ in range(block.rows)]
        return pad(torch.tensor(lengths, device=self.index_N.device).cumsum(0), (1, 0)).to(torch.int32)

    @property
    def longest(self) -> int:
        return self.blocks[-1].length if self.blocks else 0

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.whole else flat.index_select(0, self.index_N)

    def unpack(self, packed: Tensor, chosen_N: Tensor | None = None) -> Tensor:
        """(N, ...), or (M, ...) of the M chosen tokens, -> (B, T, ...), zeros elsewhere."""
        rows, width = self.shape
        if self.whole and chosen_N is None:
            return packed.view(rows, width, *packed.shape[1:])
        index = self.index_N if chosen_N is None else self.index_N[chosen_N]
        flat = packed.new_zeros(rows * width, *packed.shape[1:]).index_copy(0, index, packed)
        return flat.view(rows, width, *packed.shape[1:])


def _blocks(lengths: list[int]) -> tuple[Block, ...]:
    """From the rows' lengths in ascending order; empty rows are left out."""
    blocks: list[Block] = []
    start = 0
    for length in sorted(set(lengths) - {0}):
        rows = lengths.count(length)
        blocks.append(Block(start, rows, length))
        start += rows * length
    return tuple(blocks)
