"""What annotation tools export, and CLUENER's own form: Label Studio JSON, doccano JSONL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wenmai.data.json_files import json_file_is_lines, scan_json, scan_jsonl
from wenmai.data.records import Record, Rejected, Scanned, rejected

Entity = dict[str, Any]


class _NotThisShapeError(Exception):
    """A record does not have the shape of its format; the message says what was expected."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


def scan_cluener(path: str, encoding: str) -> Scanned:
    """``{"text", "label": {type: {surface: [[start, end], ...]}}}`` with ends ON the last character."""
    yield from _converted(scan_jsonl(path, encoding), _cluener)


def scan_doccano(path: str, encoding: str) -> Scanned:
    """``"label": [[start, end, label], ...]``, ``"label": ["positive"]``, or ``"entities"`` with
    ``"relations"``.
    """
    yield from _converted(scan_jsonl(path, encoding), _doccano)


def scan_label_studio(path: str, encoding: str, *, text_field: str | None = None) -> Scanned:
    """The full JSON export: spans, choices and relations of the one annotation that counts.

    Label Studio counts in UTF-16 units in some versions and in characters in others; the surface that it
    exports beside the offsets decides.

    Args:
        text_field: the field of ``data`` that is annotated; default: ``text``, or the only text there.
    """
    scan = scan_jsonl if json_file_is_lines(path, encoding) else scan_json
    yield from _converted(scan(path, encoding), lambda data: _label_studio(data, text_field))


def wrong_format(data: Mapping[str, Any]) -> str | None:
    """The format that a record of a plain JSON file has the shape of, where it is one of this page's."""
    label = data.get("label")
    if isinstance(label, dict) and label and all(isinstance(surfaces, dict) for surfaces in label.values()):
        return "cluener"
    if isinstance(label, list) and label and all(_is_triple(item) for item in label):
        return "doccano"
    entities = data.get("entities")
    if isinstance(entities, list) and any(
        isinstance(item, dict) and "start_offset" in item for item in entities
    ):
        return "doccano"
    if isinstance(data.get("annotations"), list) and isinstance(data.get("data"), dict):
        return "label_studio"
    return None


def _converted(records: Scanned, convert: Any) -> Scanned:
    for record in records:
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield Record(convert(record.data), record.path, record.line)
        except _NotThisShapeError as error:
            yield rejected(record.path, record.line, str(error), field=error.field, record=record.data)


def _cluener(data: dict[str, Any]) -> dict[str, Any]:
    text = _text(data, "text")
    record: dict[str, Any] = {key: value for key, value in data.items() if key != "label"}
    if "label" not in data:
        return record
    entities: list[Entity] = []
    for label, surfaces in _mapping(data["label"], "label").items():
        for surface, ranges in _mapping(surfaces, f"label.{label}").items():
            field = f"label.{label}.{surface}"
            for item in ranges if isinstance(ranges, list) else [ranges]:
                if not (isinstance(item, list) and len(item) == 2 and all(isinstance(i, int) for i in item)):
                    raise _NotThisShapeError(f"[start, end] is expected, not {item!r}", field)
                start, end = item[0], item[1] + 1
                found = text[max(start, 0) : end]
                if found != surface:
                    message = (
                        f"{item} is {found!r} in the text, not {surface!r}; the end is ON the last character"
                    )
                    raise _NotThisShapeError(message, field)
                entities.append({"start": start, "end": end, "label": label})
    return {**record, "entities": sorted(entities, key=lambda entity: (entity["start"], entity["end"]))}


def _doccano(data: dict[str, Any]) -> dict[str, Any]:
    record = {
        key: value for key, value in data.items() if key not in ("label", "labels", "entities", "relations")
    }
    record["text"] = _text(data, "text" if "text" in data else "data")
    if "entities" in data or "relations" in data:
        spans = {
            item.get("id", i): _doccano_span(item, f"entities[{i}]") for i, item in _objects(data, "entities")
        }
        record["entities"] = list(spans.values())
        record["relations"] = [
            {
                "subject": _end_of(spans, item, "from_id", f"relations[{i}]"),
                "predicate": item.get("type"),
                "object": _end_of(spans, item, "to_id", f"relations[{i}]"),
            }
            for i, item in _objects(data, "relations")
        ]
        return record
    key = "label" if "label" in data else "labels"
    labels = data.get(key)
    if labels is None:
        return record
    if not isinstance(labels, list):
        raise _NotThisShapeError(
            f"a list of [start, end, label] or of labels is expected, not {labels!r}", key
        )
    if all(_is_triple(item) for item in labels):
        record["entities"] = [{"start": start, "end": end, "label": label} for start, end, label in labels]
    elif all(isinstance(item, str) for item in labels):
        record.update({"label": labels[0]} if len(labels) == 1 else {"labels": labels})
    else:
        raise _NotThisShapeError("a list of [start, end, label] or of labels is expected, not a mixture", key)
    return record


