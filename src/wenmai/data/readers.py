"""Any source to records: finds the format, reads it as a stream, applies the options of ``data:``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wenmai.data.annotations import scan_cluener, scan_doccano, scan_label_studio, wrong_format
from wenmai.data.brat import scan_brat
from wenmai.data.conll import scan_conll
from wenmai.data.conllu import scan_conllu
from wenmai.data.fields import apply_reading
from wenmai.data.forms import ANNOTATIONS, form_format, scan_funsd, scan_xfund
from wenmai.data.hidden_pair import scan_hidden_pair
from wenmai.data.json_files import json_file_is_lines, scan_json, scan_jsonl
from wenmai.data.lines import missing
from wenmai.data.parallel_files import TOKENS, scan_parallel_files
from wenmai.data.question_files import question_format, scan_cmrc, scan_squad
from wenmai.data.records import Record, Rejected, Scanned, unreadable
from wenmai.data.sources import Format, Source
from wenmai.data.tables import scan_dataset_folder, scan_parquet, scan_table, scan_text
from wenmai.data.triples import FORMATS, scan_triples, triple_format
from wenmai.errors import DataError
from wenmai.samples import sample_records

SAMPLE = "sample:"

ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".bio": "conll",
    ".bmes": "conll",
    ".conllu": "conllu",
    ".txt": "text",
    ".parquet": "parquet",
}

ANNOTATION_FORMATS: frozenset[Format] = frozenset(
    {"label_studio", "doccano", "brat", "cluener", "squad", "cmrc", "funsd", "xfund", *FORMATS}
)
"""Formats whose fields the tool chose, not the user: a task takes those it knows."""

OWN_OFFSETS: frozenset[Format] = frozenset({"jsonl", "json", "parquet", "dataset", "doccano"})
"""Formats that carry offsets which nothing but the user knows the meaning of."""


def read_records(source: Source) -> Iterator[Record]:
    """The records of a source, one at a time.

    Raises:
        DataError: at the first record that can't be read; use ``read_examples`` to learn of all.
    """
    for record in scan_records(source):
        if isinstance(record, Rejected):
            raise DataError(f"{source.path} can't be read", [record.problem])
        yield record


def scan_records(source: Source) -> Scanned:
    """Good and bad records of a source, one at a time.

    Raises:
        DataError: the source as a whole can't be read: it is missing, empty, or in another format or
            encoding.
    """
    if source.path.startswith(SAMPLE):
        name, _, split = source.path.removeprefix(SAMPLE).partition("/")
        samples: Scanned = (Record(data, source.path, line) for line, data in sample_records(name, split))
        return apply_reading(samples, source, counts_ends=False)
    found = source_format(source)
    records = _scan(source, found)
    if found == "conll":  # there the columns are the file's, not fields of the record
        source = source.model_copy(update={"columns": None})
    return apply_reading(records, source, counts_ends=found in OWN_OFFSETS)


def source_format(source: Source) -> Format:
    """The format that is set, or that the file's ending and its first lines tell.

    Raises:
        DataError: the ending tells nothing, or the path does not exist.
    """
    if source.format != "auto":
        return source.format
    path = Path(source.path)
    if not path.exists():
        raise unreadable(source.path, missing(path))
    if path.is_dir():
        if any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
            return "dataset"
        if next(path.glob("*.ann"), None):
            return "brat"
        if (path / TOKENS).exists():
            return "parallel"
        if (path / ANNOTATIONS).is_dir():
            return "funsd"
        names = ", ".join(sorted(child.name for child in path.iterdir())[:5])
        raise unreadable(
            source.path,
            f"is a folder without .ann files (brat), {TOKENS} (parallel), {ANNOTATIONS}/ (funsd) or dataset_info.json: "
            "name a file; "
            f"it holds {names}",
        )
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise unreadable(
            source.path,
            f"the ending {ending!r} tells no format: set data.format to jsonl, json, csv, tsv, conll, conllu, text, "
            "parquet, label_studio, doccano, cluener, hidden_pair, squad, cmrc, spo_list, triple_list or xfund",
        )
    found = ENDINGS[ending]
    if found == "text" and source.delimiter:
        return "tsv"
    if found == "json" and json_file_is_lines(source.path, source.encoding):
        return "jsonl"
    return found


def _scan(source: Source, found: Format) -> Scanned:
    path, encoding = source.path, source.encoding
    columns = source.columns or {}
    match found:
        case "jsonl" | "json":
            records = scan_jsonl(path, encoding) if found == "jsonl" else scan_json(path, encoding)
            return _checked_shape(records) if source.format == "auto" else records
        case "csv" | "tsv":
            return _scan_table(source, found == "csv")
        case "conll":
            return _scan_conll(source)
        case "conllu":
            return scan_conllu(path, encoding)
        case "text":
            return scan_text(path, encoding, source.text_unit)
        case "parquet":
            return scan_parquet(path)
        case "dataset":
            return scan_dataset_folder(path)
        case "label_studio":
            return scan_label_studio(
                path, encoding, text_field=str(columns["text"]) if "text" in columns else None
            )
        case "doccano":
            return scan_doccano(path, encoding)
        case "brat":
            return scan_brat(path, encoding, discontinuous=source.discontinuous)
        case "cluener":
            return scan_cluener(path, encoding)
        case "parallel":
            return scan_parallel_files(path, encoding)
        case "hidden_pair":
            return scan_hidden_pair(path, encoding)
        case "squad":
            return scan_squad(path, encoding)
        case "cmrc":
            return scan_cmrc(path, encoding)
        case "spo_list" | "triple_list":
            return scan_triples(path, encoding, listed=found)
        case "funsd":
            return scan_funsd(path, encoding)
        case "xfund":
            return scan_xfund(path, encoding)
        case "auto":
            raise AssertionError("source_format tells the format")


def _checked_shape(records: Scanned) -> Scanned:
    """Stops at a record that is in an annotation tool's or a data set's form, which no task would understand."""
    for record in records:
        if isinstance(record, Record):
            shapes = (wrong_format, question_format, triple_format, form_format)
            name = next((found for shape in shapes if (found := shape(record.data))), None)
            if name:
                raise unreadable(
                    record.place, f"this record is in the form of {name}: set data.format: {name}"
                )
        yield record


def _scan_table(source: Source, quoted: bool) -> Scanned:
    """A table, with a header unless ``header`` says otherwise or all columns are given by number."""
    columns = source.columns or {}
    by_number = bool(columns) and all(isinstance(column, int) for column in columns.values())
    header = source.header if source.header is not None else not by_number
    if not header and not by_number:
        raise unreadable(
            source.path,
            "a table without a header needs columns by number: set data.columns, such as {text: 0, label: 1}",
        )
    delimiter = (source.delimiter or ("," if quoted else "\t")).replace("\\t", "\t")
    return scan_table(
        source.path,
        source.encoding,
        delimiter=delimiter,
        quoted=quoted,
        header=header,
        wanted=[*columns.values(), *(source.where or {})],
    )


def _scan_conll(source: Source) -> Scanned:
    columns = source.columns or {}
    numbers = {field: column for field, column in columns.items() if isinstance(column, int)}
    if numbers.keys() - {"text", "entities"} or len(numbers) != len(columns):
        raise unreadable(
            source.path,
            "data.columns of a conll file are the numbers of its token and tag: {text: 0, entities: 1}",
        )
    return scan_conll(
        source.path,
        source.encoding,
        delimiter=source.delimiter.replace("\\t", "\t") if source.delimiter else None,
        text_column=numbers.get("text", 0),
        tag_column=numbers.get("entities", -1),
    )
