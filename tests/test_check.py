"""The doctor finds what was planted, says where, and is content with healthy data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, write_jsonl
from wenmai.check.doctor import LENGTH_BINS, check
from wenmai.check.findings import PLACES, Finding, Report
from wenmai.check.repetitions import normal_form
from wenmai.config import RunConfig

LOC = {"start": 0, "end": 2, "label": "地名"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


class Clinic:
    """Writes splits and has them looked at."""

    def __init__(self, folder: Path, backbone: Path):
        self.folder, self.backbone = folder, backbone

    def check(
        self,
        task: dict[str, Any],
        *,
        data: dict[str, Any] | None = None,
        positions: int | None = None,
        **splits: list[dict[str, Any]],
    ) -> Report:
        files = {name: write_jsonl(self.folder / f"{name}.jsonl", rows).name for name, rows in splits.items()}
        tree = {
            "task": task,
            "backbone": {
                "model": str(self.backbone),
                "positions": None if positions is None else {"to": positions},
            },
            "data": {"root": str(self.folder), **files, **(data or {})},
            "output": str(self.folder / "run"),
        }
        report = check(RunConfig.model_validate(tree))
        for finding in report.findings:
            finding.places = [place.replace(f"{self.folder}/", "") for place in finding.places]
        return report


@pytest.fixture
def clinic(tmp_path: Path, backbone: Path) -> Clinic:
    return Clinic(tmp_path, backbone)


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def the(report: Report, code: str, split: str = "") -> Finding:
    (found,) = [f for f in report.findings if f.code == code and f.message.startswith(split)]
    return found


def texts(*records: tuple[str, str | None]) -> list[dict[str, Any]]:
    return [{"text": text} if label is None else {"text": text, "label": label} for text, label in records]


CLASSES = texts(*[(f"第{i}天很好", "好") for i in range(6)], *[(f"第{i}天不好", "坏") for i in range(6)])


@pytest.mark.parametrize("name", TOYS)
def test_healthy_data_of_every_task(clinic: Clinic, name: str) -> None:
    task, records = TOYS[name]
    unique = list({json.dumps(record, sort_keys=True): record for record in records}.values())
    report = clinic.check({"max_length": 64, **task}, train=unique)
    assert report.healthy
    assert codes(report) <= {"overlapping_spans", "contradictory_labels", "few_examples"}
    assert report.splits[0].examples == len(unique)
    assert report.splits[0].tokens > 0
    assert report.splits[0].unknown_tokens == 0


def test_labels_are_counted_and_imbalance_is_told(clinic: Clinic) -> None:
    records = texts(*[(f"好的第{i}个", "好") for i in range(43)], ("坏一", "坏"), ("坏二", "坏"))
    report = clinic.check({"name": "text_classification"}, train=records)
    assert report.splits[0].labels == {"好": 43, "坏": 2}
    assert the(report, "imbalance").places == ["'好' 43, '坏' 2"]
    assert "22 times" in the(report, "imbalance").message
    assert the(report, "few_examples").places == ["'坏': 2"]


def test_span_labels_are_counted(clinic: Clinic) -> None:
    record = {"text": "北京和上海", "entities": [LOC, {"start": 3, "end": 5, "label": "地名"}]}
    assert clinic.check({"name": "ner"}, train=[record]).splits[0].labels == {"地名": 2}


def test_duplicates_and_contradictions_are_told_apart(clinic: Clinic) -> None:
    again = texts(("第0天很好", "好"), ("第1天很好", "坏"), ("第0天很好", "好"))
    report = clinic.check({"name": "text_classification"}, train=CLASSES + again)
    duplicates, contradiction = the(report, "duplicates"), the(report, "contradictory_labels")
    assert (duplicates.severity, duplicates.count) == ("warning", 2)
    assert duplicates.places == ["train.jsonl:13: as train.jsonl:1", "train.jsonl:15: as train.jsonl:1"]
    assert (contradiction.count, contradiction.places) == (1, ["train.jsonl:14: as train.jsonl:2"])


def test_other_spans_on_the_same_text_contradict(clinic: Clinic) -> None:
    records = [{"text": "北京很大", "entities": [LOC]}, {"text": "北京很大", "entities": []}]
    assert the(clinic.check({"name": "ner"}, train=records), "contradictory_labels").count == 1


def test_leakage_looks_through_width_case_and_spaces(clinic: Clinic) -> None:
    dev = texts(("第０天 很好", "好"), ("新的一天", "好"), ("ＡＢ", "坏"))
    test = texts(("新的 一天", "好"), ("a B", "坏"), ("没见过", "坏"))
    report = clinic.check(
        {"name": "text_classification"}, train=[*CLASSES, *texts(("ab", "坏"))], dev=dev, test=test
    )
    found = {
        finding.message.split(" (")[0]: finding for finding in report.findings if finding.code == "leakage"
    }
    assert found.keys() == {
        "dev: texts that are in train too",
        "test: texts that are in train too",
        "test: texts that are in dev too",
    }
    in_dev = found["dev: texts that are in train too"]
    assert in_dev.places == ["dev.jsonl:1: as train.jsonl:1", "dev.jsonl:3: as train.jsonl:13"]
    assert in_dev.severity == "error"
    assert found["test: texts that are in train too"].severity == "warning"
    assert found["test: texts that are in dev too"].count == 2


def test_pairs_leak_only_as_pairs(clinic: Clinic) -> None:
    def pair(a: str, b: str) -> dict[str, Any]:
        return {"text": a, "text_pair": b, "label": "同" if len(a) > 2 else "异"}

    train = [pair("你好", "您好"), pair("再见了", "拜拜")]
    report = clinic.check(
        {"name": "text_matching"}, train=train, dev=[pair("你好", "拜拜"), pair("再见了", "拜 拜")]
    )
    assert the(report, "leakage").places == ["dev.jsonl:2: as train.jsonl:2"]


def test_normal_form() -> None:
    assert normal_form("ＡＢ c\u3000中 文１\n") == "abc中文1"


def test_labels_that_training_does_not_know(clinic: Clinic) -> None:
    report = clinic.check(
        {"name": "text_classification"}, train=CLASSES, dev=texts(("怎么样", "一般"), ("好的", "好"))
    )
    found = the(report, "unusable_label")
    assert found.severity == "error"
    assert found.places == ["dev.jsonl:1: label '一般' does not occur in the training set, which has 坏, 好"]


def test_spans_with_whitespace_overlap_and_repetition(clinic: Clinic) -> None:
    record = {
        "text": "北京 人民银行在",
        "entities": [
            {"start": 0, "end": 3, "label": "地名"},
            {"start": 0, "end": 7, "label": "机构"},
            {"start": 0, "end": 7, "label": "机构"},
        ],
    }
    report = clinic.check({"name": "ner"}, train=[record])
    assert the(report, "span_with_whitespace").places == ["train.jsonl:1: '北京 ' at 0:3 (地名)"]
    assert the(report, "overlapping_spans").severity == "warning"
    assert the(report, "overlapping_spans").places == [
        "train.jsonl:1: '北京 ' at 0:3 (地名) and '北京 人民银行' at 0:7 (机构)"
    ]
    assert the(report, "repeated_span").count == 1
    nested = clinic.check({"name": "ner", "head": "global_pointer", "nested": True}, train=[record])
    assert the(nested, "overlapping_spans").severity == "info"


def test_spans_that_tokens_can_not_express(clinic: Clinic) -> None:
    record = {
        "text": "用iPhone15拍",
        "entities": [{"start": 2, "end": 4, "label": "物"}, {"start": 1, "end": 9, "label": "物"}],
    }
    report = clinic.check({"name": "ner", "tokens": "pieces"}, train=[record])
    assert "lost_labels" in codes(report)
    assert all(place.startswith("train.jsonl:1: ") for place in the(report, "lost_labels").places)


def test_what_truncation_cuts_off(clinic: Clinic) -> None:
    records = [*CLASSES, {"text": "好" * 40, "label": "好"}]
    task = {"name": "text_classification", "max_length": 12}
    cut = clinic.check({**task, "long_text": "truncate"}, train=records)
    assert the(cut, "lost_labels").places == ["train.jsonl:13: 30 of 40 tokens are cut off at the end"]
    assert cut.splits[0].windowed == 0
    windows = clinic.check({**task, "long_text": "windows", "window_overlap": 2}, train=records)
    assert "lost_labels" not in codes(windows)
    assert windows.splits[0].windowed == 1


def test_positions_that_no_row_reaches(clinic: Clinic) -> None:
    task = {"name": "text_classification", "max_length": 600}
    longer = clinic.check(task, train=CLASSES, positions=600)
    assert not {"max_length", "unused_positions"} & codes(longer)
    unused = clinic.check(task, train=CLASSES, positions=700)
    assert the(unused, "unused_positions").severity == "warning"
    assert "backbone.positions" in the(clinic.check(task, train=CLASSES), "max_length").remedy


def test_unknown_tokens_and_their_characters(clinic: Clinic) -> None:
    records = [*CLASSES, *texts(("龘龘很好", "好"), ("𠮷龘", "坏"))]
    report = clinic.check({"name": "text_classification"}, train=records)
    facts = report.splits[0]
    assert facts.unknown_characters == {"龘": 3, "𠮷": 1}
    assert facts.unknown_tokens == 4
    assert facts.tokens == sum(len(record["text"]) for record in records)
    assert the(report, "unknown_tokens").places[0] == "'龘' U+9F98: 3"


def test_blanks_are_not_unknown_where_each_character_is_a_token(clinic: Clinic) -> None:
    records = [
        {"text": text, "entities": [{"start": 0, "end": 1, "label": "X"}]}
        for text in ("我 爱 北 京", "龘 好 \u3000", "北 京 大 学")
    ]
    facts = clinic.check({"name": "ner", "tokens": "characters"}, train=records).splits[0]
    assert (facts.unknown_tokens, facts.unknown_characters) == (1, {"龘": 1})
    assert facts.tokens == sum(len(record["text"]) for record in records)


def test_length_histogram(clinic: Clinic) -> None:
    records = texts(*[("好" * n, "好") for n in (1, 49, 50, 99, 100, 1000)], ("坏", "坏"))
    facts = clinic.check({"name": "text_classification"}, train=records).splits[0]
    assert facts.lengths == dict(zip(LENGTH_BINS, (3, 2, 1, 0, 0, 0, 1), strict=True))
    assert (facts.longest, facts.median_length) == (1000, 50)


def test_empty_broken_and_unlabelled_rows(clinic: Clinic) -> None:
    records = [*CLASSES, *texts(("\u3000 ", "好"), ("坏\ufffd\ufffd的", "坏"), ("没有标签", None))]
    report = clinic.check({"name": "text_classification"}, train=records, test=texts(("测试", None)))
    assert the(report, "empty_text").places == ["train.jsonl:13"]
    assert the(report, "broken_characters").places == ["train.jsonl:14: '坏\ufffd\ufffd的'"]
    assert (the(report, "unlabelled", "train").severity, the(report, "unlabelled", "train").places) == (
        "error",
        ["train.jsonl:15"],
    )
    assert the(report, "unlabelled", "test").severity == "warning"
    assert [split.unlabelled for split in report.splits] == [1, 1]


def test_bad_rows_are_findings_and_the_others_are_looked_at(clinic: Clinic) -> None:
    bad: list[dict[str, Any]] = [
        {"text": "北京", "entities": [{"start": 0, "end": 9, "label": "地名"}]},
        {"text": "上海", "entities": [{"start": 0, "end": 2, "label": "地名", "text": "北京"}]},
    ]
    good = [{"text": f"北京第{i}天", "entities": [LOC]} for i in range(6)]
    report = clinic.check({"name": "ner"}, train=[*bad, *good])
    found = the(report, "bad_rows")
    assert (found.severity, found.count) == ("error", 2)
    assert found.places[0].startswith("train.jsonl:1: ") and "outside the text" in found.places[0]
    assert "is '上海', not '北京'" in found.places[1]
    assert report.splits[0].examples == 6
    skipping = clinic.check({"name": "ner"}, train=[*bad, *good], data={"on_error": "skip"})
    assert the(skipping, "bad_rows").severity == "warning"
    assert skipping.healthy
    assert not (clinic.folder / "run").exists()


def test_rows_held_out_of_one_file_share_its_bad_rows(clinic: Clinic) -> None:
    report = clinic.check(
        {"name": "text_classification"},
        train=[*CLASSES, {"text": 5, "label": "好"}],
        data={"split": {"dev": 0.25}},
    )
    assert the(report, "bad_rows").count == 1
    assert [split.examples for split in report.splits] == [9, 3]


def test_one_class_is_not_enough(clinic: Clinic) -> None:
    report = clinic.check({"name": "text_classification"}, train=texts(("好", "好"), ("很好", "好")))
    assert not report.healthy
    assert "at least two labels" in the(report, "no_classes").message


def test_more_tokens_than_the_backbone_has_positions(clinic: Clinic) -> None:
    report = clinic.check({"name": "text_classification", "max_length": 600}, train=CLASSES)
    assert "512" in the(report, "max_length").remedy


def test_a_missing_backbone_does_not_hide_the_rest(clinic: Clinic) -> None:
    clinic.backbone = clinic.folder / "nowhere"
    report = clinic.check({"name": "text_classification"}, train=[*CLASSES, CLASSES[0]])
    assert {"backbone", "duplicates"} <= codes(report)
    assert not report.healthy


def test_only_the_first_places_are_kept(clinic: Clinic) -> None:
    report = clinic.check({"name": "text_classification"}, train=[*CLASSES, *[CLASSES[0]] * 30])
    assert the(report, "duplicates").count == 30
    assert len(the(report, "duplicates").places) == PLACES
    assert json.loads(json.dumps(report.to_json()))["healthy"] is True