def _doccano_span(item: Mapping[str, Any], field: str) -> Entity:
    try:
        return {"start": item["start_offset"], "end": item["end_offset"], "label": item["label"]}
    except KeyError as error:
        raise _NotThisShapeError(
            f"{error.args[0]} is missing: start_offset, end_offset and label are needed", field
        ) from error


def _label_studio(data: dict[str, Any], text_field: str | None) -> dict[str, Any]:
    if not isinstance(data.get("data"), dict) or not isinstance(data.get("annotations"), list):
        raise _NotThisShapeError(
            "'data' and 'annotations' are expected: export as JSON (not JSON-MIN or CSV)"
        )
    fields: dict[str, Any] = data["data"]
    texts = [key for key, value in fields.items() if isinstance(value, str)]
    chosen = text_field or ("text" if "text" in fields or len(texts) != 1 else texts[0])
    text = _text(fields, chosen)
    record: dict[str, Any] = {**fields, "text": text}
    if "id" in data:
        record["id"] = data["id"]
    annotation = _one_annotation([item for _, item in _objects(data, "annotations")])
    if annotation is None:
        return record
    spans: dict[str, Entity] = {}
    choices: list[str] = []
    relations = []
    results = [item for _, item in _objects(annotation, "result")]
    for i, item in enumerate(results):
        kind = item.get("type")
        if kind == "labels":
            value = _mapping(item.get("value"), f"result[{i}].value")
            spans[str(item.get("id", i))] = _label_studio_span(text, value, f"result[{i}]")
        elif kind == "choices":
            choices.extend(_mapping(item.get("value"), f"result[{i}].value").get("choices", []))
        elif kind == "relation":
            relations.append((i, item))
        else:
            raise _NotThisShapeError(
                f"{kind!r} can't be used: labels, choices and relations can", f"result[{i}].type"
            )
    if choices:
        record.update({"label": choices[0]} if len(choices) == 1 else {"labels": choices})
    if spans or not choices:
        record["entities"] = sorted(spans.values(), key=lambda span: (span["start"], span["end"]))
    if relations:
        record["relations"] = [
            {"subject": subject, "predicate": predicate, "object": target}
            for i, item in relations
            for subject, target in _directed(
                _end_of(spans, item, "from_id", f"result[{i}]"),
                _end_of(spans, item, "to_id", f"result[{i}]"),
                item.get("direction", "right"),
            )
            for predicate in item.get("labels") or [""]
        ]
    return record


def _one_annotation(annotations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation that counts: the ground truth, else the only one that was not cancelled."""
    done = [item for item in annotations if not item.get("was_cancelled")]
    done = [item for item in done if item.get("ground_truth")] or done
    if len(done) > 1:
        raise _NotThisShapeError(
            f"{len(done)} annotations of the same text: mark one as ground truth, or export only one",
            "annotations",
        )
    return done[0] if done else None


def _label_studio_span(text: str, value: Mapping[str, Any], field: str) -> Entity:
    start, end, surface, labels = (value.get(key) for key in ("start", "end", "text", "labels"))
    if not (
        isinstance(start, int) and isinstance(end, int) and isinstance(labels, list) and len(labels) == 1
    ):
        raise _NotThisShapeError(
            "whole numbers start and end and exactly one label are expected", f"{field}.value"
        )
    if surface is not None and text[start:end] != surface:
        units = text.encode("utf-16-le", "surrogatepass")
        first = len(units[: 2 * start].decode("utf-16-le", "surrogatepass"))
        same = units[2 * start : 2 * end] == str(surface).encode("utf-16-le", "surrogatepass")
        if not (same and text.startswith(str(surface), first)):  # not, where a border cuts an emoji in two
            message = (
                f"{start}:{end} is {text[start:end]!r} in the text, not {surface!r}: was the text changed?"
            )
            raise _NotThisShapeError(message, f"{field}.value")
        start, end = first, first + len(str(surface))
    return {"start": start, "end": end, "label": labels[0]}


def _directed(subject: Entity, target: Entity, direction: str) -> list[tuple[Entity, Entity]]:
    forward, backward = (subject, target), (target, subject)
    return {"left": [backward], "bi": [forward, backward]}.get(direction, [forward])


def _end_of(spans: Mapping[Any, Entity], item: Mapping[str, Any], key: str, field: str) -> Entity:
    if item.get(key) not in spans:
        raise _NotThisShapeError(f"{item.get(key)!r} is none of the record's entities", f"{field}.{key}")
    return spans[item[key]]


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise _NotThisShapeError("missing" if value is None else f"a text is expected, not {value!r}", key)
    return value


def _mapping(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _NotThisShapeError(f"an object is expected, not {value!r}", field)
    return value


def _objects(data: Mapping[str, Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
    items = data.get(key) or []
    if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
        raise _NotThisShapeError("a list of objects is expected", key)
    return list(enumerate(items))


def _is_triple(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 3 and isinstance(item[0], int) and isinstance(item[2], str)
