"""Triples without offsets: the published formats, and where their entities are found in the text."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from wenmai.data.readers import read_records, scan_records
from wenmai.data.records import Rejected
from wenmai.data.sources import Source
from wenmai.data.triples import locate
from wenmai.errors import DataError

DUIE_1 = {
    "postag": [{"word": "王明", "pos": "nr"}],
    "text": "《爱》是王明导演的电影",
    "spo_list": [
        {
            "predicate": "导演",
            "object_type": "人物",
            "subject_type": "影视作品",
            "object": "王明",
            "subject": "爱",
        }
    ],
}
DUIE_2 = {
    "text": "王明在《爱》里饰演李红",
    "spo_list": [
        {
            "predicate": "饰演",
            "object_type": {"inWork": "影视作品", "@value": "人物"},
            "subject_type": "娱乐人物",
            "object": {"inWork": "爱", "@value": "李红"},
            "subject": "王明",
        }
    ],
}
CMEIE = {
    "text": "胃炎@胃炎的症状有腹痛。",
    "spo_list": [
        {
            "Combined": True,
            "predicate": "临床表现",
            "subject": "胃炎",
            "subject_type": "疾病",
            "object": {"@value": "腹痛"},
            "object_type": {"@value": "症状"},
        }
    ],
}
CASREL = {
    "text": "Alan Bean , born in 1932 , is retired .",
    "triple_list": [["Bean", "birthYear", "1932"], ["subject_placeholder", "status", "retired"]],
}


def lines(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return str(path)


def read(path: str, **options: Any) -> list[dict[str, Any]]:
    return [record.data for record in read_records(Source(path=path, **options))]


def spelled(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    def an_end(end: dict[str, Any]) -> tuple[str, Any]:
        return record["text"][end["start"] : end["end"]], end.get("label")

    found = []
    for relation in record["relations"]:
        (subject, kind), (target, its) = an_end(relation["subject"]), an_end(relation["object"])
        found.append((subject, target, relation["predicate"], kind, its))
    return found


def test_spo_list_as_published(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.json", DUIE_1, DUIE_2, CMEIE, {"text": "测试"})
    one, two, three, unlabelled = read(path, format="spo_list")
    assert one.keys() == {"text", "relations"}
    assert spelled(one) == [("爱", "王明", "导演", "影视作品", "人物")]
    assert spelled(two) == [
        ("王明", "爱", "饰演/inWork", "娱乐人物", "影视作品"),
        ("王明", "李红", "饰演", "娱乐人物", "人物"),
    ]
    assert spelled(three) == [("胃炎", "腹痛", "临床表现", "疾病", "症状")]
    assert three["relations"][0]["subject"]["start"] == 3, "the nearer of the two"
    assert unlabelled == {"text": "测试"}


@pytest.mark.parametrize("indent", [None, 4])
def test_triple_list_as_published(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([CASREL, CASREL], indent=indent), encoding="utf-8")
    first, second = read(str(path), format="triple_list")
    assert first == second
    assert spelled(first) == [("Bean", "1932", "birthYear", None, None)]
    assert first["unlocated"] == [["subject_placeholder", "status", "retired"]]


@pytest.mark.parametrize(("record", "name"), [(DUIE_2, "spo_list"), (CASREL, "triple_list")])
def test_without_format_they_are_recognised_and_refused(
    tmp_path: Path, record: dict[str, Any], name: str
) -> None:
    with pytest.raises(DataError, match=rf"in the form of {name}: set data\.format: {name}"):
        read(lines(tmp_path / "a.jsonl", record))


@pytest.mark.parametrize(
    ("record", "name", "field", "message"),
    [
        ({"text": "a", "spo_list": {}}, "spo_list", "spo_list", "a list is expected, not {}"),
        ({"text": "a", "spo_list": [[1]]}, "spo_list", "spo_list[0]", "an object is expected, not [1]"),
        (
            {"text": "a", "spo_list": [{"subject": "a", "predicate": "p", "object": 3}]},
            "spo_list",
            "spo_list[0].object",
            'a text or {"@value": text} is expected, not 3',
        ),
        ({"text": "a", "spo_list": [{"predicate": "p"}]}, "spo_list", "spo_list[0].subject", "missing"),
        (
            {"text": "a", "triple_list": [["a", "b"]]},
            "triple_list",
            "triple_list[0]",
            "[subject, predicate, object] is expected, not ['a', 'b']",
        ),
        ({"triple_list": []}, "triple_list", "text", "missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, record: dict[str, Any], name: str, field: str, message: str
) -> None:
    path = lines(tmp_path / "a.jsonl", record)
    (bad,) = scan_records(Source(path=path, format=name))  # type: ignore[arg-type]
    assert isinstance(bad, Rejected)
    assert (bad.problem.place, bad.problem.field, bad.problem.message) == (f"{path}:1", field, message)


@pytest.mark.parametrize(
    ("text", "subject", "target", "expected"),
    [
        (
            "A met B. B met A",
            "A",
            "B",
            ((0, 1), (6, 7)),
        ),  # a gap of 5, as from B at 9 to A at 15: the earlier subject
        ("12 in 2012, 12th of 12", "12", "2012", ((0, 2), (6, 10))),  # 12 of 2012 and 12th are no words
        ("急性胰腺炎和胰腺炎", "急性胰腺炎", "胰腺炎", ((0, 5), (6, 9))),  # apart before inside
        ("急性胰腺炎", "急性胰腺炎", "胰腺炎", ((0, 5), (2, 5))),
        ("The iPhone of apple", "IPHONE", "Apple", ((4, 10), (14, 19))),  # case counts only if it can
        ("İstanbul in TURKEY", "İstanbul", "Turkey", ((0, 8), (12, 18))),
        ("北京", "北京", "", None),
        ("", "a", "b", None),
    ],
)
def test_where_entities_are_found(
    text: str, subject: str, target: str, expected: tuple[tuple[int, int], tuple[int, int]] | None
) -> None:
    assert locate(text, subject, target) == expected


@pytest.mark.parametrize(
    ("subject", "target"), [("甲乙", "丙"), ("甲", "甲"), ("甲甲", "甲"), ("甲", "乙甲乙")]
)
def test_the_nearest_pair_is_the_nearest_of_all(subject: str, target: str) -> None:
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices("甲乙丙", k=12))
        found = locate(text, subject, target)
        pairs = [
            ((i, i + len(subject)), (j, j + len(target)))
            for i in range(12)
            for j in range(12)
            if text.startswith(subject, i) and text.startswith(target, j)
        ]
        assert (found is None) == (not pairs)
        if found is not None:
            gaps = {pair: max(pair[0][0], pair[1][0]) - min(pair[0][1], pair[1][1]) for pair in pairs}
            assert found == min(pairs, key=lambda pair: (gaps[pair] < 0, gaps[pair], pair))


def test_frequent_entities_of_a_long_text_are_found_in_no_time() -> None:
    started = time.perf_counter()
    assert locate("的" * 20_000, "的", "的") == ((0, 1), (1, 2))
    assert time.perf_counter() - started < 5
