"""Tables: csv and tsv, Parquet, saved datasets, data frames, and plain text as a table of one column."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from wenmai.data.lines import Line, existing_file, missing, read_lines
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable
from wenmai.errors import UserError

BATCH = 1000
LONGEST_CELL = 1 << 30

TextUnit = Literal["line", "document"]


def scan_text(path: str, encoding: str, unit: TextUnit) -> Scanned:
    """``{"text"}`` of every line that is not empty, or of all lines up to the next empty one."""
    document: list[Line] = []
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):
            yield line
        elif not line.text.strip():
            yield from _document(document, path)
            document = []
        elif unit == "line":
            yield Record({"text": line.text}, path, line.number)
        else:
            document.append(line)
    yield from _document(document, path)


def _document(lines: list[Line], path: str) -> Iterator[Record]:
    if lines:
        yield Record({"text": "\n".join(line.text for line in lines)}, path, lines[0].number)


def scan_table(
    path: str, encoding: str, *, delimiter: str, quoted: bool, header: bool, wanted: Sequence[str | int] = ()
) -> Scanned:
    """A record a row; cells are texts, and an empty cell is a field that is not given.

    Args:
        delimiter: what stands between columns.
        quoted: a cell in double quotes may hold delimiters and line ends, as in csv; else a quote is a
            character.
        header: the first row names the columns; else they are called ``"0"``, ``"1"`` ...
        wanted: columns that must be there; those asked for by number are under it as well as under their
            name.
    """
    rows = _quoted_rows(path, encoding, delimiter) if quoted else _plain_rows(path, encoding, delimiter)
    names: list[str] | None = None
    numbers: list[int] = []
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        number, cells = row
        if names is None:
            names = _column_names(cells, path, number) if header else [str(i) for i in range(len(cells))]
            numbers = _checked_columns(names, wanted, path, number)
            if header:
                continue
        if len(cells) != len(names):
            expected = f"the {'header' if header else 'first row'} has {len(names)}"
            remedy = "is a delimiter missing, or one inside a text that is not quoted?"
            yield rejected(path, number, f"{len(cells)} columns, but {expected}: {remedy}", record=cells)
        else:
            data: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
            data.update((str(i), cells[i]) for i in numbers if cells[i])
            yield Record(data, path, number)


def _plain_rows(path: str, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]] | Rejected]:
    for line in read_lines(path, encoding):
        if isinstance(line, Rejected):
            yield line
        elif line.text:
            yield line.number, line.text.split(delimiter)


def _quoted_rows(path: str, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]] | Rejected]:
    """Rows with the number of the line they start in; a row with a damaged line inside is left out for it."""
    damaged: list[Rejected] = []

    def texts() -> Iterator[str]:
        for line in read_lines(path, encoding):
            if isinstance(line, Rejected):
                damaged.append(line)
                yield "\n"  # keeps the count of lines right; an empty row is passed over
            else:
                yield line.text + "\n"

    if len(delimiter) != 1:
        raise unreadable(
            "data.delimiter", f"one character is expected for csv, not {delimiter!r}; tsv takes any text"
        )
    csv.field_size_limit(LONGEST_CELL)  # the module's own limit of 128 KiB is for the whole process
    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            yield from damaged
            return
        except csv.Error as error:
            yield rejected(path, start, _csv_reason(error))
        else:
            if cells and not damaged:  # a damaged line may lie inside a quoted cell of this row
                yield start, cells
        yield from damaged
        damaged.clear()


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return (
            'a quote " opens in this row and is never closed: close it, or set data.format: tsv (no quoting)'
        )
    if "new-line character" in str(error):
        return (
            "a carriage return (CR) stands alone in a cell without quotes: remove it, put the cell into quotes, "
            "or set data.format: tsv (no quoting)"
        )
    return f'{error}: a quote " inside a quoted cell is written twice; or set data.format: tsv (no quoting)'


def _column_names(cells: Sequence[str], path: str, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        where = [str(i) for i, name in enumerate(names) if name == twice[0]]
        raise unreadable(
            path,
            f"the header names {twice[0]!r} twice (columns {', '.join(where)}): rename one, "
            "or set data.header: false and data.columns by number",
            line=line,
        )
    return names


def _checked_columns(names: Sequence[str], wanted: Sequence[str | int], path: str, line: int) -> list[int]:
    """The columns asked for by number, once all that are asked for are known to be there."""
    for column in wanted:
        if isinstance(column, int) and not 0 <= column < len(names):
            raise unreadable(
                path,
                f"there is no column {column}: the row has {len(names)}, numbered from 0 to {len(names) - 1}",
                line=line,
            )
        if isinstance(column, str) and column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise unreadable(
                path, f"there is no column {column!r}; {hint}the columns are {', '.join(names)}", line=line
            )
    return [column for column in wanted if isinstance(column, int)]


def scan_parquet(path: str) -> Scanned:
    """The rows of a Parquet file, a batch at a time; their number counts from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = existing_file(path)
    try:
        table = pq.ParquetFile(file)
        batches = (batch.to_pylist() for batch in table.iter_batches(batch_size=BATCH))
        yield from scan_rows((row for batch in batches for row in batch), path)
    except pa.ArrowException as error:
        raise unreadable(path, f"is no readable Parquet file: {str(error).splitlines()[0]}") from error


