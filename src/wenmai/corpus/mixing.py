"""``wenmai corpus mix``: so much of each source, shuffled.

How often a document comes is whole epochs of its source, and one more time if its draw says so. Its place is the order
of keyed hashes, so the mixture does not depend on the number of processes. Every part of the work is sorted by itself;
then the parts are read together, one range of keys after the other, so that a slice of the mixture is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from wenmai.corpus.counting import Counts, merged
from wenmai.corpus.documents import Document, draw, key
from wenmai.corpus.inputs import Chunk
from wenmai.corpus.parts import Parts, writing_bytes
from wenmai.corpus.reading import read_chunk
from wenmai.corpus.running import Job, readable
from wenmai.corpus.settings import MixConfig
from wenmai.corpus.writing import written
from wenmai.errors import ConfigError, Problem, UserError

Column = npt.NDArray[np.uint64]
SLICE_BYTES = 64 << 20


def mix(job: Job, config: MixConfig, seed: int) -> dict[str, Any]:
    """Writes the mixture.

    Args:
        job: its inputs are the paths of ``config.sources``, in their order.

    Returns:
        the report; of each source the weight, the epochs, and what came in and went out.

    Raises:
        UserError: a source is empty or would have to be repeated more than ``max_epochs`` times.
    """
    parts = job.open("mix", {**config.model_dump(mode="json"), "seed": seed})
    if parts.done:
        return parts.earlier_report()
    chunks = job.chunks(parts)
    names = {source.path: name for name, source in config.sources.items()}

    def count(number: int) -> dict[str, Any]:
        counts = {"documents": 0, "characters": 0}
        for document in readable(read_chunk(chunks[number], job.reading)):
            counts["documents"] += 1
            counts["characters"] += len(document.text)
        return counts

    counted = parts.each("counts", len(chunks), count, processes=job.processes, progress=job.progress)
    sizes = _by_source(config, chunks, counted, names)
    epochs = epochs_of(sizes, config)

    def part(number: int) -> dict[str, Any]:
        name = names[chunks[number].input.source]
        return _drawn(job, parts, chunks[number], number, name, epochs[name], seed)

    drawn = parts.each("mix", len(chunks), part, processes=job.processes, progress=job.progress)
    mixture = parts.folder / "mixture"
    with writing_bytes(mixture) as file:
        file.writelines(_shuffled(parts, drawn))
    report = _report(config, sizes, epochs, _by_source(config, chunks, drawn, names))
    return parts.finish(report, {job.output: [mixture]})


def _by_source(
    config: MixConfig, chunks: Sequence[Chunk], counts: Sequence[Counts], names: dict[str, str]
) -> dict[str, Counts]:
    paired = list(zip(chunks, counts, strict=True))
    return {
        name: merged(one for chunk, one in paired if names[chunk.input.source] == name)
        for name in config.sources
    }


def epochs_of(sizes: dict[str, Counts], config: MixConfig) -> dict[str, float]:
    """How often each source is read: target times share of the weights, over its size.

    Without weights, shares are sizes to the power 1 / temperature (Devlin et al. 2019, multilingual BERT); without a
    target, the mixture is as long as all sources together, or as the first source that runs out allows once.

    Raises:
        ConfigError: a source would come more often than ``max_epochs``; all such sources at once.
        UserError: a source has no documents.
    """
    unit = "documents" if config.documents is not None else "characters"
    amounts = {name: size.get(unit, 0) for name, size in sizes.items()}
    empty = [name for name, amount in amounts.items() if not amount]
    if empty:
        raise UserError(
            f"mix.sources: {', '.join(empty)}: no document can be read; remove the source or mend it"
        )
    shares = shares_of(amounts, config)
    target = config.characters or config.documents
    if target is None:
        # as long as possible without repeating anything
        target = int(min(amounts[name] / share for name, share in shares.items()))
    epochs = {name: target * share / amounts[name] for name, share in shares.items()}
    problems = [
        Problem(
            f"mix.sources.{name}",
            f"has {amounts[name]} {unit} and would be read {epoch:.1f} times; at most mix.max_epochs = "
            f"{config.max_epochs:g} are allowed; lower its weight or the target, or raise mix.max_epochs",
        )
        for name, epoch in epochs.items()
        if epoch > config.max_epochs
    ]
    if problems:
        raise ConfigError("the mixture can't be made", problems)
    return epochs


def shares_of(amounts: dict[str, int], config: MixConfig) -> dict[str, float]:
    """The share of each source in the mixture; they add up to 1."""
    weights = {
        name: source.weight if source.weight is not None else amounts[name] ** (1 / config.temperature)
        for name, source in config.sources.items()
    }
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def times(document: Document, name: str, epochs: float, seed: int) -> int:
    """How often a document comes."""
    return int(epochs) + (draw(seed, f"epoch:{name}", document.text) <= epochs % 1)


def _drawn(
    job: Job, parts: Parts, chunk: Chunk, number: int, name: str, epochs: float, seed: int
) -> dict[str, Any]:
    """Writes a part's documents in the order of their keys, and beside them the keys, and where each document ends."""
    found: list[tuple[int, int, bytes]] = []
    characters = 0
    for at, document in enumerate(readable(read_chunk(chunk, job.reading))):
        named = replace(document, fields={**document.fields, "source": name})
        line = written(named, job.form, job.reading.text_field).encode()
        for epoch in range(times(document, name, epochs, seed)):
            found.append((key(seed, f"place:{epoch}:{name}", document.text), at, line))
            characters += len(document.text)
    found.sort()
    with writing_bytes(parts.file("mix", number, "lines")) as file:
        file.writelines(line for _, _, line in found)
    ends = np.cumsum([len(line) for _, _, line in found], dtype=np.uint64)
    for name, column in (("keys", np.array([place for place, _, _ in found], np.uint64)), ("ends", ends)):
        with writing_bytes(parts.file("mix", number, name)) as file:
            file.write(column.tobytes())
    return {"documents": len(found), "characters": characters, "bytes": int(ends[-1]) if len(ends) else 0}


