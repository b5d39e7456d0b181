"""No record is lost in silence, none takes others with it, and no file ends a run without a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wenmai.data.readers import scan_records
from wenmai.data.records import Record, Rejected
from wenmai.data.sources import Source
from wenmai.errors import DataError


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def scanned(path: str, **options: Any) -> tuple[list[dict[str, Any]], list[Rejected]]:
    items = list(scan_records(Source(path=path, **options)))
    good = [item.data for item in items if isinstance(item, Record)]
    return good, [item for item in items if isinstance(item, Rejected)]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}]\n[{"text": "b"}]',
        '[{"text": "a"}]\n{"text": "b"}',
        '{"data":\n[{"text": "a"}]}\n{"data": [{"text": "b"}]}',
        '[{"text": "a"}]\n]',
    ],
)
def test_json_that_goes_on_behind_its_end_is_refused(content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=r"a\.json:[23]: goes on behind its end"):
        scanned(path)
    assert scanned(write(tmp_path / "b.json", '\n[{"text": "a"}]\r\n \n'))[0] == [{"text": "a"}]


def test_a_line_of_a_json_file_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    with pytest.raises(DataError, match="is nested too deeply"):
        scanned(write(tmp_path / "a.json", deep))


def test_one_bad_question_leaves_the_others(tmp_path: Path) -> None:
    good = [{"id": i, "question": "?", "answers": []} for i in range(4)]
    first, second = {"context": "a", "qas": [good[0], {"id": 9}, good[1]]}, {"context": "b", "qas": [good[2]]}
    paragraphs = [first, {"context": 5, "qas": []}, second]
    path = write(tmp_path / "a.json", json.dumps([{"paragraphs": paragraphs}, {"paragraphs": 5}]))
    read, bad = scanned(path, format="squad")
    assert [record["id"] for record in read] == [0, 1, 2]
    fields = ["paragraphs[0].qas[1].question", "paragraphs[1].context", "paragraphs"]
    assert [item.problem.field for item in bad] == fields
    assert [item.record for item in bad] == [{"id": 9}, paragraphs[1], {"paragraphs": 5}]

    asked = [{"query_id": i, "query_text": "?"} for i in range(2)]
    texts = [{"context_text": "a", "qas": [asked[0], {"query_id": 9}, asked[1]]}, {"context_text": "b"}]
    read, bad = scanned(write(tmp_path / "b.json", json.dumps(texts)), format="cmrc")
    assert [record["id"] for record in read] == [0, 1]
    assert [item.problem.field for item in bad] == ["qas[1].query_text", "qas"]


def test_a_damaged_line_of_label_names_does_not_shift_the_others(tmp_path: Path) -> None:
    names = write(tmp_path / "names.txt", "甲\n".encode() + b"\xff\n" + "丙\n".encode())
    path = write(tmp_path / "a.jsonl", '{"label": 1}\n')
    with pytest.raises(DataError, match=r"names\.txt:2: byte 1 is not utf-8"):
        scanned(path, label_names=names)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_the_byte_order_mark_goes_and_nothing_else(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeff好\n\ufeff坏\n".encode(encoding))
    assert [record["text"] for record in scanned(path, encoding=encoding)[0]] == ["好", "\ufeff坏"]


def test_half_of_a_hangul_syllable_and_gb18030_are_no_surrogates(tmp_path: Path) -> None:
    _, (bad,) = scanned(write(tmp_path / "a.txt", "好\n".encode() + b"\xed\x95\n"))
    assert "the line is damaged" in bad.problem.message
    with pytest.raises(DataError, match=r"b\.txt:2: .* set data.encoding: gb18030"):
        scanned(write(tmp_path / "b.txt", "a\n怼人\n".encode("gb18030")))


def test_a_brat_document_whose_name_is_a_circled_digit(tmp_path: Path) -> None:
    for name in ("②", "①", "10", "9"):
        write(tmp_path / f"{name}.txt", "好")
        write(tmp_path / f"{name}.ann", "")
    assert [record["id"] for record in scanned(str(tmp_path))[0]] == ["9", "10", "①", "②"]


@pytest.mark.parametrize(
    ("annotations", "field"),
    [
        ([None], "annotations"),
        ([{"result": [{"type": "choices", "value": None}]}], "result[0].value"),
        ([{"result": [{"type": "labels"}]}], "result[0].value"),
        (
            [
                {
                    "result": [
                        {"type": "labels", "value": {"start": 1, "end": 2, "text": "\ude00", "labels": ["a"]}}
                    ]
                }
            ],
            None,  # an emoji is cut in two
        ),
    ],
)
def test_label_studio_in_another_shape(annotations: list[Any], field: str | None, tmp_path: Path) -> None:
    tree = [
        {"data": {"text": "😀好"}, "annotations": annotations},
        {"data": {"text": "b"}, "annotations": []},
    ]
    read, bad = scanned(write(tmp_path / "a.json", json.dumps(tree)), format="label_studio")
    assert read[-1] == {"text": "b"}
    assert [item.problem.field for item in bad] == [field or "result[0].value"]


def test_a_lone_carriage_return_in_a_csv_cell_is_named(tmp_path: Path) -> None:
    read, (bad,) = scanned(write(tmp_path / "a.csv", "text,label\na\rb,1\nc,2\n"))
    assert read == [{"text": "c", "label": "2"}] and bad.line == 2
    assert bad.problem.message.startswith("a carriage return (CR) stands alone")


def test_rows_count_from_0(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Source(path="a.jsonl", rows=(-1, None))


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "{}")
    with pytest.raises(DataError, match=r"a\.jsonl' is a file, not a folder"):
        scanned(f"{path}/b.jsonl")
