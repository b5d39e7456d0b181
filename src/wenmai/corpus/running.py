"""A list of steps over files: parts in several processes, one output, a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wenmai.atomic import writing
from wenmai.corpus.counting import Counter, report_of
from wenmai.corpus.documents import Document, Rejection, Step, apply
from wenmai.corpus.inputs import CHUNK_BYTES, Chunk, Input, chunks_of, content_of, find_files, unpack
from wenmai.corpus.parts import Parts, report_path
from wenmai.corpus.reading import Read, read_chunk
from wenmai.corpus.settings import ReadingConfig
from wenmai.corpus.writing import Form, form_of, written, written_reject
from wenmai.errors import DataError, Problem, UserError
from wenmai.progress import SILENT, Progress
from wenmai.version import __version__

UNREADABLE = ("not_json", "no_text", "undecodable", "oversized")


@dataclass(frozen=True)
class Job:
    """Which files become which file, and how the work is done.

    Args:
        inputs: files and folders.
        output: ends in ``.jsonl`` or ``.txt``; the report stands beside it.
        rejects: file for what is left out, with the reasons; None: it is counted only.
        chunk_bytes: size of a part of the work.
    """

    inputs: Sequence[str]
    output: Path
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    rejects: Path | None = None
    processes: int = 1
    resume: bool = False
    overwrite: bool = False
    chunk_bytes: int = CHUNK_BYTES
    progress: Progress = SILENT

    @property
    def form(self) -> Form:
        return form_of(self.output, self.reading.unit)

    def open(self, verb: str, settings: dict[str, Any], more_files: Sequence[str] = ()) -> Parts:
        """The folder of this job's parts; the key says all that its result depends on.

        Raises:
            UserError: a file would be written over that is read; or see :class:`~wenmai.corpus.parts.Parts`.
        """
        form_of(self.output, self.reading.unit)
        self._spare_what_is_read(more_files)
        key = {
            "verb": verb,
            "version": __version__,
            "settings": settings,
            "reading": self.reading.model_dump(mode="json"),
            "rejects": self.rejects is not None,
            "chunk_bytes": self.chunk_bytes,
            "inputs": content_of(self.inputs),
            "other files": content_of(more_files),
        }
        return Parts(self.output, key, resume=self.resume, overwrite=self.overwrite)

    def _spare_what_is_read(self, more_files: Sequence[str]) -> None:
        """Nothing that is written may stand in the place of something that is read, or of something else written.

        Raises:
            UserError: it would.
        """
        read = {path.resolve() for _, path in find_files([*self.inputs, *more_files])}
        written = [self.output, report_path(self.output), *([self.rejects] if self.rejects else [])]
        for path in written:
            if path.resolve() in read:
                raise UserError(
                    f"{path}: is one of the files that are read, and would be written over: name another --output"
                    + (" and --rejects" if self.rejects else "")
                )
        if self.rejects and self.rejects.resolve() in {path.resolve() for path in written[:2]}:
            raise UserError(f"{self.rejects}: is the output itself; name another file with --rejects")
        if self.rejects and self.rejects.exists() and not (self.resume or self.overwrite):
            raise UserError(
                f"{self.rejects}: is there already; name another file with --rejects, or --overwrite both"
            )

    def chunks(self, parts: Parts) -> list[Chunk]:
        return chunks_of(unpack(self.inputs, parts.folder, self.reading.encoding), self.chunk_bytes)


def run_steps(
    job: Job,
    verb: str,
    steps: Callable[[Parts, Sequence[Chunk]], Sequence[Step]],
    *,
    settings: dict[str, Any],
    more_files: Sequence[str] = (),
) -> dict[str, Any]:
    """Takes every document through the steps and writes those that are kept, in order.

    Args:
        steps: makes the steps; may look at the input and keep what it learns among the parts.
        settings: all that the steps depend on, beside the files.
        more_files: files that they depend on.

    Returns:
        the report: ``total`` and ``sources``.

    Raises:
        UserError: files can't be read or written; see :class:`~wenmai.corpus.parts.Parts` for earlier runs.
    """
    parts = job.open(verb, settings, more_files)
    if parts.done:
        return parts.earlier_report()
    chunks = job.chunks(parts)
    listed = list(steps(parts, chunks))

    def outcomes(number: int) -> Iterable[tuple[Document, Document | Rejection]]:
        for document, unreadable in read_chunk(chunks[number], job.reading):
            yield document, unreadable or apply(listed, document)

    return finish(job, parts, chunks, outcomes, verb)


def finish(
    job: Job,
    parts: Parts,
    chunks: Sequence[Chunk],
    outcomes: Callable[[int], Iterable[tuple[Document, Document | Rejection]]],
    stage: str,
    **report: Any,
) -> dict[str, Any]:
    """Writes what became of every document, by parts, joins the parts and writes the report.

    Args:
        outcomes: number of a chunk to its documents and what became of each.
        report: what else the report says.
    """

    def make(number: int) -> dict[str, Any]:
        counter = Counter()
        with (
            writing(parts.file(stage, number, "kept")) as kept,
            writing(parts.file(stage, number, "rejects")) as rejects,
        ):
            for document, outcome in outcomes(number):
                counter.came(document)
                if isinstance(outcome, Rejection):
                    counter.dropped(document.source, outcome)
                    if job.rejects:
                        rejects.write(written_reject(document, outcome))
                else:
                    counter.kept(outcome)
                    kept.write(written(outcome, job.form, job.reading.text_field))
        return counter.sources

    counts = parts.each(stage, len(chunks), make, processes=job.processes, progress=job.progress)
    found = {**report_of(counts), "files": _files([chunk.input for chunk in chunks]), **report}
    _refuse_unreadable(found)
    outputs = {job.output: [parts.file(stage, i, "kept") for i in range(len(chunks))]}
    if job.rejects:
        outputs[job.rejects] = [parts.file(stage, i, "rejects") for i in range(len(chunks))]
    return parts.finish(found, outputs)


def readable(reads: Iterable[Read]) -> Iterable[Document]:
    """The documents among them that can be read."""
    return (document for document, unreadable in reads if unreadable is None)


def _files(inputs: Sequence[Input]) -> dict[str, Any]:
    """How many files were read in which encoding; those that are not UTF-8 by name."""
    unique = {file.name: file.encoding for file in inputs}
    counts: dict[str, Any] = {}
    for encoding in unique.values():
        counts[encoding] = counts.get(encoding, 0) + 1
    other = {name: encoding for name, encoding in unique.items() if encoding != "utf-8"}
    return {"by_encoding": counts, "not_utf8": dict(list(other.items())[:1000])}


def _refuse_unreadable(report: dict[str, Any]) -> None:
    """Stops where the wrong field or format was named.

    Raises:
        DataError: no document at all of a source can be read.
    """
    problems = []
    for source, counts in report["sources"].items():
        dropped = counts.get("dropped", {})
        if counts["documents_in"] == sum(dropped.get(reason, 0) for reason in UNREADABLE):
            reasons = ", ".join(f"{reason}: {dropped[reason]}" for reason in UNREADABLE if reason in dropped)
            advice = "is it jsonl with a text in reading.text_field, or text in reading.encoding?"
            problems.append(Problem(source, f"none of its documents can be read ({reasons}); {advice}"))
    if problems:
        raise DataError("the corpus can't be read", problems)
