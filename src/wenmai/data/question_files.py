"""Files of questions on texts, as they are published: SQuAD's JSON, and the list of CMRC 2018.

Both nest questions in texts; here each question is a record with its context. An answer whose place is missing or
wrong is looked for: the only place where its text stands, or the one nearest to the place given. Where there are
several and the file says nothing, or the text does not stand in the context, the answer has no ``start``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wenmai.data.json_files import scan_json
from wenmai.data.records import Record, Rejected, Scanned, rejected

_Reader = Callable[[Mapping[str, Any], str, str, Record], Record | Rejected]


class _ShapeError(Exception):
    """What is not as the format has it."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def scan_squad(path: str, encoding: str) -> Scanned:
    """``{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}``

    Of version 1.1 or 2.0: ``is_impossible`` and an empty list both mean that there is no answer; no ``answers`` at all
    that it is not known.
    """
    for article in scan_json(path, encoding):
        if isinstance(article, Rejected):
            yield article
            continue
        try:
            paragraphs = _objects(article.data, "paragraphs", "")
        except _ShapeError as error:
            yield _refused(article, error, article.data)
            continue
        for i, paragraph in paragraphs:
            yield from _questions(paragraph, f"paragraphs[{i}]", "context", _squad, article)


def scan_cmrc(path: str, encoding: str) -> Scanned:
    """``[{"context_text", "qas": [{"query_id", "query_text", "answers": ["..."]}]}]``: answers without places."""
    for text in scan_json(path, encoding):
        if isinstance(text, Rejected):
            yield text
            continue
        yield from _questions(text.data, "", "context_text", _cmrc, text)


def question_format(data: Mapping[str, Any]) -> str | None:
    """The format that a record of a plain JSON file has the shape of, where it is one of this page's."""
    paragraphs = data.get("paragraphs")
    if isinstance(paragraphs, list) and paragraphs and isinstance(paragraphs[0], Mapping):
        return "squad"  # poems have paragraphs too, which are lines
    if isinstance(data.get("qas"), list):
        return "cmrc" if "context_text" in data else "squad"
    return None


def _questions(
    data: Mapping[str, Any], inside: str, key: str, read: _Reader, source: Record
) -> Iterator[Record | Rejected]:
    """Every question on one context; what is wrong with one leaves the others as they are.

    Args:
        inside: the field of the source that ``data`` is, for messages.
        key: of the context.
        read: makes a record of a question, its context, its field and its source.
    """
    try:
        context = _text(data, key, inside)
        asked = _objects(data, "qas", inside)
    except _ShapeError as error:
        yield _refused(source, error, data)
        return
    for j, question in asked:
        try:
            yield read(question, context, f"{inside}.qas[{j}]" if inside else f"qas[{j}]", source)
        except _ShapeError as error:
            yield _refused(source, error, question)


def _refused(source: Record, error: _ShapeError, record: Mapping[str, Any]) -> Rejected:
    return rejected(source.path, source.line, str(error), field=error.field, record=record)


def _squad(asked: Mapping[str, Any], context: str, field: str, article: Record) -> Record | Rejected:
    record = {"id": asked.get("id"), "context": context, "question": _text(asked, "question", field)}
    if asked.get("is_impossible"):
        return _record({**record, "answers": []}, article, field)
    if "answers" in asked:
        record["answers"] = [
            _located(context, _text(answer, "text", f"{field}.answers[{k}]"), answer.get("answer_start"))
            for k, answer in _objects(asked, "answers", field)
        ]
    return _record(record, article, field)


def _cmrc(asked: Mapping[str, Any], context: str, field: str, text: Record) -> Record | Rejected:
    record = {
        "id": asked.get("query_id"),
        "context": context,
        "question": _text(asked, "query_text", field),
    }
    if "answers" in asked:
        answers = asked["answers"]
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise _ShapeError(f"a list of texts is expected, not {answers!r}", f"{field}.answers")
        record["answers"] = [_located(context, answer, None) for answer in answers]
    return _record(record, text, field)


def _record(record: dict[str, Any], source: Record, field: str) -> Record | Rejected:
    """The record at a place by which it is found in a file of one line: that of its id."""
    path, line = source.path, source.line
    if record["id"] is None:
        del record["id"]
    else:
        path, line = f"{path}#{record['id']}", None
    answers = record.get("answers")
    if answers and not any(answer["text"] and answer["text"] in record["context"] for answer in answers):
        told = f"none of the answers stands in the context: {', '.join(repr(a['text']) for a in answers)}"
        return rejected(path, line, told, field=f"{field}.answers", record=record)
    return Record(record, path, line)


def _located(context: str, text: str, given: object) -> dict[str, Any]:
    start = given if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else None
    if start is not None and context.startswith(text, start):
        return {"text": text, "start": start}
    places = list(occurrences(context, text))
    if len(places) == 1:
        return {"text": text, "start": places[0]}
    if places and start is not None:
        return {"text": text, "start": min(places, key=lambda place: abs(place - start))}
    return {"text": text}


def occurrences(context: str, text: str) -> Iterator[int]:
    """Where a text stands in another, overlapping places too; an empty one stands nowhere."""
    at = context.find(text) if text else -1
    while at >= 0:
        yield at
        at = context.find(text, at + 1)


def _text(data: Mapping[str, Any], key: str, inside: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        field = f"{inside}.{key}" if inside else key
        raise _ShapeError("missing" if value is None else f"a text is expected, not {value!r}", field)
    return value


def _objects(data: Mapping[str, Any], key: str, inside: str) -> list[tuple[int, Mapping[str, Any]]]:
    items = data.get(key)
    if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
        raise _ShapeError("a list of objects is expected", f"{inside}.{key}" if inside else key)
    return list(enumerate(items))
