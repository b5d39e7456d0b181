"""Texts that occur again: duplicates, contradictions, and leakage between training and evaluation.

Of a row three hashes of 8 bytes are kept, so a million rows take 24 MB.
"""

from __future__ import annotations

import unicodedata
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenmai.check.findings import Finding, Findings
from wenmai.data.examples import Examples

Hashes = NDArray[np.uint64]


@dataclass
class Seen:
    """What was read of a split, an entry a row: hashes of its texts, of their normal form and of the gold."""

    name: str
    rows: Examples[Any]
    exact: array[int] = field(default_factory=lambda: array("Q"))
    normal: array[int] = field(default_factory=lambda: array("Q"))
    gold: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, texts: list[str], gold: object) -> None:
        """Remembers the next row.

        Args:
            texts: what the model reads.
            gold: what it should answer; told apart by ``repr``.
        """
        self.exact.append(_hash("\0".join(texts)))
        self.normal.append(_hash("\0".join(map(normal_form, texts))))
        self.gold.append(_hash(repr(gold)))


def find_repetitions(split: Seen, found: Findings) -> None:
    """The same text again: with the same gold a duplicate, with another a contradiction."""
    exact, gold = _hashes(split.exact), _hashes(split.gold)
    _, first_of, group = np.unique(exact, return_index=True, return_inverse=True)
    first = first_of[group]
    again = first != np.arange(len(exact))
    same_gold = gold == gold[first]
    duplicate = Finding(
        "warning" if split.name == "train" else "info",
        "duplicates",
        f"{split.name}: rows that repeat an earlier one exactly",
        "remove them, or leave them in if they should weigh more",
    )
    contradiction = Finding(
        "warning",
        "contradictory_labels",
        f"{split.name}: the same text as an earlier row, with other gold",
        "decide which is right and correct or remove the other",
    )
    for finding, which in ((duplicate, again & same_gold), (contradiction, again & ~same_gold)):
        for index in np.flatnonzero(which).tolist():
            earlier = int(first[index])
            found.add(split.name, finding, split.rows.place(index), f"as {split.rows.place(earlier)}")


def find_leakage(first: Seen, second: Seen, found: Findings) -> None:
    """Texts of one split that are in another too, apart from width, case and spaces."""
    left, right = _hashes(first.normal), _hashes(second.normal)
    order = np.argsort(left, kind="stable")
    at = np.searchsorted(left, right, sorter=order)
    earlier = order[np.minimum(at, len(left) - 1)] if len(left) else at
    shared = np.flatnonzero(left[earlier] == right) if len(left) else np.zeros(0, dtype=np.int64)
    share = len(shared) / max(1, len(right))
    finding = Finding(
        "error" if share > 0.5 else "warning",
        "leakage",
        f"{second.name}: texts that are in {first.name} too ({share:.1%} of {second.name})",
        f"remove them from {first.name}: scores on them show what was learned by heart",
    )
    for index in shared.tolist():
        place = second.rows.place(index)
        found.add(
            f"{first.name}-{second.name}", finding, place, f"as {first.rows.place(int(earlier[index]))}"
        )


def normal_form(text: str) -> str:
    """The text without differences of width, case and spacing."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _hashes(values: array[int]) -> Hashes:
    return np.frombuffer(values, dtype=np.uint64)
