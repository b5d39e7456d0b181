"""FUNSD and XFUND as they are published: pages with their sizes, entities with links, and what is wrong with a file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from wenmai.data.examples import read_examples
from wenmai.data.forms import PNG
from wenmai.data.readers import read_records
from wenmai.data.sources import Source
from wenmai.errors import DataError
from wenmai.tasks.layout_example import DocumentLayoutExample


def entry(number: int, label: str, *words: str, linking: Any = (), left: int = 10) -> dict[str, Any]:
    boxes = [[left + 20 * i, 10 * number, left + 20 * i + 15, 10 * number + 8] for i in range(len(words))]
    return {
        "id": number,
        "label": label,
        "box": [left, 10 * number, left + 20 * len(words), 10 * number + 8],
        "text": " ".join(words),
        "words": [{"text": word, "box": box} for word, box in zip(words, boxes, strict=True)],
        "linking": list(linking),
    }


FORM = [
    entry(0, "header", "Order", "Form", linking=[[0, 1]]),
    entry(1, "question", "Name:", linking=[[0, 1], [1, 2]]),
    entry(2, "answer", "R", "&", "D", "", linking=[[1, 2]]),
    entry(3, "other", "page", "1", linking=[[1, 3]]),
    entry(4, "answer", " ", linking=[[1, 4]]),
]


def write_page(folder: Path, name: str, form: object) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    text = form if isinstance(form, str) else json.dumps({"form": form})
    (folder / "annotations" / f"{name}.json").write_text(text, encoding="utf-8")


def write_image(folder: Path, name: str, width: int, height: int) -> None:
    (folder / "images").mkdir(exist_ok=True)
    head = PNG + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 0, 0, 0, 0)
    (folder / "images" / f"{name}.png").write_bytes(head)


def problems(path: Path, **reading: Any) -> list[str]:
    with pytest.raises(DataError) as error:
        read_examples(Source(path=str(path), **reading), DocumentLayoutExample)
    return [str(problem).removeprefix(f"{path}/") for problem in error.value.problems]


@pytest.mark.parametrize("form", ["auto", "funsd"])
def test_a_funsd_page(tmp_path: Path, form: Any) -> None:
    write_page(tmp_path, "0001", FORM)
    write_image(tmp_path, "0001", 754, 1000)
    (record,) = read_records(Source(path=str(tmp_path), format=form))
    assert (record.data["id"], record.data["width"], record.data["height"]) == ("0001", 754, 1000)
    # words without a character are gone, those of "other" are words of the page
    assert [word["text"] for word in record.data["words"]] == [
        "Order",
        "Form",
        "Name:",
        "R",
        "&",
        "D",
        "page",
        "1",
    ]
    assert record.data["words"][3] == {"text": "R", "box": [10, 20, 25, 28], "segment_box": [10, 20, 90, 28]}
    assert record.data["entities"] == [
        {"words": [0, 1], "label": "header"},
        {"words": [2], "label": "question"},
        {"words": [3, 4, 5], "label": "answer"},
    ]
    # each link once, though both ends name it; none to what is no entity
    assert record.data["links"] == [{"key": 0, "value": 1}, {"key": 1, "value": 2}]
    (example,) = read_examples(Source(path=str(tmp_path), format=form), DocumentLayoutExample)
    assert [example.text[span.start : span.end] for span in example.spans] == ["Order Form", "Name:", "R&D"]


def test_sizes_from_a_list_of_several_splits(tmp_path: Path) -> None:
    for split in ("training_data", "testing_data"):
        write_page(tmp_path / split, "0001", FORM)
    rows = [
        "image\twidth\theight",
        "testing_data/images/0001.png\t754\t1000",
        "training_data/images/0001.png\t762\t900",
    ]
    (tmp_path / "image_sizes.tsv").write_text("\n".join(rows), encoding="utf-8")
    for split, size in (("training_data", (762, 900)), ("testing_data", (754, 1000))):
        for path in (tmp_path / split, tmp_path / split / "annotations"):
            (record,) = read_records(Source(path=str(path), format="funsd"))
            assert (record.data["width"], record.data["height"]) == size


def test_what_is_wrong_with_funsd_files(tmp_path: Path) -> None:
    write_page(tmp_path, "1", FORM)
    assert "the size of its page is unknown: images/1.png beside annotations" in problems(tmp_path)[0]
    for name in "2345":
        write_image(tmp_path, name, 100, 100)
    write_page(tmp_path, "2", '{"form": [')
    write_page(tmp_path, "3", [{**FORM[0], "words": "Order"}])
    write_page(tmp_path, "4", [{"words": [], "linking": []}])
    write_page(tmp_path, "5", [{**FORM[0], "linking": [[0]]}])
    found = problems(tmp_path)
    assert found[1].startswith("annotations/2.json: is not JSON")
    assert found[2:] == [
        "annotations/3.json: form[0].words: a list of objects is expected",
        "annotations/4.json: form[0].label: missing",
        "annotations/5.json: form[0].linking: a list of pairs of ids is expected",
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no .json files" in problems(empty, format="funsd")[0]
    assert "is a file: funsd is a folder" in problems(tmp_path / "annotations" / "1.json", format="funsd")[0]
    assert "does not exist" in problems(tmp_path / "no", format="funsd")[0]


def xfund(*pages: dict[str, Any]) -> dict[str, Any]:
    return {"lang": "zh", "version": "0.1", "split": "train", "documents": list(pages)}


PAGE = {
    "id": "zh_train_0",
    "uid": "0ac1",
    "img": {"fname": "zh_train_0.jpg", "width": 200, "height": 300},
    "document": [
        entry(0, "header", *"登记表"),
        entry(1, "question", *"姓名：", linking=[[1, 2]]),
        entry(2, "answer", *"王小明", linking=[[1, 2]], left=90),
        # the value is named first
        entry(4, "answer", *"2026", "年", linking=[[4, 3]], left=90),
        entry(3, "question", *"日期", linking=[[4, 3]]),
    ],
}


def test_xfund_pages_in_chinese(tmp_path: Path) -> None:
    path = tmp_path / "zh.train.json"
    path.write_text(
        json.dumps(xfund(PAGE, {**PAGE, "id": "zh_train_1"}), ensure_ascii=False), encoding="utf-8"
    )
    first, second = read_examples(Source(path=str(path), format="xfund"), DocumentLayoutExample)
    assert (first.id, second.id) == ("zh_train_0", "zh_train_1")
    assert first.text == "登记表姓名：王小明2026年日期"
    surfaces = [first.text[span.start : span.end] for span in first.spans]
    assert [(surfaces[link.key], surfaces[link.value]) for link in first.links or ()] == [
        ("姓名：", "王小明"),
        ("日期", "2026年"),
    ]
    assert first.thousandths(segments=False)[0] == (50, 0, 125, 27)
    assert first.thousandths(segments=True)[0] == (50, 0, 350, 27)


def test_what_is_wrong_with_xfund_files(tmp_path: Path) -> None:
    path = tmp_path / "zh.json"
    path.write_text(json.dumps(xfund({**PAGE, "img": {"fname": "a.jpg"}})), encoding="utf-8")
    assert problems(path, format="xfund") == [
        f"{path}:1: img: width and height are expected, not (None, None)"
    ]
    path.write_text(json.dumps(xfund(PAGE)), encoding="utf-8")
    assert "set data.format: xfund" in problems(path)[0]


def test_the_real_funsd(shared_data: Path) -> None:
    """Counted from the files by themselves."""
    for split, pages in (("training_data", 149), ("testing_data", 50)):
        folder = shared_data / "funsd" / split
        examples = list(read_examples(Source(path=str(folder), format="funsd"), DocumentLayoutExample))
        assert len(examples) == pages
        words = entities = links = 0
        for file in (folder / "annotations").glob("*.json"):
            form = json.loads(file.read_text(encoding="utf-8"))["form"]
            real = {
                part["id"]: part["label"] for part in form if any(w["text"].strip() for w in part["words"])
            }
            fields = {number for number, label in real.items() if label != "other"}
            pairs = {tuple(pair) for part in form for pair in part["linking"]}
            words += sum(bool(w["text"].strip()) for part in form for w in part["words"])
            entities += len(fields)
            links += sum({*pair} <= fields and len({*pair}) == 2 for pair in pairs)  # one leads to itself
        assert sum(len(example.words) for example in examples) == words
        assert sum(len(example.entities or ()) for example in examples) == entities
        assert sum(len(example.links or ()) for example in examples) == links
