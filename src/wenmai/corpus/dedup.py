"""``wenmai corpus dedup``: of documents that are the same, or nearly, the first in input order stays.

Three stages: signatures of every part (several processes), families of all documents (one process, keys from the disk),
and the parts written again without the others (several processes). On the disk they need 8 bytes and, for near
duplicates, about 600 bytes a document beside the output (128 permutations).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from wenmai.corpus.contamination import squeezed
from wenmai.corpus.documents import Document, Rejection, key
from wenmai.corpus.families import Families, OnDisk, Rows, join_equal, join_similar, starts_of
from wenmai.corpus.inputs import Chunk
from wenmai.corpus.minhash import band_keys, bands, shingles, signatures
from wenmai.corpus.ngrams import Hashes
from wenmai.corpus.parts import Parts, join, writing_bytes
from wenmai.corpus.reading import read_chunk
from wenmai.corpus.running import Job, finish, readable
from wenmai.corpus.settings import DedupConfig, ReadingConfig

_BATCH = 1000


def dedup(job: Job, config: DedupConfig) -> dict[str, Any]:
    """Writes the first document of every family.

    Returns:
        the report; ``duplicates`` says how many families there are and how near duplicates were looked for.

    Raises:
        UserError: see :func:`wenmai.corpus.running.run_steps`.
    """
    parts = job.open("dedup", config.model_dump(mode="json"))
    if parts.done:
        return parts.earlier_report()
    chunks = job.chunks(parts)

    def sign(number: int) -> dict[str, Any]:
        return _sign(parts, chunks[number], number, job.reading, config)

    signed = parts.each("signatures", len(chunks), sign, processes=job.processes, progress=job.progress)
    starts = starts_of([part["documents"] for part in signed])
    exact, near, found = _families(parts, starts, config)

    def outcomes(number: int) -> Iterable[tuple[Document, Document | Rejection]]:
        row = int(starts[number])
        for document, unreadable in read_chunk(chunks[number], job.reading):
            if unreadable is None:
                yield document, _outcome(document, row, int(exact[row]), int(near[row]))
                row += 1
            else:
                yield document, unreadable

    return finish(job, parts, chunks, outcomes, "dedup", duplicates=found)


def bare(text: str) -> str:
    """Letters and digits; a text without any stays as it is."""
    return squeezed(text) or text


def bare_key(text: str) -> int:
    """Equal for equal texts, and else once in 2^64 pairs.

    Args:
        text: of :func:`bare`.
    """
    return key(0, "dedup", text)


def _outcome(document: Document, row: int, exact: int, near: int) -> Document | Rejection:
    if exact != row:
        return Rejection("exact_duplicate", f"of document {exact} of the input, counted from 0")
    if near != row:
        return Rejection("near_duplicate", f"of document {near} of the input, counted from 0")
    return document


def _sign(
    parts: Parts, chunk: Chunk, number: int, reading: ReadingConfig, config: DedupConfig
) -> dict[str, Any]:
    """Writes the keys and signatures of a chunk's documents."""
    b, r = bands(config.threshold, config.permutations)
    texts = (bare(document.text) for document in readable(read_chunk(chunk, reading)))
    exact: list[int] = []
    keys: list[Hashes] = []
    with writing_bytes(parts.file("signatures", number, "rows")) as file:
        while batch := list(islice(texts, _BATCH)):
            exact += [bare_key(text) for text in batch]
            if config.near:
                signed = signatures([shingles(text, config.ngram) for text in batch], config.permutations)
                _write(file, signed)
                keys.append(band_keys(signed, b, r))
    with writing_bytes(parts.file("signatures", number, "keys")) as file:
        _write(file, np.array(exact, np.uint64))
        if keys:
            _write(file, np.concatenate(keys, axis=1))
    return {"documents": len(exact)}


def _families(parts: Parts, starts: Rows, config: DedupConfig) -> tuple[Rows, Rows, dict[str, Any]]:
    """Number of the first equal, and of the first similar document, of every document."""
    count = int(starts[-1])
    families = Families(count)
    join_equal(families, partial(_keys, parts, starts, 0), count)
    exact = families.first.copy()
    found: dict[str, Any] = {"exact_duplicates": int((exact != np.arange(count)).sum())}
    if not config.near or not count:
        return exact, exact, found
    b, r = bands(config.threshold, config.permutations)
    joined = parts.folder / "signatures.rows"
    # deleted part by part would need the parts again after a kill: twice the disk for a while is the smaller evil
    join([parts.file("signatures", i, "rows") for i in range(len(starts) - 1)], joined)
    rows_of = OnDisk(joined, config.permutations)
    compared = 0
    for band in range(b):
        slices = partial(_keys, parts, starts, band + 1, exact)
        compared += join_similar(families, slices, count, rows_of, config.threshold)
    near = int((families.first != exact).sum())
    found |= {"in_families_of_near_duplicates": near, "bands": b, "values_in_a_band": r, "compared": compared}
    return exact, families.first, found


def _keys(parts: Parts, starts: Rows, band: int, exact: Rows | None = None) -> Iterator[tuple[Hashes, Rows]]:
    """A band's keys, part by part; with ``exact`` only those of documents that are the first of their equals."""
    for part, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        count = stop - start
        path: Path = parts.file("signatures", part, "keys")
        keys = np.fromfile(path, np.uint64, count, offset=8 * band * count)
        rows = np.arange(start, stop, dtype=np.int64)
        if exact is None:
            yield keys, rows
        else:
            first = exact[start:stop] == rows
            yield keys[first], rows[first]


def _write(file: IO[bytes], values: npt.NDArray[Any] | Sequence[Any]) -> None:
    file.write(np.ascontiguousarray(values).tobytes())
