"""Formats, edge by edge: what a reader yields and where it says it stands."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenmai.data.conll import join_words
from wenmai.data.lines import Line, read_lines
from wenmai.data.readers import read_records, scan_records
from wenmai.data.records import Record, Rejected
from wenmai.data.sources import Source
from wenmai.errors import DataError
from wenmai.text.tags import tags_from_spans


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def data(path: str, **options: Any) -> list[dict[str, Any]]:
    return [record.data for record in read_records(Source(path=path, **options))]


def scanned(path: str, **options: Any) -> tuple[list[Record], list[Rejected]]:
    items = list(scan_records(Source(path=path, **options)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def test_jsonl_keeps_line_separators_inside_texts_and_counts_lines(tmp_path: Path) -> None:
    texts = ["一\u2028二\x85三\x0b四", "　全角空格", "好\r\n坏"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = write(tmp_path / "a.jsonl", "\ufeff" + lines[0] + "\r\n\r\n" + lines[1] + "\n" + lines[2])
    records = list(read_records(Source(path=path)))
    assert [record.data["text"] for record in records] == texts
    assert [record.place for record in records] == [f"{path}:1", f"{path}:3", f"{path}:4"]


def test_a_megabyte_in_a_line(tmp_path: Path) -> None:
    text = "汉" * 1_000_000
    assert data(write(tmp_path / "a.jsonl", json.dumps({"text": text}))) == [{"text": text}]
    assert data(write(tmp_path / "a.csv", f'text\n"{text}"\n')) == [{"text": text}]


@pytest.mark.parametrize("compact", [True, False])
def test_json_lists_wrappers_and_lines(tmp_path: Path, compact: bool) -> None:
    records = [{"text": "一", "n": {"a": [1, {"b": 2}]}}, {"text": "二"}]
    indent = None if compact else 2
    array = write(tmp_path / "array.json", json.dumps(records, indent=indent))
    wrapper = write(
        tmp_path / "wrapper.json", json.dumps({"v": 1, "tags": ["x"], "data": records}, indent=indent)
    )
    lines = write(tmp_path / "lines.json", "\n".join(map(json.dumps, records)))
    single = write(tmp_path / "single.json", json.dumps({"text": "一", "entities": [{"start": 0}]}))
    assert data(array) == data(wrapper) == data(lines) == records
    assert data(single) == [{"text": "一", "entities": [{"start": 0}]}]
    found = [record.line for record in read_records(Source(path=array))]
    assert found == ([1, 1] if compact else [2, 13])


def test_a_broken_first_line_does_not_make_json_lines_a_list(tmp_path: Path) -> None:
    good, bad = scanned(write(tmp_path / "a.json", '{"text": "一\n{"text": "二"}\n'))
    assert [record.data for record in good] == [{"text": "二"}]
    assert bad[0].problem.place.endswith("a.json:1:10")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_counts_lines_through_quoted_line_ends(tmp_path: Path, end: str) -> None:
    content = end.join(["text,label", '"一' + end + '二",a', "", '三,"b ""c"""', "四"])
    good, bad = scanned(write(tmp_path / "a.csv", content))
    # a quoted line end is kept as LF: CR LF is how the file ends its lines
    assert [(r.data, r.line) for r in good] == [
        ({"text": "一\n二", "label": "a"}, 2),
        ({"text": "三", "label": 'b "c"'}, 5),
    ]
    assert bad[0].problem.place.endswith("a.csv:6")
    assert "1 columns, but the header has 2" in bad[0].problem.message


def test_csv_columns_by_number_and_name_and_empty_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,label,text\n1,,一\n2,x,二\n")
    assert data(path, columns={"text": "text", "label": 1}) == [{"text": "一"}, {"text": "二", "label": "x"}]
    assert data(path, columns={"text": 2, "label": 1}, header=True) == [
        {"text": "一"},
        {"text": "二", "label": "x"},
    ]
    assert len(data(path, columns={"text": 2, "label": 1})) == 3  # all by number: line 1 is a row
    semicolons = write(tmp_path / "b.csv", 'text;label\n"一;二";x\n')
    assert data(semicolons, delimiter=";") == [{"text": "一;二", "label": "x"}]


def test_tables_without_quoting_keep_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", '他说"好\t1\n"\t0\n')
    assert data(path, columns={"text": 0, "label": 1}) == [
        {"text": '他说"好', "label": "1"},
        {"text": '"', "label": "0"},
    ]
    assert data(path, columns={"text": 0, "label": 1}, delimiter="\\t") == data(
        path, columns={"text": 0, "label": 1}
    )


