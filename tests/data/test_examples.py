"""Validation, storage and what happens to bad records."""

from __future__ import annotations

import gc
import json
import pickle
import re
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.data import storage
from wenmai.data.examples import read_examples
from wenmai.data.records import Record
from wenmai.data.sources import Source
from wenmai.data.storage import RecordStore
from wenmai.errors import DataError


class Entity(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: int
    end: int
    label: str = Field(min_length=1)


class Sentence(BaseModel):
    """What real examples have: an optional label, a union, nested records, a check across fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    label: str | float | None = None
    entities: tuple[Entity, ...] | None = None
    id: str | int | None = None

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for i, entity in enumerate(self.entities or ()):
            if entity.end > len(self.text):
                raise ValueError(
                    f"entities[{i}].end: {entity.end} lies outside the text ({len(self.text)} characters)"
                )
        return self

    @property
    def labelled(self) -> bool:
        return self.label is not None


def jsonl(path: Path, *records: dict[str, Any] | str) -> Path:
    lines = [
        record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems(source: Any, **options: Any) -> list[str]:
    with pytest.raises(DataError) as error:
        read_examples(source, Sentence, **options)
    return [str(problem) for problem in error.value.problems]


def test_examples_are_a_sequence_with_places(tmp_path: Path) -> None:
    records = [{"text": f"第{i}句", "label": "a", "id": i} for i in range(5)]
    path = jsonl(tmp_path / "train.jsonl", *records)
    examples = read_examples(path, Sentence)
    assert [example.id for example in examples] == [0, 1, 2, 3, 4]
    assert examples[1] == Sentence(text="第1句", label="a", id=1) == examples[-4]
    assert examples.place(2) == f"{path}:3"
    chosen = examples.select([4, 0, 2]).select(np.array([2, 0]))
    assert [example.id for example in chosen] == [2, 4]
    assert chosen.place(1) == f"{path}:5"
    assert [example.id for example in examples[1:3]] == [1, 2]
    assert not examples.memory_mapped
    with pytest.raises(IndexError):
        examples[5]


def test_all_problems_of_a_file_in_one_error_in_human_words(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "train.jsonl",
        {"text": "好", "label": "a"},
        {"text": "差", "labl": "b"},
        {"label": [1]},
        {"text": "王芳", "entities": [{"start": 0, "end": 31, "label": "PER"}]},
        {"text": "王芳", "entities": [{"start": "x", "end": 2, "lable": "PER"}]},
        {"text": "王芳", "entities": [{"start": 0, "end": 1, "label": ""}]},
        "[1, 2]",
        '{"text": "好", "label": NaN}',
        '{"text": "\\ud83d"}',
    )
    assert problems(path) == [
        f"{path}:2: unknown field 'labl'; did you mean 'label'? allowed: text, label, entities, id",
        f"{path}:3: text: missing",
        f"{path}:3: label: a text or a number is expected, not [1]",
        f"{path}:4: entities[0].end: 31 lies outside the text (2 characters)",
        f"{path}:5: entities[0].start: a whole number is expected, not 'x'",
        f"{path}:5: entities[0].label: missing",
        f"{path}:5: entities[0]: unknown field 'lable'; did you mean 'label'? allowed: start, end, label",
        f"{path}:6: entities[0].label: is empty",
        f"{path}:7: a JSON object is expected, not a list",
        f"{path}:8: NaN is not a number JSON knows: write null, or leave the field out",
        f"{path}:9: holds half of a surrogate pair (\\ud800 to \\udfff): an emoji was cut in two",
    ]


def test_a_missing_field_names_its_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("review,stars\n,5\n好,4\n", encoding="utf-8")
    source = Source(path=str(path), columns={"text": "review", "label": "stars"})
    assert problems(source) == [f"{path}:2: text: missing: its column 'review' is empty or not there"]


def test_skipping_keeps_good_records_and_writes_the_others_down(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        {"text": "好"},
        {"text": 5},
        '{"text": "坏',
        {"text": "一般"},
    )
    rejects = tmp_path / "out" / "rejects.jsonl"
    examples = read_examples(path, Sentence, on_error="skip", rejects_path=rejects)
    assert [example.text for example in examples] == ["好", "一般"]
    assert [examples.place(i) for i in range(2)] == [f"{path}:1", f"{path}:4"]
    written = [json.loads(line) for line in rejects.read_text(encoding="utf-8").splitlines()]
    assert written[0] == {
        "path": str(path),
        "line": 2,
        "field": "text",
        "reason": "a text is expected, not 5",
        "record": {"text": 5},
    }
    assert (written[1]["line"], written[1]["record"]) == (3, '{"text": "坏')
    assert [problem.place for problem in examples.rejects] == [f"{path}:2", f"{path}:3:10"]


def test_no_rejects_no_file(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    read_examples(
        jsonl(tmp_path / "a.jsonl", {"text": "好"}), Sentence, on_error="skip", rejects_path=rejects
    )
    assert not rejects.exists()


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"txt": "好"})
    assert "unknown field 'txt'; did you mean 'text'?" in problems(path, on_error="skip")[-1]
    assert "holds no records" in problems([])[0]
    good = jsonl(tmp_path / "b.jsonl", {"text": "好"})
    assert "no record is left by data.rows" in problems(Source(path=str(good), where={"text": "x"}))[0]


def test_labels_can_be_required(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"text": "好", "label": "x"}, {"text": "坏"})
    assert len(read_examples(path, Sentence)) == 2
    assert problems(path, require_labels=True) == [
        f"{path}:2: has no labels, which training and scoring need"
    ]


def test_objects_of_python(tmp_path: Path) -> None:
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    frame = pandas.DataFrame({"text": ["好", "坏"], "label": ["a", None], "id": [1, 2]}, index=[7, 7])
    examples = read_examples(frame, Sentence)
    assert [(e.text, e.label, e.id) for e in examples] == [("好", "a", 1), ("坏", None, 2)]
    assert examples.place(1) == "DataFrame:2"
    scores = read_examples(pandas.DataFrame({"text": ["好", "坏"], "label": [0.5, float("nan")]}), Sentence)
    assert [e.label for e in scores] == [0.5, None]
    table = datasets.Dataset.from_list([{"text": "好", "entities": [{"start": 0, "end": 1, "label": "X"}]}])
    assert read_examples(table, Sentence)[0].entities == (Entity(start=0, end=1, label="X"),)
    assert [e.text for e in read_examples(({"text": t} for t in "甲乙"), Sentence)] == ["甲", "乙"]
    assert problems([{"text": "好"}, "坏", {"text": object()}]) == [
        "records:2: a dict is expected, not str",
        "records:3: a value of type object can't be used: text, numbers and lists of them can",
    ]


def test_annotation_formats_give_a_task_the_fields_it_knows(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("王芳", encoding="utf-8")
    (tmp_path / "1.ann").write_text("T1\tPER 0 2\t王芳\n", encoding="utf-8")
    (example,) = read_examples(tmp_path, Sentence)  # brat also gives relations, which Sentence does not have
    assert example == Sentence(id="1", text="王芳", entities=(Entity(start=0, end=2, label="PER"),))


@pytest.mark.parametrize("cached", [True, False])
def test_many_records_go_to_a_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setattr(storage, "BATCH_BYTES", 1_000)
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 5_000)
    path = jsonl(tmp_path / "a.jsonl", *({"text": "字" * 50, "id": i} for i in range(200)))
    cache = tmp_path / "cache" if cached else None
    examples = read_examples(path, Sentence, cache=cache)
    assert examples.memory_mapped
    assert [example.id for example in examples] == list(range(200))
    assert examples.place(199) == f"{path}:200"
    copy = pickle.loads(pickle.dumps(examples.select([5, 150])))
    assert [example.id for example in copy] == [5, 150]
    mapped = examples._stored._mapped
    assert mapped is not None and mapped.path.exists()
    file = mapped.path
    del copy
    gc.collect()
    assert file.exists()  # a copy does not own the file
    if cached:
        assert [child.name for child in (tmp_path / "cache").iterdir()] == [file.name]
        again = read_examples(path, Sentence, cache=cache)
        assert [child.name for child in (tmp_path / "cache").iterdir()] == [file.name]
        assert examples[100].id == again[100].id == 100
    else:
        part = examples.select([3])
        del examples
        gc.collect()
        assert part[0].id == 3
        del part
        gc.collect()
        assert not file.parent.exists()


def test_any_selection_reads_the_same_at_once_and_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BATCH_RECORDS", 7)
    path = jsonl(tmp_path / "a.jsonl", *({"text": "字", "id": i} for i in range(50)))
    examples = read_examples(path, Sentence)
    shuffled = np.random.default_rng(0).permutation(50)
    for selected in (examples.select(shuffled), examples.select(range(10, 40))[::-2], examples.select([])):
        assert [e.id for e in selected] == [selected[i].id for i in range(len(selected))]
    assert [e.id for e in examples.select(shuffled)] == shuffled.tolist()
    assert [e.id for e in examples.select([-1, 0]).select([-2])] == [49]
    for outside in (50, -51):
        with pytest.raises(IndexError, match=f"example {outside} of 50"):
            examples.select([0, outside])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="tells resident pages on Linux only")
def test_reading_a_mapped_file_keeps_a_part_of_it_resident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(storage, "RESIDENT_BYTES", 8 << 20)
    rows = ({"text": "字" * 5_000, "id": i} for i in range(2_000))  # 30 MB
    examples = read_examples(rows, Sentence)
    (file,) = {examples._stored._mapped.path}

    def resident() -> int:
        """Bytes of the file that are in this process's memory."""
        maps = Path("/proc/self/smaps").read_text().split(f"{file}\n", 1)[1]
        return int(re.search(r"Rss:\s+(\d+) kB", maps)[1]) << 10

    most = 0
    for example in examples:
        most = max(most, resident()) if example.id % 100 == 0 else most
    for index in np.random.default_rng(0).permutation(2_000).tolist():
        assert examples[index].id == index
        most = max(most, resident()) if index % 100 == 0 else most
    assert 0 < most < 16 << 20


def test_an_error_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BATCH_BYTES", 100)
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 10)
    with pytest.raises(KeyboardInterrupt), RecordStore(tmp_path, key="x") as store:
        for i in range(100):
            store.add('{"text": "好"}', "a", i)
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_places() -> None:
    assert Record({}, "a.jsonl", 17).place == "a.jsonl:17"
    assert Record({}, "notes/12.ann").place == "notes/12.ann"
