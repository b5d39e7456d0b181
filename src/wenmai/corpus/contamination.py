"""Sentences of test sets in the corpus: found by runs of characters, left out.

Brown et al. 2020 (https://arxiv.org/abs/2005.14165, appendix C) remove what shares 13 words with a test set. Here a
document is met if it shares ``ngram`` characters in a row with a text of a test set (13 characters are about 8 words:
stricter), or holds a whole test sentence that is shorter, down to ``min_characters``. Only letters and digits count, in
lower case and after Unicode NFKC, so punctuation, spaces and width hide nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wenmai.corpus.documents import Document, Rejection
from wenmai.corpus.ngrams import Hashes, code_points, ngram_hashes
from wenmai.corpus.settings import DecontaminateConfig
from wenmai.corpus.test_sets import files_of, texts_of
from wenmai.errors import UserError
from wenmai.text.normalize import normalize
from wenmai.text.sentences import split_sentences

_IGNORED = re.compile(r"[\W_]+")


def squeezed(text: str) -> str:
    """Letters and digits only, NFKC, lower case."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", text).lower())


@dataclass(frozen=True)
class Runs:
    """The runs of one length that must not come.

    Args:
        length: characters in a run.
        hashes: sorted, shape (runs,).
        owners: number of the first test set that has the run, shape (runs,).
    """

    length: int
    hashes: Hashes
    owners: npt.NDArray[np.uint16]

    def find(self, points: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.int64], int] | None:
        """Where runs begin in a text, and the owner of the first; None if there are none."""
        hashes = ngram_hashes(points, self.length)
        if not len(hashes):
            return None
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        met = np.flatnonzero(self.hashes[at] == hashes)
        return (met, int(self.owners[at[met[0]]])) if len(met) else None


@dataclass(frozen=True)
class KeptOut:
    """The test sets as a step.

    Args:
        names: of the files.
        runs: whole short sentences by their length, then the runs of ``ngram`` characters.
        sentences: how many texts each file holds that are long enough, and how many are too short.
    """

    names: list[str]
    runs: list[Runs]
    sentences: dict[str, dict[str, int]]
    remove_sentences: bool

    def __call__(self, document: Document) -> Document | Rejection:
        text = squeezed(document.text)
        points = code_points(text)
        for runs in self.runs:
            found = runs.find(points)
            if found is None:
                continue
            starts, owner = found
            if self.remove_sentences:
                return self._without_sentences(document)
            start = int(starts[0])
            return Rejection("contaminated", text[start : start + runs.length], group=self.names[owner])
        return document

    def _without_sentences(self, document: Document) -> Document | Rejection:
        """Removes all sentences that a run touches."""
        positions = _positions(document.text)
        points = code_points("".join(character for character, _ in positions))
        touched = np.zeros(len(document.text), bool)
        owners: list[str] = []
        for runs in self.runs:
            if (found := runs.find(points)) is not None:
                starts, owner = found
                owners.append(self.names[owner])
                for start in starts.tolist():
                    touched[positions[start][1] : positions[start + runs.length - 1][1] + 1] = True
        kept = [document.text[a:b] for a, b in split_sentences(document.text) if not touched[a:b].any()]
        text = "".join(kept).strip()
        if not squeezed(text):
            return Rejection("contaminated", document.text[:100], group=owners[0])
        return replace(document, text=text, changes=(*document.changes, f"sentences removed: {owners[0]}"))


def read_test_sets(config: DecontaminateConfig) -> KeptOut:
    """Reads the test sets.

    Raises:
        UserError: a test set is missing, or holds no text that is long enough to be looked for.
    """
    files = files_of(config.test_sets)
    gathered: dict[int, tuple[list[Hashes], list[int]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for owner, (name, path) in enumerate(files):
        looked_for = short = 0
        for text in texts_of(path):
            pieces = _pieces(text, config)
            looked_for += bool(pieces)
            short += not pieces
            for piece in pieces:
                length = min(len(piece), config.ngram)
                hashes, owners = gathered.setdefault(length, ([], []))
                found = ngram_hashes(code_points(piece), length)
                hashes.append(found)
                owners += [owner] * len(found)
        if not looked_for:
            raise UserError(
                f"{name}: holds no text of {config.min_characters} letters or more, so nothing of it would be found; "
                "is it a test set? (decontaminate.test_sets, decontaminate.min_characters)"
            )
        counts[name] = {"looked_for": looked_for, "too_short": short}
    runs = []
    for length, (listed, owners) in sorted(gathered.items(), reverse=True):
        unique, first = np.unique(np.concatenate(listed), return_index=True)
        runs.append(Runs(length, unique, np.array(owners, np.uint16)[first]))
    return KeptOut([name for name, _ in files], runs, counts, config.remove == "sentence")


def _pieces(text: str, config: DecontaminateConfig) -> list[str]:
    """A text as a whole, and its sentences as far as they are shorter than a run."""
    whole = squeezed(text)
    pieces = [whole] if len(whole) >= config.min_characters else []
    if len(whole) > config.ngram:
        sentences = [squeezed(text[start:end]) for start, end in split_sentences(text)]
        pieces += [piece for piece in sentences if config.min_characters <= len(piece) < config.ngram]
    return pieces


def _positions(text: str) -> list[tuple[str, int]]:
    """The characters of :func:`squeezed`, each with the place it comes from."""
    found = normalize(text, controls=False)
    return [
        (character, found.starts[i]) for i, given in enumerate(found.text) for character in squeezed(given)
    ]


def matches(report: dict[str, Any]) -> dict[str, int]:
    """Documents that met a test set, by test set, in a report."""
    found: dict[str, int] = report["total"].get("contaminated_by", {})
    return found