def test_an_unclosed_quote_is_told_where_it_opens(tmp_path: Path) -> None:
    good, bad = scanned(write(tmp_path / "a.csv", 'text,label\n好,a\n"坏,b\n一般,c\n'))
    assert [record.data for record in good] == [{"text": "好", "label": "a"}]
    assert bad[0].problem.place.endswith("a.csv:3")
    assert "never closed" in bad[0].problem.message


def test_a_damaged_line_inside_a_quoted_cell_leaves_its_row_out(tmp_path: Path) -> None:
    content = (
        "text,label\n好,a\n".encode() + b'"\xe4\xb8\x80\n\xff\xff\n\xe4\xba\x8c",b\n' + "坏,c\n".encode()
    )
    good, bad = scanned(write(tmp_path / "a.csv", content))
    assert [record.data["text"] for record in good] == ["好", "坏"]
    assert [item.line for item in bad] == [4]


def test_conll_schemes_separators_and_spaces_as_tokens(tmp_path: Path) -> None:
    bio = write(tmp_path / "a.bio", "张 B_PER\n三 I_PER\n  O\n在 O\n\n\n沪 I-LOC\n")
    assert data(bio) == [
        {"text": "张三 在", "entities": [{"start": 0, "end": 2, "label": "PER"}]},
        {"text": "沪", "entities": [{"start": 0, "end": 1, "label": "LOC"}]},
    ]
    tabs = write(tmp_path / "b.conll", "-DOCSTART-\tO\tO\n\n \tx\tO\n\u3000\tx\tS-X\n")
    assert data(tabs) == [{"text": " \u3000", "entities": [{"start": 1, "end": 2, "label": "X"}]}]
    four = write(tmp_path / "c.conll", "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\n")
    assert data(four)[0]["entities"][1] == {"start": 11, "end": 17, "label": "MISC"}
    assert data(four, columns={"text": 0, "entities": 2})[0]["entities"][1] == {
        "start": 3,
        "end": 10,
        "label": "VP",
    }


def test_conll_rejects_only_the_sentence_with_the_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "好 O\n\n坏\n人 O\n\n去 X-LOC\n\n\n来 O\n")
    good, bad = scanned(path)
    assert [record.data["text"] for record in good] == ["好", "来"]
    assert [item.problem.place for item in bad] == [f"{path}:3", f"{path}:6"]
    assert "'X-LOC' is no tag" in bad[1].problem.message


def test_conll_position_digits(tmp_path: Path) -> None:
    numbered = "".join(f"{c}{i % 10} O\n" for i, c in enumerate("人民Ａ日报1"))
    assert data(write(tmp_path / "a.conll", numbered))[0]["text"] == "人民Ａ日报1"
    assert data(write(tmp_path / "b.conll", "10 O\n20 O\n"))[0]["text"] == "10 20"  # numbers, not positions
    assert data(write(tmp_path / "c.conll", "人1 O\n民 O\n"))[0]["text"] == "人1民"  # not every token


@given(st.lists(st.text("abXY12北京，。", min_size=1, max_size=4), min_size=1, max_size=12))
def test_joined_words_are_where_they_say(words: list[str]) -> None:
    text, ranges = join_words(words)
    assert [text[start:end] for start, end in ranges] == words
    assert text.replace(" ", "") == "".join(words)


def test_joining_words() -> None:
    assert join_words(["New", "York", "的", "iPhone", "7"])[0] == "New York的iPhone 7"
    assert join_words(["2", "0", "年", "A", "股"])[0] == "20年A股"
    assert join_words(["说", "“", "OK", "”"])[0] == "说“OK”"


@given(
    st.text("东南西北中发白", min_size=1, max_size=12).flatmap(
        lambda text: st.tuples(
            st.just(text),
            st.sets(st.integers(0, len(text)), max_size=6),
            st.sampled_from(["BIO", "BIOES", "BMES"]),
        )
    )
)
def test_conll_gives_back_the_spans_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, set[int], Any]
) -> None:
    text, cuts, scheme = case
    borders = sorted(cuts)
    spans = [(a, b, "AB"[i % 2]) for i, (a, b) in enumerate(pairwise(borders)) if i % 3 != 2]
    tags = tags_from_spans(spans, len(text), scheme)
    path = tmp_path_factory.getbasetemp() / "generated.conll"
    path.write_text("".join(f"{c}\t{tag}\n" for c, tag in zip(text, tags, strict=True)), encoding="utf-8")
    (record,) = data(str(path))
    assert record["text"] == text
    assert [(e["start"], e["end"], e["label"]) for e in record["entities"]] == spans


