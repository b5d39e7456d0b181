"""Raw text from files, line by line and as often as wanted: for what learns from more text than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from wenmai.data.json_files import scan_jsonl
from wenmai.data.lines import existing_file, read_lines
from wenmai.data.records import Rejected, unreadable
from wenmai.errors import DataError

Part = Literal["all", "learned", "held out"]


class Texts:
    """The texts of some files, in order; each iteration reads the files anew.

    Args:
        paths: text files, a text a line, and ``.jsonl`` files, a record a line. Blank lines are passed over.
        field: of the records, which holds the text.
        encoding: of the files.
        hold_out: of so many texts the first is held out; 0: none.
        part: which texts are wanted.

    Raises:
        DataError: a file is missing or empty, and while reading, a line is damaged or a record has no text.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        field: str = "text",
        encoding: str = "utf-8",
        hold_out: int = 0,
        part: Part = "all",
    ):
        self.paths = [str(path) for path in paths]
        self.field = field
        self.encoding = encoding
        self.hold_out = hold_out
        self.part = part
        for path in self.paths:
            existing_file(path)

    def __iter__(self) -> Iterator[str]:
        number = 0
        for path in self.paths:
            for text in self._records(path) if path.endswith(".jsonl") else self._lines(path):
                if text.strip():
                    held_out = self.hold_out > 0 and number % self.hold_out == 0
                    number += 1
                    if self.part == "all" or held_out == (self.part == "held out"):
                        yield text

    def _lines(self, path: str) -> Iterator[str]:
        for line in read_lines(path, self.encoding):
            if isinstance(line, Rejected):
                raise _unusable(line)
            yield line.text

    def _records(self, path: str) -> Iterator[str]:
        for record in scan_jsonl(path, self.encoding):
            if isinstance(record, Rejected):
                raise _unusable(record)
            text = record.data.get(self.field)
            if not isinstance(text, str):
                found = ", ".join(record.data) or "nothing"
                raise unreadable(
                    path, f"the record has no text there, it has {found}", line=record.line, field=self.field
                )
            yield text


def _unusable(line: Rejected) -> DataError:
    return DataError(f"{line.path} can't be read", [line.problem])
