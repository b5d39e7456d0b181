"""CoNLL-U: every odd thing of the format, its errors, and what is written is what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wenmai.data.conllu import conllu_lines
from wenmai.data.examples import read_examples
from wenmai.data.readers import read_records, scan_records
from wenmai.data.records import Rejected
from wenmai.data.sources import Source
from wenmai.errors import DataError
from wenmai.tasks.dependency_example import DependencyExample


def line(
    number: str, form: str, upos: str = "X", head: str = "0", relation: str = "root", misc: str = "_"
) -> str:
    return "\t".join([number, form, form, upos, "_", "_", head, relation, "_", misc])


def sentences(folder: Path, *lines: str) -> list[dict[str, Any]]:
    path = folder / "a.conllu"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [record.data for record in read_records(Source(path=str(path)))]


def surfaces(record: dict[str, Any]) -> list[str]:
    return [record["text"][word["start"] : word["end"]] for word in record["words"]]


DONT = [
    line("1", "I", "PRON", "4", "nsubj"),
    line("2-3", "don't"),
    line("2", "do", "AUX", "4", "aux"),
    line("3", "n't", "PART", "4", "advmod"),
    line("3.1", "really", "ADV", "_", "_"),
    line("4", "care", "VERB", "0", "root", "Foo=1|SpaceAfter=No"),
    line("5", ".", "PUNCT", "4", "punct", "SpaceAfter=No"),
]


@pytest.mark.parametrize("comments", [[], ["# sent_id = x-1", "# text = I don't care."]])
def test_words_of_one_token_share_its_characters(tmp_path: Path, comments: list[str]) -> None:
    (record,) = sentences(tmp_path, *comments, *DONT, "")
    assert record["text"] == "I don't care."
    assert surfaces(record) == ["I", "do", "n't", "care", "."]
    assert record["words"][2] == {"start": 4, "end": 7, "upos": "PART", "head": 4, "relation": "advmod"}
    assert record.get("id") == ("x-1" if comments else None)


def test_a_contraction_that_is_not_its_words_is_one_word(tmp_path: Path) -> None:
    """``du`` is ``de`` and ``le``: what hung on ``le`` hangs on the token, which hangs where its highest word did."""
    (record,) = sentences(
        tmp_path,
        "# text = parle du bel homme",
        line("1", "parle", "VERB", "0", "root"),
        line("2-3", "du"),
        line("2", "de", "ADP", "5", "case"),
        line("3", "le", "DET", "2", "det"),
        line("4", "bel", "ADJ", "3", "amod"),
        line("5", "homme", "NOUN", "1", "obl"),
    )
    assert surfaces(record) == ["parle", "du", "bel", "homme"]
    assert [(w["upos"], w["head"], w["relation"]) for w in record["words"]] == [
        ("VERB", 0, "root"), ("ADP", 4, "case"), ("ADJ", 2, "amod"), ("NOUN", 1, "obl"),
    ]  # fmt: skip


def test_the_text_of_the_comment_decides_about_blanks(tmp_path: Path) -> None:
    """Several blanks, a full-width one, one inside of a word, and marks of SpaceAfter that are missing."""
    (record,) = sentences(
        tmp_path,
        "# text = 我\u3000爱  New York。",
        line("1", "我", "PRON", "2", "nsubj", "SpaceAfter=No"),
        line("2", "爱"),
        line("3", "New York", "PROPN", "2", "obj"),
        line("4", "。", "PUNCT", "2", "punct"),
    )
    assert surfaces(record) == ["我", "爱", "New York", "。"]
    assert [w["start"] for w in record["words"]] == [0, 2, 5, 13]


def test_what_is_not_given_is_left_out(tmp_path: Path) -> None:
    first, second = sentences(
        tmp_path, line("1", "我", "_", "_", "_"), "", "", line("1", "你", "PRON", "_", "_")
    )
    assert first == {"text": "我", "words": [{"start": 0, "end": 1}]}
    assert second["words"] == [{"start": 0, "end": 1, "upos": "PRON"}]


BAD = {
    "a gap": ([line("1", "我"), line("3", "你")], 2, "ID '3' where word 2 of the sentence is expected"),
    "a head": ([line("1", "我", "X", "ROOT")], 1, "HEAD 'ROOT' is no number"),
    "a range": ([line("1", "我"), line("3-4", "好的")], 2, "the range 3-4 does not begin with the next word, 2"),
    "an open range": ([line("1-2", "好的"), line("1", "好")], 1, "a range ends with word 2, the last is 1"),
    "columns": ([line("1", "我"), "2\t你"], 2, "2 column(s) between tabs, CoNLL-U has 10"),
    "another text": (
        ["# text = 你好", line("1", "我")], 1, "the token '我' does not stand at character 0 of '# text', where '你好'",
    ),
    "more text": (["# text = 我们", line("1", "我")], 1, "'# text' goes on behind the last token: '们'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_costs_its_sentence(tmp_path: Path, name: str) -> None:
    lines, number, said = BAD[name]
    path = tmp_path / "a.conllu"
    content = [line("1", "好"), "", *lines, "", line("1", "坏")]
    path.write_text("\n".join(content), encoding="utf-8")
    items = list(scan_records(Source(path=str(path))))
    assert [item.data["text"] for item in items if not isinstance(item, Rejected)] == ["好", "坏"]
    (bad,) = (item for item in items if isinstance(item, Rejected))
    assert bad.line == number + 2 and said in bad.problem.message


def test_a_file_of_another_format_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.conllu:1: 2 column\(s\) between tabs, CoNLL-U has 10"):
        sentences(tmp_path, "我\tO", "你\tO")


def test_what_is_no_tree_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    circle = [line("1", "我", "X", "2", "a"), line("2", "你", "X", "1", "b"), line("3", "他")]
    two = [line("1", "我"), line("2", "你")]
    path.write_text("\n".join([*circle, "", *two]), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_examples(str(path), DependencyExample)
    said = "\n".join(map(str, error.value.problems))
    assert "a.conllu:1: words[0]: its heads never reach the root: 1 to 2 to 1 is a circle" in said
    assert (
        "a.conllu:5: words[1]: a sentence has exactly one root (head 0), this one has 2 (words[0], words[1])"
        in said
    )


def test_written_and_read_again(tmp_path: Path) -> None:
    """Several sentences of one text, blanks of all kinds between and inside of words."""
    text = " 我爱\tNew\nYork。 It's\u3000fine!"
    words = [
        {"start": 1, "end": 2, "upos": "PRON", "head": 2, "relation": "nsubj"},
        {"start": 2, "end": 3, "upos": "VERB", "head": 0, "relation": "root"},
        {"start": 4, "end": 12, "upos": "PROPN", "head": 2, "relation": "obj"},
        {"start": 12, "end": 13, "upos": "PUNCT", "head": 2, "relation": "punct"},
        {"start": 14, "end": 16, "head": 3, "relation": "nsubj"},
        {"start": 16, "end": 18, "head": 3, "relation": "cop"},
        {"start": 19, "end": 23, "head": 0, "relation": "root"},
        {"start": 23, "end": 24, "head": 3, "relation": "punct"},
    ]
    ranges = [{"start": 1, "end": 13}, {"start": 14, "end": 24}]
    lines = conllu_lines({"id": 7, "text": text, "words": words, "sentences": ranges})
    first, second = sentences(tmp_path, lines)
    assert [first["text"], second["text"]] == ["我爱 New York。", "It's\u3000fine!"]
    assert [first["id"], second["id"]] == ["7-1", "7-2"]
    for record, part in ((first, words[:4]), (second, words[4:])):
        assert surfaces(record) == [text[w["start"] : w["end"]].replace("\n", " ") for w in part]
        for key in ("upos", "head", "relation"):
            assert [w.get(key) for w in record["words"]] == [w.get(key) for w in part]


TREEBANKS = {
    # sentences and words as the sources count them
    "ud_zh_gsdsimp/zh_gsdsimp-ud-dev": (500, 12_663),
    "ud_en_ewt/en_ewt-ud-test": (2_077, 25_094),
}


@pytest.mark.parametrize("name", TREEBANKS)
def test_treebanks_as_they_are(name: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / f"{name}.conllu"
    records = [record.data for record in read_records(Source(path=str(path)))]
    assert (len(records), sum(len(r["words"]) for r in records)) == TREEBANKS[name]
    raw = path.read_text(encoding="utf-8").split("\n")
    assert [r["text"] for r in records] == [
        x.removeprefix("# text = ") for x in raw if x.startswith("# text =")
    ]
    plain = [cells for x in raw if len(cells := x.split("\t")) == 10 and cells[0].isdigit()]
    found = [(r, w) for r in records for w in r["words"]]
    assert [
        (r["text"][w["start"] : w["end"]], w["upos"], str(w["head"]), w["relation"]) for r, w in found
    ] == [(cells[1], cells[3], cells[6], cells[7]) for cells in plain]
    copy = tmp_path / "copy.conllu"
    copy.write_text("".join(map(conllu_lines, records)), encoding="utf-8")
    assert [record.data for record in read_records(Source(path=str(copy)))] == records
