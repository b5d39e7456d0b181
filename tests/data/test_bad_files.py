"""Every way a file can be wrong: the message names the place and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wenmai.data import storage
from wenmai.data.examples import read_examples
from wenmai.data.sources import Source
from wenmai.errors import DataError, UserError
from wenmai.tasks.ner import NerExample
from wenmai.tasks.text_classification import TextClassificationExample

PAIR = {"text": 0, "label": 1}

# name of the file, its bytes, options, what the message must say
CASES: dict[str, tuple[str, str | bytes, dict[str, Any], list[str]]] = {
    "empty file": ("a.jsonl", b"", {}, ["a.jsonl: is empty"]),
    "only blank lines": ("a.jsonl", "\n\n  \n", {}, ["a.jsonl: holds no records"]),
    "wrong encoding": (
        "a.jsonl",
        '{"text": "中文"}'.encode("gb18030"),
        {},
        ["a.jsonl:1:", "data.encoding: gb18030"],
    ),
    "utf-16": ("a.csv", "text\n好\n".encode("utf-16"), {}, ["a.csv:1:", "data.encoding: utf-16"]),
    "unknown encoding": (
        "a.jsonl",
        "{}",
        {"encoding": "gbk2"},
        ["data.encoding: 'gbk2' is no known encoding"],
    ),
    "half a character": (
        "a.jsonl",
        b'{"text": "x"}\n{"text": "\xe4\xb8"}',
        {},
        ["a.jsonl:2:", "is not utf-8"],
    ),
    "truncated line": (
        "a.jsonl",
        '{"text": "好"}\n{"text": "坏',
        {},
        ["a.jsonl:2:10:", "is the line cut off"],
    ),
    "json cut off": ("a.json", '[\n{"text": "好"},\n{"text": "坏"}', {}, ["a.json:3:", "cut off"]),
    "json without comma": (
        "a.json",
        '[\n{"text": "好"}\n{"text": "坏"}]',
        {},
        ["a.json:3:", "',' is missing"],
    ),
    "json of one number": ("a.json", "5", {}, ["a.json:1: is not JSON: a list or an object is expected"]),
    "json with two lists": ("a.json", '{"a": [{"t": 1}],\n "b": [{"t": 2}]}', {}, ["it holds 2 (a, b)"]),
    "json with an empty list": ("a.json", "[ ]", {}, ["a.json: holds an empty list"]),
    "nested too deeply": ("a.jsonl", '{"text":' + "[" * 100_000, {}, ["a.jsonl:1:"]),
    "not a number": ("a.jsonl", '{"text": "好", "label": NaN}', {}, ["a.jsonl:1: NaN is not a number"]),
    "infinite": (
        "a.json",
        '[{"text": "好"},\n{"text": -Infinity}]',
        {},
        ["a.json:2:", "-Infinity is not a number"],
    ),
    "a list in a line": ("a.jsonl", '["好", "a"]', {}, ["a.jsonl:1: a JSON object is expected, not a list"]),
    "unknown field": (
        "a.jsonl",
        '{"text": "好", "lable": "a"}',
        {},
        ["unknown field 'lable'; did you mean 'label'?"],
    ),
    "missing field": ("a.jsonl", '{"label": "a"}', {}, ["a.jsonl:1: text: missing"]),
    "duplicate header": ("a.csv", "text,label,text\n", {}, ["a.csv:1:", "names 'text' twice (columns 0, 2)"]),
    "no such column": ("a.csv", "text,lable\n", {"columns": {"label": "label"}}, ["did you mean 'lable'?"]),
    "no such number": ("a.tsv", "好\ta\n", {"columns": {"text": 5}}, ["a.tsv:1: there is no column 5"]),
    "too few columns": (
        "a.tsv",
        "好\ta\n坏\n",
        {"columns": PAIR},
        ["a.tsv:2: 1 columns, but the first row has 2"],
    ),
    "unclosed quote": ("a.csv", 'text\n"好\n坏\n', {}, ["a.csv:2:", "is never closed"]),
    "text after a quote": ("a.csv", 'text\n"好"坏\n', {}, ["a.csv:2:", "written twice"]),
    "no header, no columns": ("a.csv", "好,a\n", {"header": False}, ["set data.columns, such as"]),
    "two characters between": ("a.csv", "a||b\n", {"delimiter": "||"}, ["data.delimiter: one character"]),
    "unknown ending": ("a.data", "x", {}, ["the ending '.data' tells no format: set data.format"]),
    "one column": ("a.conll", "好\n", {}, ["a.conll:1: 1 column(s) found", "set data.delimiter"]),
    "conll columns by name": ("a.conll", "好 O\n", {"columns": {"text": "word"}}, ["are the numbers"]),
    "not parquet": ("a.parquet", "x", {}, ["a.parquet: is no readable Parquet file"]),
    "cluener by itself": (
        "a.json",
        '{"text": "x", "label": {"n": {"x": [[0, 0]]}}}',
        {},
        ["set data.format: cluener"],
    ),
    "doccano by itself": (
        "a.jsonl",
        '{"text": "x", "label": [[0, 1, "n"]]}',
        {},
        ["set data.format: doccano"],
    ),
    "label studio by itself": (
        "a.json",
        '[{"data": {}, "annotations": []}]',
        {},
        ["data.format: label_studio"],
    ),
    "brat is a file": ("a.txt", "x", {"format": "brat"}, ["is a file: brat is a folder"]),
    "dataset is a file": (
        "a.bin",
        "x",
        {"format": "dataset"},
        ["is no folder written by Dataset.save_to_disk"],
    ),
    "no such label name": (
        "a.jsonl",
        '{"text": "x"}',
        {"label_names": "names.txt"},
        ["names.txt: does not exist"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, content, options, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        read_examples(Source(path=name, **options), TextClassificationExample)
    assert all(words in str(error.value) for words in expected), str(error.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("trian.jsonl", "does not exist; did you mean 'train.jsonl'?"),
        ("zzz", "holds other, train.jsonl"),
        ("othr/a.jsonl", "there is no folder 'othr'; did you mean 'other'?"),
        ("other", "is a folder without .ann files"),
    ],
)
def test_missing_files(path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("{}")
    Path("other").mkdir()
    with pytest.raises(DataError) as error:
        read_examples(path, TextClassificationExample)
    assert expected in str(error.value)


def test_a_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(
        DataError, match=r"is a folder where a file is expected: name one file; it holds train\.jsonl"
    ):
        read_examples(Source(path=str(tmp_path), format="jsonl"), TextClassificationExample)


def test_a_span_outside_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record = {"text": "王芳", "entities": [{"start": 0, "end": 31, "label": "PER"}]}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_examples(path, NerExample)
    assert f"{path}:1" in str(error.value)
    assert "end 31 lies outside the text (2 characters)" in str(error.value)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_rejects_that_can_not_be_written(place: str, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")  # a file where a folder is needed: refused for root as well
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{}\n')
    target = blocked / "rejects.jsonl" if place == "folder" else tmp_path
    with pytest.raises(UserError, match="can't be written"):
        read_examples(tmp_path / "a.jsonl", TextClassificationExample, on_error="skip", rejects_path=target)


def test_a_cache_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 0)
    blocked = tmp_path / "cache"
    blocked.write_text("")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match="can't be written"):
        read_examples(tmp_path / "a.jsonl", TextClassificationExample, cache=blocked)