def test_text_lines_and_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n一\n二\n \n\n三\n")
    assert [(r.data["text"], r.line) for r in read_records(Source(path=path))] == [
        ("一", 2),
        ("二", 3),
        ("三", 6),
    ]
    documents = read_records(Source(path=path, text_unit="document"))
    assert [(r.data["text"], r.line) for r in documents] == [("一\n二", 2), ("三", 6)]


def test_parquet_nested_nulls_and_numbers(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"text": "王芳", "entities": [{"start": 0, "end": 2, "label": "PER"}], "x": None},
        {"text": "好", "entities": [{"start": 0, "end": 1, "label": None}], "x": float("nan")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    good, bad = scanned(str(tmp_path / "a.parquet"))
    assert [record.data for record in good] == [
        {"text": "王芳", "entities": [{"start": 0, "end": 2, "label": "PER"}]}
    ]
    assert bad[0].line == 2 and "nan is not a number" in bad[0].problem.message


def test_saved_dataset_with_splits_asks_for_one(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_dict({"text": ["好", "坏"], "label": [1, 0]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="holds the splits test, train: name one"):
        data(str(tmp_path / "saved"))
    assert data(str(tmp_path / "saved" / "train")) == [{"text": "好", "label": 1}, {"text": "坏", "label": 0}]


def test_label_studio_choices_relations_and_rivals(tmp_path: Path) -> None:
    def task(*annotations: dict[str, Any]) -> dict[str, Any]:
        return {"data": {"body": "王芳在广州"}, "annotations": list(annotations)}

    def span(name: str, start: int, end: int, label: str) -> dict[str, Any]:
        return {"id": name, "type": "labels", "value": {"start": start, "end": end, "labels": [label]}}

    choices = {"result": [{"type": "choices", "value": {"choices": ["新闻", "人物"]}}]}
    relation = {"type": "relation", "from_id": "b", "to_id": "a", "labels": ["住"], "direction": "left"}
    spans = {"result": [span("a", 0, 2, "PER"), span("b", 3, 5, "LOC"), relation]}
    cancelled = {"was_cancelled": True, "result": []}
    truth = {"ground_truth": True, **spans}
    tasks = [
        task(choices),
        task(spans, cancelled),
        task(choices, truth),
        task(choices, spans),
        task(),
        {"text": "x"},
    ]
    good, bad = scanned(write(tmp_path / "a.json", json.dumps(tasks)), format="label_studio")
    person, place = {"start": 0, "end": 2, "label": "PER"}, {"start": 3, "end": 5, "label": "LOC"}
    both = {
        "entities": [person, place],
        "relations": [{"subject": person, "predicate": "住", "object": place}],
    }
    fields = {"body": "王芳在广州", "text": "王芳在广州"}
    assert [r.data for r in good] == [
        {**fields, "labels": ["新闻", "人物"]},
        {**fields, **both},
        {**fields, **both},
        fields,
    ]
    assert "2 annotations of the same text" in bad[0].problem.message
    assert "export as JSON (not JSON-MIN" in bad[1].problem.message


def test_label_studio_surface_that_stands_nowhere(tmp_path: Path) -> None:
    value = {"start": 0, "end": 2, "text": "李雷", "labels": ["PER"]}
    record = {"data": {"text": "王芳"}, "annotations": [{"result": [{"type": "labels", "value": value}]}]}
    _, bad = scanned(write(tmp_path / "a.json", json.dumps([record])), format="label_studio")
    assert "is '王芳' in the text, not '李雷'" in bad[0].problem.message


def test_cluener_checks_every_surface(tmp_path: Path) -> None:
    lines = [{"text": "王芳去", "label": {"name": {"王芳": [[0, 2]]}}}, {"id": 4, "text": "无标注"}]
    good, bad = scanned(write(tmp_path / "a.json", "\n".join(map(json.dumps, lines))), format="cluener")
    assert [record.data for record in good] == [{"id": 4, "text": "无标注"}]
    assert bad[0].problem.field == "label.name.王芳"
    assert "[0, 2] is '王芳去' in the text" in bad[0].problem.message


BRAT_TEXT = "老王和他的\r\n老伴去县城"


@pytest.mark.parametrize(
    ("mode", "entities", "relations"),
    [("cover", [(0, 2, "P"), (3, 9, "P"), (10, 12, "L")], 1), ("drop", [(0, 2, "P"), (10, 12, "L")], 0)],
)
def test_brat_discontinuous(tmp_path: Path, mode: Any, entities: list[Any], relations: int) -> None:
    entity_lines = "T1\tP 0 2\t老王\nT2\tP 3 4;7 9\t他 老伴\nT3\tL 10 12\t县城\n"
    annotations = entity_lines + "R1\tFamily Arg1:T1 Arg2:T2\t\n#1\tNote T1\tx\n"
    write(tmp_path / "10.txt", BRAT_TEXT)
    write(tmp_path / "10.ann", annotations)
    write(tmp_path / "9.txt", "空")
    write(tmp_path / "9.ann", "")
    write(tmp_path / "11.txt", "无")
    first, second, third = data(str(tmp_path), discontinuous=mode)
    assert first == {"id": "9", "text": "空", "entities": [], "relations": []}
    assert second["text"] == BRAT_TEXT
    assert [(e["start"], e["end"], e["label"]) for e in second["entities"]] == entities
    assert len(second["relations"]) == relations
    assert third == {"id": "11", "text": "无"}
    _, bad = scanned(str(tmp_path))
    assert [item.problem.place for item in bad] == [f"{tmp_path / '10.ann'}:2"]
    assert "has 2 pieces (3 4;7 9)" in bad[0].problem.message


def test_brat_lines_that_do_not_fit_the_text(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", "王芳、去")
    write(
        tmp_path / "1.ann",
        "T1\tP 0 3\t王芳・\nT2\tP 1 3\t王芳\nT3\tP 2 9\t去\nT4 P 0 1\nR1\tX Arg1:T1 Arg2:T8\n",
    )
    _, bad = scanned(str(tmp_path))
    assert [item.line for item in bad] == [2, 3, 4, 5]  # T1 differs in punctuation alone
    assert "lies outside the text (4 characters)" in bad[1].problem.message
    assert "T8 is none of the document's entities" in bad[3].problem.message


def test_options_apply_in_their_order(tmp_path: Path) -> None:
    lines = [{"q": str(i), "c": i % 3, "lang": "zh" if i % 2 else "en"} for i in range(10)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    names = write(tmp_path / "names.txt", "甲\n乙\n丙\n")
    found = data(
        path,
        rows=(2, 9),
        where={"lang": "zh"},
        columns={"text": "q", "label": "c"},
        label_names=names,
        label_map={"丙": "其他"},
    )
    assert found == [
        {"text": "3", "label": "甲"},
        {"text": "5", "label": "其他"},
        {"text": "7", "label": "乙"},
    ]
    assert [d["q"] for d in data(path, where={"c": [0, 1]}, rows=(0, 4))] == ["0", "1", "3"]


def test_labels_of_entities_and_relations_are_mapped_and_ends_made_exclusive(tmp_path: Path) -> None:
    person = {"start": 0, "end": 1, "label": "nr"}
    record = {
        "text": "王芳",
        "entities": [person],
        "relations": [{"subject": person, "predicate": "x", "object": person}],
    }
    path = write(tmp_path / "a.jsonl", json.dumps(record))
    wanted = {"start": 0, "end": 2, "label": "PER"}
    assert data(path, label_map={"nr": "PER", "x": "y"}, end_inclusive=True) == [
        {
            "text": "王芳",
            "entities": [wanted],
            "relations": [{"subject": wanted, "predicate": "y", "object": wanted}],
        }
    ]


def test_a_number_without_a_name_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"label": 1}\n{"labels": [0, 2]}\n')
    good, bad = scanned(path, label_names=write(tmp_path / "names.txt", "甲\n乙\n"))
    assert [record.data for record in good] == [{"label": "乙"}]
    assert (bad[0].line, bad[0].problem.field) == (2, "labels[1]")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "漢語\n中文\n".encode(encoding))
    assert [d["text"] for d in data(path, encoding=encoding)] == ["漢語", "中文"]


def test_one_damaged_line_leaves_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "好\n".encode() + b"\xff\xfe\n" + "坏\n".encode() + b"\xed\xa0\xbd\n")
    good, bad = scanned(path)
    assert [record.data["text"] for record in good] == ["好", "坏"]
    assert [item.line for item in bad] == [2, 4]
    assert "the line is damaged, others are not" in bad[0].problem.message
    assert "half of a surrogate pair" in bad[1].problem.message


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), min_size=1))
def test_lines_come_back_whole(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(("first\n" + "\n".join(lines) + "\n").encode())
    read = list(read_lines(str(path), "utf-8"))
    assert read == [Line(i, text) for i, text in enumerate(["first", *lines], 1)]
