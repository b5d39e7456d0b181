"""Forms as FUNSD and XFUND publish them: pages of words with boxes, in entities that are linked.

FUNSD (Jaume et al. 2019, arXiv:1905.13538): a folder of JSON files, a page each. XFUND (Xu et al. 2021,
arXiv:2104.08836): one JSON file of many pages, the same inside. What both label ``other`` is no entity.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wenmai.data.json_files import scan_json
from wenmai.data.lines import Line, missing, read_lines, read_whole
from wenmai.data.records import Record, Rejected, Scanned, rejected, unreadable
from wenmai.errors import DataError

OTHER = "other"
ANNOTATIONS, IMAGES, SIZES = "annotations", "images", "image_sizes.tsv"
KEY_BEHIND = frozenset({("answer", "question"), ("question", "header"), ("answer", "header")})
"""Labels of links that name the value before its key, which XFUND has in places."""
PNG = b"\x89PNG\r\n\x1a\n"

Size = tuple[int, int]


class _ShapeError(Exception):
    """What is not as the format has it."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def scan_funsd(path: str, encoding: str) -> Scanned:
    """``{"id", "words", "width", "height", "entities", "links"}`` of every page, in the order of their names.

    The sizes of pages, which the annotations lack, are those of the PNG images beside them, or stand in
    ``image_sizes.tsv`` (``image``, ``width``, ``height``) there or in a folder above.

    Args:
        path: a folder with ``annotations/`` (and ``images/``), or the folder of the annotations.
    """
    folder = Path(path)
    if not folder.is_dir():
        message = "is a file: funsd is a folder of .json files" if folder.exists() else missing(folder)
        raise unreadable(path, message)
    inside = folder / ANNOTATIONS if (folder / ANNOTATIONS).is_dir() else folder
    files = sorted(inside.glob("*.json"))
    if not files:
        raise unreadable(path, f"holds no .json files, and no folder {ANNOTATIONS} that does")
    sizes = _listed_sizes(inside, encoding)
    for file in files:
        try:
            page = json.loads(read_whole(str(file), encoding))
        except DataError as error:
            yield Rejected(error.problems[0], str(file))
            continue
        except ValueError as error:
            yield rejected(str(file), None, f"is not JSON: {error}")
            continue
        size = _image_size(inside.parent / IMAGES / f"{file.stem}.png") or sizes.get(file.stem)
        if size is None:
            told = (
                f"the size of its page is unknown: {IMAGES}/{file.stem}.png beside {inside.name}, or a line of {SIZES} "
                "(image, width and height, between tabs) is needed to scale its boxes"
            )
            yield rejected(str(file), None, told)
            continue
        yield _record(page, "form", file.stem, size, str(file), None)


def scan_xfund(path: str, encoding: str) -> Scanned:
    """The same from ``{"documents": [{"id", "document": [...], "img": {"width", "height"}}]}``."""
    for found in scan_json(path, encoding):
        if isinstance(found, Rejected):
            yield found
            continue
        page = found.data
        image = page.get("img")
        if not isinstance(image, Mapping):
            image = {}
        size = (image.get("width"), image.get("height"))
        if not all(isinstance(side, int) and side > 0 for side in size):
            yield rejected(path, found.line, f"width and height are expected, not {size}", field="img")
            continue
        place = path if page.get("id") is None else f"{path}#{page['id']}"
        yield _record(
            page, "document", page.get("id"), size, place, None if page.get("id") is not None else found.line
        )


def form_format(data: Mapping[str, Any]) -> str | None:
    """The format that a record of a plain JSON file has the shape of, where it is one of this page's."""
    if isinstance(data.get("document"), list) and "img" in data:
        return "xfund"
    return (
        "funsd" if isinstance(data.get("form"), list) or {"linking", "words", "box"} <= data.keys() else None
    )


