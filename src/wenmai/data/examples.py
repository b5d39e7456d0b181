"""Validated examples in an Arrow table: in memory while they are few, memory-mapped when they are many.

Only the JSON of a record is stored; the example is built anew each time it is asked for. So a million
examples cost the memory of a table, or none, and worker processes share it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from wenmai.atomic import writing
from wenmai.data.problems import problems_of
from wenmai.data.readers import ANNOTATION_FORMATS, SAMPLE, scan_records, source_format
from wenmai.data.records import Record, Rejected, Scanned, place
from wenmai.data.sources import Source
from wenmai.data.storage import RecordStore, StoredRecords
from wenmai.data.tables import scan_dataset, scan_frame, scan_rows
from wenmai.errors import DataError, Problem

GIVE_UP = 10_000
"""After so many bad records and no good one, the rest is not looked at: the format or the columns are set
wrongly.
"""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

E = TypeVar("E", bound=BaseModel)
Readable: TypeAlias = "Source | str | Path | Iterable[Mapping[str, Any]] | Any"
"""A source, a path, a pandas data frame, a ``datasets.Dataset``, or an iterable of dicts."""


class Examples(Sequence[E], Generic[E]):
    """Examples that passed validation, in the order of their source.

    Args:
        example_type: what an item is.
        stored: the records.
        indices: which of them, in which order; default: all.
        rejects: what was wrong with the records that were skipped.
    """

    def __init__(
        self,
        example_type: type[E],
        stored: StoredRecords,
        *,
        indices: NDArray[np.int64] | None = None,
        rejects: Sequence[Problem] = (),
    ):
        self.example_type = example_type
        self.rejects = list(rejects)
        self._stored = stored
        self._indices = indices

    def __len__(self) -> int:
        return len(self._stored) if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> Examples[E]: ...
    def __getitem__(self, index: int | slice) -> E | Examples[E]:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self.example_type.model_validate_json(self.record(index))

    def __iter__(self) -> Iterator[E]:
        for record in self._stored.records(self._indices):
            yield self.example_type.model_validate_json(record)

    def record(self, index: int) -> str:
        """The JSON that the example is made from."""
        return self._stored.record(self._position(index))

    def place(self, index: int) -> str:
        """Where the example comes from: ``train.jsonl:17``."""
        return place(*self._stored.origin(self._position(index)))

    def select(self, indices: Iterable[int]) -> Examples[E]:
        """Some of the examples, in the order of ``indices``; the records are shared, not copied."""
        chosen = np.fromiter(indices, dtype=np.int64)
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(outside):
            raise IndexError(f"example {outside[0]} of {len(self)}")
        chosen %= max(1, len(self))
        positions = chosen if self._indices is None else self._indices[chosen]
        return Examples(self.example_type, self._stored, indices=positions, rejects=self.rejects)

    @property
    def memory_mapped(self) -> bool:
        """Whether the records lie in a file rather than in memory."""
        return self._stored.memory_mapped

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        index %= len(self)
        return index if self._indices is None else int(self._indices[index])


@dataclass
class Collected(Generic[E]):
    """What reading one source came to, before it is decided whether bad records are an error."""

    name: str
    examples: Examples[E] | None
    bad: list[Rejected] = field(default_factory=list)


def read_examples(
    source: Readable,
    example_type: type[E],
    *,
    on_error: str = "raise",
    rejects_path: Path | None = None,
    cache: Path | None = None,
    require_labels: bool = False,
) -> Examples[E]:
    """Reads and validates everything before any work starts.

    Args:
        source: what to read; strings and paths are files whose format their ending tells.
        example_type: the task's ``Example``.
        on_error: ``raise``: one error with all bad records; ``skip``: leave them out.
        rejects_path: with ``skip``, where the bad records are written, a JSON object
            ``{"path", "line", "field", "reason", "record"}`` a line; not written if there are none.
        cache: folder for the memory-mapped file of large data; default: a temporary folder, gone at exit.
        require_labels: a record without labels is bad.

    Raises:
        DataError: bad records, or no good one.
    """
    collected = collect(
        source,
        example_type,
        keep_records=on_error == "skip",
        cache=cache,
        required="labelled" if require_labels else None,
    )
    return usable([collected], on_error=on_error, rejects_path=rejects_path)[0]


def collect(
    source: Readable,
    example_type: type[E],
    *,
    keep_records: bool,
    cache: Path | None,
    required: Literal["labelled", "learnable"] | None,
) -> Collected[E]:
    """Reads one source; bad records, and a source that can't be read at all, are told in the result.

    Args:
        keep_records: keep what bad records hold, in order to write it out.
        required: what a record must be, see ``Example``; None: it need not have labels.
    """
    if isinstance(source, str | Path):
        source = Source(path=str(source))
    name = source.path if isinstance(source, Source) else type(source).__name__
    bad: list[Rejected] = []
    try:
        with RecordStore(cache, key=repr(source) if isinstance(source, Source) else None) as store:
            for item in _validated(source, example_type, required):
                if isinstance(item, Rejected):
                    bad.append(item if keep_records else Rejected(item.problem, item.path, item.line))
                    if len(bad) >= GIVE_UP and not len(store):
                        break
                else:
                    store.add(*item)
            stored = store.finish()
    except DataError as error:
        bad.extend(Rejected(problem, name) for problem in error.problems)
        return Collected(name, None, bad)
    if not len(stored):
        if not bad:
            bad.append(Rejected(Problem(name, _nothing_left(source)), name))
        return Collected(name, None, bad)
    rejects = [item.problem for item in bad]
    return Collected(name, Examples(example_type, stored, rejects=rejects), bad)


def usable(results: Sequence[Collected[E]], *, on_error: str, rejects_path: Path | None) -> list[Examples[E]]:
    """The examples of all sources, once bad records are written out or refused.

    Raises:
        DataError: with the problems of all sources, if any has bad records and they are not to be skipped, or
            if a source has no good record.
    """
    problems = [item.problem for result in results for item in result.bad]
    good = [result.examples for result in results if result.examples is not None]
    skip = on_error == "skip"
    if problems and skip and rejects_path is not None:
        write_rejects((item for result in results for item in result.bad), rejects_path)
    none = ", ".join(result.name for result in results if result.examples is None)
    if problems and (not skip or none):
        names = ", ".join(result.name for result in results if result.bad)
        remedy = (
            f"no usable record in {none}"
            if none
            else "mend them, or set data.on_error: skip to go on without them"
        )
        raise DataError(f"{len(problems)} problem(s) in {names}; {remedy}:", problems)
    return good


def write_rejects(bad: Iterable[Rejected], path: Path) -> None:
    """Writes bad records as JSON lines; the file appears whole or not at all."""
    with writing(path) as file:
        for item in bad:
            entry = {
                "path": item.path,
                "line": item.line,
                "field": item.problem.field,
                "reason": item.problem.message,
                "record": item.record,
            }
            text = json.dumps(entry, ensure_ascii=False, default=repr)
            file.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def _validated(
    source: Readable, example_type: type[E], required: str | None
) -> Iterator[tuple[str, str, int | None] | Rejected]:
    """JSON, path and line of every good record."""
    columns = source.columns if isinstance(source, Source) else None
    known = example_type.model_fields if _fields_are_the_tools(source) else None
    for record in _scan(source):
        if isinstance(record, Rejected):
            yield record
            continue
        data = (
            record.data
            if known is None
            else {key: value for key, value in record.data.items() if key in known}
        )
        try:
            text = _ENCODER.encode(data)
            text.encode()
            example = example_type.model_validate_json(text)
        except ValidationError as error:
            for problem in problems_of(error, example_type, data, record.place, columns):
                yield Rejected(problem, record.path, record.line, record.data)
        except UnicodeEncodeError:
            yield _rejected(
                record, "holds half of a surrogate pair (\\ud800 to \\udfff): an emoji was cut in two"
            )
        except (TypeError, ValueError) as error:
            yield _rejected(record, f"can't be written as JSON: {error}")
        else:
            if required is not None and not getattr(example, required, True):
                yield _rejected(record, "has no labels, which training and scoring need")
            else:
                yield text, record.path, record.line


def _scan(source: Any) -> Scanned:
    if isinstance(source, Source):
        return scan_records(source)
    # neither package is imported here: who hands over its objects has imported it
    pandas, datasets = sys.modules.get("pandas"), sys.modules.get("datasets")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return scan_frame(source)
    if datasets is not None and isinstance(source, datasets.Dataset):
        return scan_dataset(source, "Dataset")
    return scan_rows(source, "records")


def _fields_are_the_tools(source: Readable) -> bool:
    if not isinstance(source, Source) or source.path.startswith(SAMPLE) or source.columns is not None:
        return False
    return source_format(source) in ANNOTATION_FORMATS


def _rejected(record: Record, message: str) -> Rejected:
    return Rejected(Problem(record.place, message), record.path, record.line, record.data)


def _nothing_left(source: Readable) -> str:
    if isinstance(source, Source) and (source.where is not None or source.rows is not None):
        return f"no record is left by data.rows: {source.rows} and data.where: {source.where}"
    return "holds no records"
