"""The verbs that run a list of steps: clean, and keeping test sets out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wenmai.corpus import quality
from wenmai.corpus.cleaning import cleaning_steps
from wenmai.corpus.contamination import read_test_sets
from wenmai.corpus.documents import Document, Rejection, Step, apply
from wenmai.corpus.inputs import Chunk, chunks_of, unpack
from wenmai.corpus.parts import Parts
from wenmai.corpus.reading import read_chunk
from wenmai.corpus.running import Job, readable, run_steps
from wenmai.corpus.settings import CorpusConfig
from wenmai.corpus.test_sets import files_of

_SAMPLED_CHUNKS = 32


def clean(job: Job, config: CorpusConfig) -> dict[str, Any]:
    """Mends and filters documents; with ``decontaminate.test_sets``, keeps these out too.

    Returns:
        the report; see :func:`wenmai.corpus.running.run_steps`.

    Raises:
        UserError: a file, test set or package is missing.
    """
    good = config.clean.quality.good if config.clean.quality else []

    def steps(parts: Parts, chunks: Sequence[Chunk]) -> list[Step]:
        listed = cleaning_steps(config.clean)
        if config.clean.quality is not None:
            listed.append(_classifier(job, config, parts, chunks, listed))
        if config.decontaminate.test_sets:
            listed.append(read_test_sets(config.decontaminate))
        return listed

    settings = config.model_dump(mode="json", include={"clean", "decontaminate", "seed"})
    return run_steps(job, "clean", steps, settings=settings, more_files=[*good, *_test_files(config)])


def decontaminate(job: Job, config: CorpusConfig) -> dict[str, Any]:
    """Keeps test sets out and changes nothing else.

    Raises:
        UserError: a file or test set is missing.
    """
    settings = config.model_dump(mode="json", include={"decontaminate"})
    return run_steps(
        job,
        "decontaminate",
        lambda parts, chunks: [read_test_sets(config.decontaminate)],
        settings=settings,
        more_files=_test_files(config),
    )


def _test_files(config: CorpusConfig) -> list[str]:
    return [str(path) for _, path in files_of(config.decontaminate.test_sets)]


def _classifier(
    job: Job, config: CorpusConfig, parts: Parts, chunks: Sequence[Chunk], before: Sequence[Step]
) -> Step:
    """The trained classifier: kept among the parts, so that a resumed run has the very same."""
    settings = config.clean.quality
    assert settings is not None
    path = parts.folder / "quality.safetensors"
    if not path.exists():
        good = chunks_of(unpack(settings.good, _folder(parts), job.reading.encoding), job.chunk_bytes)
        texts = [
            quality.sampled(_cleaned(job, pieces, before), settings.documents, config.seed)
            for pieces in (good, _some(chunks, config.seed))
        ]
        model = quality.train(
            texts[0],
            texts[1],
            buckets=settings.buckets,
            regularization=settings.regularization,
            alpha=settings.alpha,
            seed=config.seed,
        )
        quality.save(model, path)
    return quality.load(path)


def _folder(parts: Parts) -> Path:
    folder = parts.folder / "good"
    folder.mkdir(exist_ok=True)
    return folder


def _some(chunks: Sequence[Chunk], seed: int) -> list[Chunk]:
    """Enough of a large corpus to learn from."""
    if len(chunks) <= _SAMPLED_CHUNKS:
        return list(chunks)
    return random.Random(seed).sample(list(chunks), _SAMPLED_CHUNKS)


def _cleaned(job: Job, chunks: Sequence[Chunk], steps: Sequence[Step]) -> Iterator[Document]:
    for chunk in chunks:
        for document in readable(read_chunk(chunk, job.reading)):
            outcome = apply(steps, document)
            if not isinstance(outcome, Rejection):
                yield outcome