def scan_dataset_folder(path: str) -> Scanned:
    """The rows of a folder that ``datasets.Dataset.save_to_disk`` wrote, memory-mapped."""
    import datasets  # takes a second to import, which only those who read such folders should wait

    folder = Path(path)
    if not folder.exists():
        raise unreadable(path, missing(folder))
    if (folder / "dataset_dict.json").exists():
        splits = sorted(child.name for child in folder.iterdir() if child.is_dir())
        raise unreadable(
            path, f"holds the splits {', '.join(splits)}: name one, such as {folder / splits[0]}"
        )
    try:
        saved = datasets.load_from_disk(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, f"is no folder written by Dataset.save_to_disk: {error}") from error
    yield from scan_dataset(saved, path)


def scan_dataset(dataset: Any, path: str) -> Scanned:
    """The rows of a ``datasets.Dataset``; the numbers of a ``ClassLabel`` become its names."""
    names = {key: feature.names for key, feature in dataset.features.items() if hasattr(feature, "names")}
    batches = dataset.with_format(None).iter(batch_size=BATCH)
    rows = (
        dict(zip(batch, cells, strict=True))
        for batch in batches
        for cells in zip(*batch.values(), strict=True)
    )
    yield from scan_rows((_named(row, names) for row in rows), path)


def _named(row: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    for key, known in names.items():
        number = row[key]
        row[key] = (
            known[number] if number is not None and number >= 0 else None
        )  # -1: hidden label of a test set
    return row


def scan_frame(frame: Any, path: str = "DataFrame") -> Scanned:
    """The rows of a pandas data frame; NaN and None are cells that are not given."""
    columns = [str(column) for column in frame.columns]
    rows = (dict(zip(columns, cells, strict=True)) for cells in frame.itertuples(index=False, name=None))
    given = ({key: value for key, value in row.items() if not _is_missing(value)} for row in rows)
    yield from scan_rows(given, path)


def scan_rows(rows: Iterable[Any], path: str) -> Scanned:
    """Records from mappings; a None is a field that is not given, numpy scalars and dates become plain
    values.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            yield rejected(path, number, f"a dict is expected, not {type(row).__name__}", record=repr(row))
            continue
        try:
            yield Record(
                {str(key): _plain(value) for key, value in row.items() if value is not None}, path, number
            )
        except _NotPlainError as error:
            yield rejected(
                path, number, str(error), record={str(key): repr(value) for key, value in row.items()}
            )


class _NotPlainError(UserError):
    """A value that no JSON record can hold."""


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotPlainError(f"{value} is not a number: write null, or leave the field out")
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, date):
        return value.isoformat()
    raise _NotPlainError(
        f"a value of type {type(value).__name__} can't be used: text, numbers and lists of them can"
    )


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )
