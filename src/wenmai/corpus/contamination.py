"""Sentences of test sets in the corpus: found by runs of characters, left out.

Brown et al. 2020 (https://arxiv.org/abs/2005.14165, appendix C) remove what shares 13 words with a test set. Here a
document is met if it shares ``ngram`` characters in a row with a text of a test set (13 characters are about 8 words:
stricter), or holds a whole test sentence that is shorter, down to ``min_characters``. Only letters and digits count,
whatever their case, and after Unicode NFKC, so punctuation, spaces and width hide nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wenmai.corpus.documents import Document, Rejection
from wenmai.corpus.ngrams import Hashes, code_points, growing_hashes, ngram_hashes
from wenmai.corpus.settings import DecontaminateConfig
from wenmai.corpus.test_sets import files_of, texts_of
from wenmai.errors import UserError
from wenmai.text.normalize import normalize
from wenmai.text.sentences import split_sentences

_MASK = np.uint64((1 << 22) - 1)
_IGNORED = re.compile(r"[\W_]+")


def squeezed(text: str) -> str:
    """Letters and digits only, NFKC, without case; of each character by itself, as it depends on no neighbour.

    Not in lower case: a Greek sigma at the end of a word has another small letter than inside.
    """
    return _IGNORED.sub("", unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True)
class Runs:
    """The runs of one length that must not come.

    Args:
        length: characters in a run.
        hashes: sorted, shape (runs,).
        owners: number of the first test set that has the run, shape (runs,).
        maybe: whether a run's hash may end in these bits, shape (2^22,): nearly all runs of a text end their search
            here, without a look at ``hashes``.
    """

    length: int
    hashes: Hashes
    owners: npt.NDArray[np.uint16]
    maybe: npt.NDArray[np.bool_]

    def find(self, hashes: Hashes) -> tuple[npt.NDArray[np.int64], int] | None:
        """Where runs begin in a text, and the owner of the first; None if there are none.

        Args:
            hashes: of all runs of this length in the text.
        """
        possible = np.flatnonzero(self.maybe[hashes & _MASK])
        if not len(possible):
            return None
        hashes = hashes[possible]
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        met = self.hashes[at] == hashes
        return (possible[met], int(self.owners[at[met][0]])) if met.any() else None


@dataclass(frozen=True)
class KeptOut:
    """The test sets as a step.

    Args:
        names: of the files.
        runs: by length, growing: whole short sentences, and at last the runs of ``ngram`` characters.
        starts: all runs of the shortest length in the test texts: without one of them, nothing longer is met.
        sentences: how many texts each file holds that are long enough, and how many are too short.
    """

    names: list[str]
    runs: list[Runs]
    sentences: dict[str, dict[str, int]]
    starts: Runs
    remove_sentences: bool

    def __call__(self, document: Document) -> Document | Rejection:
        text = squeezed(document.text)
        points = code_points(text)
        if self.starts.find(ngram_hashes(points, self.starts.length)) is None:
            return document
        for runs, found in self._found(points):
            if self.remove_sentences:
                return self._without_sentences(document)
            start, owner = int(found[0][0]), found[1]
            return Rejection("contaminated", text[start : start + runs.length], group=self.names[owner])
        return document

    def _found(
        self, points: npt.NDArray[np.uint32]
    ) -> Iterator[tuple[Runs, tuple[npt.NDArray[np.int64], int]]]:
        for runs, (_, hashes) in zip(
            self.runs, growing_hashes(points, [runs.length for runs in self.runs]), strict=True
        ):
            if (found := runs.find(hashes)) is not None:
                yield runs, found

    def _without_sentences(self, document: Document) -> Document | Rejection:
        """Removes all sentences that a run touches."""
        positions = _positions(document.text)
        points = code_points("".join(character for character, _ in positions))
        touched = np.zeros(len(document.text), bool)
        owners: list[str] = []
        for runs, (starts, owner) in self._found(points):
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
    starts: list[Hashes] = []
    counts: dict[str, dict[str, int]] = {}
    seen: set[str] = set()
    for owner, (name, path) in enumerate(files):
        looked_for = short = 0
        for text in texts_of(path):
            pieces = _pieces(text, config)
            looked_for += bool(pieces)
            short += not pieces
            for piece in dict.fromkeys(pieces):
                if piece in seen:
                    continue
                seen.add(piece)
                length = min(len(piece), config.ngram)
                hashes, owners = gathered.setdefault(length, ([], []))
                found = ngram_hashes(code_points(piece), length)
                hashes.append(found)
                owners += [owner] * len(found)
                starts.append(ngram_hashes(code_points(piece), config.min_characters))
        if not looked_for:
            raise UserError(
                f"{name}: holds no text of {config.min_characters} letters or more, so nothing of it would be found; "
                "is it a test set? (decontaminate.test_sets, decontaminate.min_characters)"
            )
        counts[name] = {"looked_for": looked_for, "too_short": short}
    return KeptOut(
        [name for name, _ in files],
        [_runs(length, *gathered[length]) for length in sorted(gathered)],
        counts,
        _runs(config.min_characters, starts, []),
        config.remove == "sentence",
    )


def _runs(length: int, listed: list[Hashes], owners: list[int]) -> Runs:
    hashes, first = np.unique(np.concatenate(listed), return_index=True)
    maybe = np.zeros(int(_MASK) + 1, bool)
    maybe[hashes & _MASK] = True
    owned = np.array(owners, np.uint16)[first] if owners else np.zeros(len(hashes), np.uint16)
    return Runs(length, hashes, owned, maybe)


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
