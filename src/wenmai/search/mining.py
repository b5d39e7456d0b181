"""Hard negatives: of each anchor the most similar texts that do not belong to it.

Random texts of a step soon teach nothing; those that the model confuses do (Karpukhin et al. 2020; Xiong et al. 2021).
Many of the nearest are positives that nobody marked, so texts are passed over

* that the data joins with the anchor, over any number of pairs: what belongs to my positive belongs to me
* that read like one of those: the same letters and digits, whatever their width, case, blanks and punctuation
* that are nearly as similar to the anchor as its positive (positive-aware mining, Moreira et al. 2024)

and of what is left the first ranks may be passed over too. The search is exact.
"""

from __future__ import annotations

import tempfile
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wenmai.errors import UserError
from wenmai.inference.embedder import Embedder
from wenmai.progress import SILENT, Progress
from wenmai.search.nearest import nearest
from wenmai.tasks.embedding_example import TextEmbeddingExample
from wenmai.tasks.task import Prediction

Ints = NDArray[np.int64]
ANCHORS_AT_ONCE = 4096
UNKNOWN = -1


@dataclass(frozen=True)
class Mining:
    """Which negatives are wanted.

    Args:
        count: negatives an anchor, at most.
        first_rank, last_rank: of what is left after passing over, from 1; both included.
        margin: a negative's similarity is less than the positive's minus this.
        choice: ``nearest``: the first ranks; ``random``: any of them.
        positive_score: pairs of at least this score belong together; of others both texts are only searched.
        seed: of what is drawn.
    """

    count: int = 5
    first_rank: int = 1
    last_rank: int = 50
    margin: float = 0.0
    choice: str = "nearest"
    positive_score: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        if not 1 <= self.first_rank <= self.last_rank:
            raise UserError(
                f"ranks {self.first_rank} to {self.last_rank}: expected the first rank, from 1, and the last"
            )
        if self.count > self.last_rank - self.first_rank + 1:
            raise UserError(
                f"{self.count} negatives an anchor: ranks {self.first_rank} to {self.last_rank} are only "
                f"{self.last_rank - self.first_rank + 1}"
            )


def mine_negatives(
    embedder: Embedder,
    examples: Sequence[TextEmbeddingExample],
    corpus: Iterable[str] | None,
    settings: Mining,
    *,
    progress: Progress = SILENT,
) -> Iterator[Prediction]:
    """The examples that have a positive, with negatives: records that ``text_embedding`` reads.

    Negatives that an example has stay, before the new ones. Vectors lie in a temporary file, so memory holds a few
    numbers a text and one block of similarities.

    Args:
        examples: anchors with positives, and pairs with a score.
        corpus: texts to search, beside which nothing else is; None: all texts of the examples.

    Raises:
        UserError: no example has a positive, or there is nothing to search.
    """
    pairs = [i for i, example in enumerate(examples) if _pair_of(example, settings) is not None]
    if not pairs:
        raise UserError(
            "no record has a positive: give 'anchor' and 'positive', or 'text', 'text_pair' and a 'score' of at least "
            f"{settings.positive_score:g} (--positive-score)"
        )
    kinds = _Kinds()
    for i in pairs:
        kinds.join(*_pair(examples[i], settings))
    given = corpus if corpus is not None else (text for example in examples for text in example.texts)
    with tempfile.TemporaryDirectory(prefix="wenmai-") as folder:
        searched = _Searched(Path(folder), embedder, given, kinds, progress)
        if not len(searched):
            raise UserError("there is no text to search for negatives: give a corpus")
        with closing(searched), progress.task("searching", len(pairs), "anchors") as step:
            for at in range(0, len(pairs), ANCHORS_AT_ONCE):
                some = pairs[at : at + ANCHORS_AT_ONCE]
                yield from _mined(embedder, [examples[i] for i in some], some, searched, kinds, settings)
                step.advance(len(some))


def normal_form(text: str) -> str:
    """A text's letters and digits, in one width and case; of a text without any, the text."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in plain if character.isalnum()) or plain.strip()


class _Kinds:
    """Texts by what they mean, as far as positives say: a number for each set of texts that pairs join."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._parent: list[int] = []

    def of(self, key: bytes) -> int:
        """The kind of texts with this key; -1 if no pair has one of them."""
        number = self._number.get(key, UNKNOWN)
        if number == UNKNOWN:
            return UNKNOWN
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, *texts: str) -> None:
        """These texts belong together."""
        keys = [_key(text) for text in texts]
        for key in keys:
            if self._number.setdefault(key, len(self._parent)) == len(self._parent):
                self._parent.append(len(self._parent))
        for key in keys[1:]:
            self._parent[self.of(keys[0])] = self.of(key)


