"""Parallel files of intents and slots, and pairs of hidden names: records, offsets, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from wenmai.data.examples import read_examples
from wenmai.data.readers import read_records, scan_records
from wenmai.data.records import Rejected
from wenmai.data.sources import Source
from wenmai.errors import DataError
from wenmai.tasks.relation_classification import RelationClassificationExample
from wenmai.tasks.slot_filling import SlotFillingExample

TAGS = "O O B-from I-from B-to"


def folder(path: Path, tokens: str, tags: str | None = None, intents: str | None = None) -> Source:
    for name, lines in (("seq.in", tokens), ("seq.out", tags), ("label", intents)):
        if lines is not None:
            (path / name).write_text(lines, encoding="utf-8")
    return Source(path=str(path))


def test_parallel_files(tmp_path: Path) -> None:
    source = folder(
        tmp_path, "fly  from new york boston \n我 要 去 北 京\n", f"{TAGS}\nO O O B-到 I-到\n", "a#b\nc\n"
    )
    english, chinese = (record.data for record in read_records(source))
    assert english == {
        "text": "fly  from new york boston",
        "intents": ["a", "b"],
        "slots": [{"start": 10, "end": 18, "label": "from"}, {"start": 19, "end": 25, "label": "to"}],
    }
    assert chinese == {
        "text": "我要去北京",
        "intents": ["c"],
        "slots": [{"start": 3, "end": 5, "label": "到"}],
    }


def test_lines_that_do_not_fit_are_named(tmp_path: Path) -> None:
    source = folder(tmp_path, "a b\nc\nd\ne\n", "O\nO\nX\nO\n", "i\n\ni\ni\n")
    items = list(scan_records(source))
    bad = [(item.line, item.problem.message) for item in items if isinstance(item, Rejected)]
    assert [line for line, _ in bad] == [1, 2, 3] and len(items) == 4
    assert "2 tokens, but 1 tags" in bad[0][1]
    assert "no intent" in bad[1][1]
    assert "'X' is none of O, B-label" in bad[2][1]


@pytest.mark.parametrize(
    ("tags", "intents", "said"),
    [("O\n", "i\n", "seq.out.*has fewer lines"), ("O\nO\n", None, "has seq.out but no label")],
)
def test_files_that_do_not_belong_together(tmp_path: Path, tags: str, intents: str | None, said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        list(scan_records(folder(tmp_path, "a\nb\n", tags, intents)))


def test_texts_alone_are_unlabelled(tmp_path: Path) -> None:
    (example,) = read_examples(folder(tmp_path, "a b\n"), SlotFillingExample)
    assert example.text == "a b" and not example.labelled


def test_labels_are_mapped_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "去北京", "intent": "GO", "slots": {"city": "北京"}}\n', encoding="utf-8")
    columns = {"text": "text", "intents": "intent", "slots": "slots"}
    source = Source(path=str(path), columns=columns, label_map={"GO": "出行"})
    (example,) = read_examples(source, SlotFillingExample)
    assert example.intents == ("出行",) and example.spans == [(1, 3, "city")]


def hidden(path: Path, *lines: str) -> Source:
    (path / "pairs.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Source(path=str(path / "pairs.txt"), format="hidden_pair")


def test_hidden_pairs(tmp_path: Path) -> None:
    source = hidden(
        tmp_path, "2 刘表$诸葛亮$###见##，##大喜", "1 张三$李四$##和## 是夫妻", "0 郭晓龙$鲁晓$为#####举办"
    )
    first, second, third = read_examples(source, RelationClassificationExample)
    # the first run as long as the name
    assert (first.subject.range, first.object.range, first.guesses) == ((4, 6), (0, 3), ())
    assert (second.subject.range, second.object.range) == ((0, 2), (3, 5))
    assert second.guesses == ("both names have 2 characters; the first run of # is taken for 张三",)
    assert second.text == "##和## 是夫妻" and second.label == "1"
    # both side by side
    assert (third.subject.range, third.object.range) == ((1, 4), (4, 6))


def test_hidden_pairs_that_do_not_fit(tmp_path: Path) -> None:
    source = hidden(tmp_path, "0 张三$张三$##来了", "0 张三$李四", "0 王五$李四$王五来了")
    bad = [item.problem.message for item in scan_records(source) if isinstance(item, Rejected)]
    assert "have 2 and 2 characters, but the runs of # in the text have 2" in bad[0]
    assert "does not read as LABEL NAME$NAME$TEXT" in bad[1]
    assert "there are none" in bad[2]


CORPORA = [
    # file, options, usable records, slots, records that leave something open
    ("atis/test", {}, 893, 2_837, 0),
    ("snips/dev", {}, 700, 1_794, 0),
    (
        "smp2019_slu/train.json",
        {"columns": {"text": "text", "intents": "intent", "slots": "slots"}},
        2_579,
        3_327,
        7,
    ),
    ("people_relation/test.txt", {"format": "hidden_pair"}, 772, 0, 454),
    ("semeval2010_task8/test.tsv", {"columns": {"label": 0, "text": 1}}, 2_717, 0, 0),
    (
        "sanwen/valid.txt",
        {"format": "tsv", "columns": {"subject": 0, "object": 1, "label": 2, "text": 3}},
        1_793,
        0,
        211,
    ),
]


@pytest.mark.parametrize(
    ("file", "options", "count", "slots", "open_ones"), CORPORA, ids=[c[0] for c in CORPORA]
)
def test_corpora(shared_data: Path, file: str, options: dict, count: int, slots: int, open_ones: int) -> None:
    kind = SlotFillingExample if slots else RelationClassificationExample
    examples = list(read_examples(Source(path=str(shared_data / file), **options), kind, on_error="skip"))
    assert len(examples) == count
    assert sum(bool(example.guesses) for example in examples) == open_ones
    assert all(example.labelled for example in examples)
    if slots:
        assert sum(len(example.spans) for example in examples) == slots
        values = Counter(example.text[s.start : s.end].strip() for example in examples for s in example.spans)
        assert "" not in values
