"""``wenmai corpus stats``: how long, in which scripts, how often the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wenmai.corpus.counting import merged
from wenmai.corpus.dedup import bare, bare_key
from wenmai.corpus.inputs import CHUNK_BYTES, chunks_of, unpack
from wenmai.corpus.ngrams import code_points
from wenmai.corpus.reading import read_chunk
from wenmai.corpus.scripts import NAMES, script_counts
from wenmai.corpus.settings import ReadingConfig
from wenmai.processes import in_order
from wenmai.progress import SILENT, Progress

LENGTHS = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
"""Lower bounds of the histogram, in characters."""
FREQUENT = 20


def statistics(
    paths: Sequence[str],
    reading: ReadingConfig,
    *,
    processes: int = 1,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Numbers of a corpus, in all and by source; nothing is written but to a temporary folder.

    Args:
        paths: files and folders.

    Returns:
        ``total`` and ``sources`` with ``documents``, ``characters``, ``bytes``, ``unreadable``, ``lengths`` (lower
        bound -> documents) and ``scripts`` (name -> characters); ``duplicates``: documents that came before, but for
        punctuation and spaces; ``frequent``: the most frequent characters that are not spaces.

    Raises:
        UserError: a file can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="wenmai-stats-") as name:
        folder = Path(name)
        chunks = chunks_of(unpack(paths, folder, reading.encoding), CHUNK_BYTES)

        def look(number: int) -> dict[str, Any]:
            found: dict[str, Any] = {"documents": 0, "characters": 0, "bytes": 0, "unreadable": 0}
            lengths = np.zeros(len(LENGTHS), np.int64)
            scripts = np.zeros(len(NAMES), np.int64)
            points = np.zeros(0x110000, np.int64)
            keys = []
            for document, unreadable in read_chunk(chunks[number], reading):
                if unreadable is not None:
                    found["unreadable"] += 1
                    continue
                text = document.text
                found["documents"] += 1
                found["characters"] += len(text)
                found["bytes"] += len(text.encode())
                lengths[np.searchsorted(LENGTHS, len(text), side="right") - 1] += 1
                scripts += script_counts(text)
                np.add.at(points, code_points(text), 1)
                keys.append(bare_key(bare(text)))
            np.array(keys, np.uint64).tofile(folder / f"keys-{number}")
            used = np.flatnonzero(points)
            found["lengths"] = dict(zip(map(str, LENGTHS), lengths.tolist(), strict=True))
            found["scripts"] = dict(zip(NAMES, scripts.tolist(), strict=True))
            found["points"] = dict(zip(map(chr, used.tolist()), points[used].tolist(), strict=True))
            return found

        counts = []
        with progress.task("stats", len(chunks), "parts") as step:
            for one in in_order(look, len(chunks), processes):
                counts.append(one)
                step.advance()
        documents = sum(one["documents"] for one in counts)
        duplicates = documents - _distinct([folder / f"keys-{i}" for i in range(len(chunks))])
    points = merged(one.pop("points") for one in counts)
    sources: dict[str, Any] = {chunk.input.source: {} for chunk in chunks}
    for chunk, one in zip(chunks, counts, strict=True):
        sources[chunk.input.source] = merged([sources[chunk.input.source], one])
    frequent = sorted(points.items(), key=lambda item: (-item[1], item[0]))
    return {
        "total": merged(sources.values()),
        "sources": sources,
        "duplicates": duplicates,
        "distinct_characters": len(points),
        "frequent": dict([item for item in frequent if not item[0].isspace()][:FREQUENT]),
    }


def _distinct(files: Sequence[Path], bits: int = 4) -> int:
    """How many different keys there are; a sixteenth of them is in memory at a time."""
    total = 0
    for part in range(1 << bits):
        mine = []
        for file in files:
            keys = np.fromfile(file, np.uint64)
            mine.append(keys[keys >> np.uint64(64 - bits) == part])
        total += len(np.unique(np.concatenate(mine)))
    return total