def _shuffled(parts: Parts, drawn: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """All lines in the order of their keys. Keys are spread evenly, so equal ranges of them are about equally long.

    Of a part's keys, which are in order, a slice reads only those where its own begin and end.
    """
    filled = [number for number, part in enumerate(drawn) if part["documents"]]
    slices = max(1, -(-sum(part["bytes"] for part in drawn) // SLICE_BYTES))
    bounds = [2**64 * i // slices for i in range(slices + 1)]
    for low, high in pairwise(bounds):
        keys: list[Column] = []
        lines: list[bytes] = []
        for number in filled:
            part = np.memmap(parts.file("mix", number, "keys"), np.uint64, "r")
            ends = np.memmap(parts.file("mix", number, "ends"), np.uint64, "r")
            start = int(np.searchsorted(part, np.uint64(low)))
            stop = int(np.searchsorted(part, np.uint64(high - 1), side="right"))
            first = int(ends[start - 1]) if start else 0
            cuts = [0, *(int(end) - first for end in ends[start:stop])]
            with parts.file("mix", number, "lines").open("rb") as file:
                file.seek(first)
                read = file.read(cuts[-1])
            lines += [read[a:b] for a, b in pairwise(cuts)]
            keys.append(np.array(part[start:stop]))
        # equal keys are equal texts: they keep the order of the input
        if keys:
            yield from (lines[i] for i in np.argsort(np.concatenate(keys), kind="stable").tolist())


def _report(
    config: MixConfig,
    sizes: dict[str, Counts],
    epochs: dict[str, float],
    drawn: dict[str, Counts],
) -> dict[str, Any]:
    unit = "documents" if config.documents is not None else "characters"
    shares = shares_of({name: size[unit] for name, size in sizes.items()}, config)
    sources = {
        name: {
            "weight": shares[name],
            "epochs": epochs[name],
            **{f"{what}_in": n for what, n in sizes[name].items()},
            **{f"{what}_out": drawn[name].get(what, 0) for what in ("documents", "characters", "bytes")},
        }
        for name in config.sources
    }
    names = ("documents_in", "characters_in", "documents_out", "characters_out", "bytes_out")
    return {"total": {name: sum(one[name] for one in sources.values()) for name in names}, "sources": sources}