def _record(
    page: object, key: str, name: object, size: tuple[Any, Any], path: str, line: int | None
) -> Record | Rejected:
    try:
        if not isinstance(page, Mapping):
            raise _ShapeError(f"an object with {key} is expected", key)
        width, height = size
        record = {"id": name, "width": width, "height": height, **_page(_objects(page, key, ""), key)}
    except _ShapeError as error:
        return rejected(path, line, str(error), field=error.field)
    return Record(record, path, line)


def _page(parts: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Words, entities and links from the entries of a page.

    Words without a visible character are left out, and so are entries without a word and their links.
    """
    words: list[dict[str, Any]] = []
    entities: list[dict[str, Any]] = []
    numbers: dict[Any, int] = {}
    links: dict[tuple[Any, Any], None] = {}
    for index, part in enumerate(parts):
        field = f"{key}[{index}]"
        label = part.get("label")
        if not isinstance(label, str):
            raise _ShapeError(
                "missing" if label is None else f"a text is expected, not {label!r}", f"{field}.label"
            )
        segment = {"segment_box": part["box"]} if part.get("box") else {}
        own = [
            {"text": word["text"], "box": word.get("box"), **segment}
            for word in _objects(part, "words", field)
            if isinstance(word.get("text"), str) and word["text"].strip()
        ]
        links.update((pair, None) for pair in _pairs(part, field))
        if own and label.lower() != OTHER:
            numbers[part.get("id")] = len(entities)
            entities.append({"words": [*range(len(words), len(words) + len(own))], "label": label})
        words += own
    return {"words": words, "entities": entities, "links": list(_numbered(links, numbers, entities))}


def _pairs(part: Mapping[str, Any], field: str) -> Iterator[tuple[Any, Any]]:
    linking = part.get("linking", [])
    if not isinstance(linking, list) or not all(isinstance(p, list) and len(p) == 2 for p in linking):
        raise _ShapeError("a list of pairs of ids is expected", f"{field}.linking")
    yield from ((first, second) for first, second in linking)


def _numbered(
    links: Mapping[tuple[Any, Any], None], numbers: Mapping[Any, int], entities: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, int]]:
    """Links by the numbers of their entities, each once; those to what is no entity are left out."""
    seen = set()
    for pair in links:
        if pair[0] not in numbers or pair[1] not in numbers or pair[0] == pair[1]:
            continue
        key, value = numbers[pair[0]], numbers[pair[1]]
        if (entities[key]["label"].lower(), entities[value]["label"].lower()) in KEY_BEHIND:
            key, value = value, key
        if (key, value) not in seen:
            seen.add((key, value))
            yield {"key": key, "value": value}


def _objects(data: Mapping[str, Any], key: str, inside: str) -> list[Mapping[str, Any]]:
    items = data.get(key)
    if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
        raise _ShapeError("a list of objects is expected", f"{inside}.{key}" if inside else key)
    return items


def _listed_sizes(folder: Path, encoding: str) -> dict[str, Size]:
    """Width and height by the image's name without its ending.

    Names are read with their folders, so that one list may hold several splits.
    """
    listed = next((f for f in (up / SIZES for up in (folder, *folder.parents[:2])) if f.is_file()), None)
    if listed is None:
        return {}
    rows = [line.text.split("\t") for line in read_lines(str(listed), encoding) if isinstance(line, Line)]
    split = folder.parent.name if folder.name == ANNOTATIONS else folder.name
    sizes: dict[str, Size] = {}
    for image, width, height in (
        row for row in rows if len(row) == 3 and row[1].isdigit() and row[2].isdigit()
    ):
        if split in Path(image).parts[:-1] or Path(image).stem not in sizes:
            sizes[Path(image).stem] = int(width), int(height)
    return sizes


def _image_size(path: Path) -> Size | None:
    """Width and height of a PNG image, from its first bytes; None without an image."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or not head.startswith(PNG):
        return None
    width, height = struct.unpack(">II", head[16:24])
    return int(width), int(height)
