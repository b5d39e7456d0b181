"""What the steps work on: a document, or the reason why it is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """A text on its way.

    Args:
        text: as it is now.
        source: the file or folder that the user named.
        place: file and first byte: ``news.txt:byte 5120``.
        fields: other fields of a jsonl record, which are kept as they are.
        changes: what the steps changed: ``repaired``, ``lines``; counted in the report.
    """

    text: str
    source: str = ""
    place: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    def changed(self, text: str, change: str) -> Document:
        """The document with another text; itself if the text is the same."""
        return self if text == self.text else replace(self, text=text, changes=(*self.changes, change))


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a document is left out.

    Args:
        reason: one of few words, which the report counts: ``too_short``.
        detail: the numbers behind it, for ``--rejects``.
        group: what the report counts the reason by, such as the test set that was met.
    """

    reason: str
    detail: str = ""
    group: str = ""


Step = Callable[[Document], Document | Rejection]
"""Depends on the document alone, so that neither order nor number of processes changes the result."""


def apply(steps: Sequence[Step], document: Document) -> Document | Rejection:
    """The document after all steps, or what the first of them that refuses it says."""
    for step in steps:
        outcome = step(document)
        if isinstance(outcome, Rejection):
            return outcome
        document = outcome
    return document


def draw(seed: int, purpose: str, text: str) -> float:
    """A number of (0, 1] that belongs to this text: the same in every order, process and run."""
    return (key(seed, purpose, text) + 1) / 2**64


def key(seed: int, purpose: str, text: str) -> int:
    """64 bits that belong to this text and purpose."""
    hashed = hashlib.blake2b(digest_size=8, key=f"{seed}:{purpose}".encode()[:64])
    hashed.update(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest(), "little")
