"""Documents and rejects as lines of a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from wenmai.corpus.documents import Document, Rejection
from wenmai.errors import UserError

Form = Literal["jsonl", "line", "document"]
_OF_REJECTS = ("reason", "detail", "place", "text")
_EMPTY_LINES = re.compile(r"\n\s*\n")


def form_of(output: Path, unit: Literal["line", "document"]) -> Form:
    """How documents are written, by the file's ending.

    Raises:
        UserError: it ends neither in .jsonl nor in .txt.
    """
    if output.suffix == ".jsonl":
        return "jsonl"
    if output.suffix == ".txt":
        return unit
    raise UserError(f"{output}: an output ends in .jsonl (keeps other fields) or .txt")


def written(document: Document, form: Form, text_field: str) -> str:
    """A document as it stands in the file; in ``.txt`` as the reader with the same ``unit`` finds it again."""
    if form == "jsonl":
        return json.dumps({text_field: document.text, **document.fields}, ensure_ascii=False) + "\n"
    if form == "line":
        return " ".join(document.text.split("\n")) + "\n"
    return _EMPTY_LINES.sub("\n", document.text.strip("\n")) + "\n\n"


def written_reject(document: Document, rejection: Rejection) -> str:
    """A line of the file of ``--rejects``."""
    record = {
        "reason": rejection.reason,
        "detail": rejection.detail,
        "place": document.place,
        "text": document.text,
        **{name: value for name, value in document.fields.items() if name not in _OF_REJECTS},
    }
    return json.dumps(record, ensure_ascii=False) + "\n"