def _key(text: str) -> bytes:
    """The same for texts of the same normal form."""
    return blake2b(normal_form(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()


class _Searched:
    """Different texts, their kinds and their vectors: texts and vectors in files, some 100 bytes a text in memory.

    Args:
        folder: gets the files.
        texts: of those with the same normal form the first is kept.
    """

    def __init__(
        self, folder: Path, embedder: Embedder, texts: Iterable[str], kinds: _Kinds, progress: Progress
    ):
        self._text_file = (folder / "texts").open("w+b")
        self._ends, numbers = array("q"), array("q")
        with (
            (folder / "vectors").open("wb") as vector_file,
            progress.task("embedding", None, "texts") as step,
        ):
            for block in embedder.blocks(self._noted(texts, kinds, numbers)):
                vector_file.write(block.tobytes())
                step.advance(len(block))
        self._text_file.flush()
        self.kinds_N: Ints = np.array(numbers, dtype=np.int64)
        shape = (len(numbers), embedder.width)
        self.vectors_ND: NDArray[np.float32] = (
            np.memmap(folder / "vectors", np.float32, "r", shape=shape)
            if numbers
            else np.zeros(shape, np.float32)
        )

    def __len__(self) -> int:
        return len(self._ends)

    def close(self) -> None:
        """Lets the files go."""
        del self.vectors_ND
        self._text_file.close()

    def text(self, number: int) -> str:
        start = self._ends[number - 1] if number else 0
        self._text_file.seek(start)
        return self._text_file.read(self._ends[number] - start).decode("utf-8", "surrogatepass")

    def _noted(self, texts: Iterable[str], kinds: _Kinds, numbers: array[int]) -> Iterator[str]:
        seen: set[bytes] = set()
        written = 0
        for text in texts:
            key = _key(text)
            if key in seen or not text.strip():
                continue
            seen.add(key)
            written += self._text_file.write(text.encode("utf-8", "surrogatepass"))
            self._ends.append(written)
            numbers.append(kinds.of(key))
            yield text


def _mined(
    embedder: Embedder,
    examples: Sequence[TextEmbeddingExample],
    numbers: Sequence[int],
    searched: _Searched,
    kinds: _Kinds,
    settings: Mining,
) -> Iterator[Prediction]:
    """Args: numbers: of the examples in their file, which what is drawn depends on."""
    pairs = [_pair(example, settings) for example in examples]
    anchors_QD, positives_QD = (embedder.vectors(pair[side] for pair in pairs) for side in (0, 1))
    below_Q = (anchors_QD * positives_QD).sum(axis=1) - np.float32(settings.margin)
    found = nearest(
        anchors_QD,
        searched.vectors_ND,
        min(settings.last_rank, len(searched)),
        below_Q=below_Q,
        kinds_Q=np.array([kinds.of(_key(anchor)) for anchor, _ in pairs]),
        kinds_N=searched.kinds_N,
    )
    pick = _picker(settings)
    for example, number, (anchor, positive), row in zip(
        examples, numbers, pairs, found.index_QK, strict=True
    ):
        ranked = row[row >= 0][settings.first_rank - 1 :]
        mined = [searched.text(int(i)) for i in pick(ranked, number)]
        known = [*example.negatives]
        record: Prediction = {} if example.id is None else {"id": example.id}
        yield {
            **record,
            "anchor": anchor,
            "positive": positive,
            "negatives": [*known, *(text for text in mined if text not in known)],
        }


def _picker(settings: Mining) -> Callable[[Ints, int], Ints]:
    if settings.choice == "nearest":
        return lambda ranked, number: ranked[: settings.count]

    def drawn(ranked: Ints, number: int) -> Ints:
        rng = np.random.default_rng([settings.seed, number])
        chosen: Ints = ranked[np.sort(rng.permutation(len(ranked))[: settings.count])]
        return chosen

    return drawn


def _pair_of(example: TextEmbeddingExample, settings: Mining) -> tuple[str, str] | None:
    """Anchor and positive of an example, if it has a positive."""
    if example.anchor is not None and example.positive is not None:
        return example.anchor, example.positive
    if example.text is None or example.text_pair is None or example.score is None:
        return None
    return (example.text, example.text_pair) if example.score >= settings.positive_score else None


def _pair(example: TextEmbeddingExample, settings: Mining) -> tuple[str, str]:
    found = _pair_of(example, settings)
    assert found is not None
    return found
