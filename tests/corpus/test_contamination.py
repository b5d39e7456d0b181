"""Planted test sentences are found in every disguise and format, and what only looks like them stays."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from corpus.texts import GOOD, made_up, texts_in, write_records
from wenmai.corpus.contamination import matches, read_test_sets, squeezed
from wenmai.corpus.documents import Document, Rejection
from wenmai.corpus.running import Job
from wenmai.corpus.settings import CorpusConfig, DecontaminateConfig
from wenmai.corpus.verbs import decontaminate
from wenmai.errors import DataError, UserError

LONG = "中国人民银行上海分行行长昨天在新闻发布会上说，外资银行已增加到四十家。"
SHORT = "浦东新区的今天"
FORMATS = {
    "a.jsonl": json.dumps({"id": "1", "text": LONG, "entities": [{"label": "ORG"}]}, ensure_ascii=False),
    "a.json": json.dumps({"data": [{"paragraphs": [{"context": LONG}]}]}, ensure_ascii=False, indent=1),
    "tokens.json": json.dumps([{"words": list(LONG)}], ensure_ascii=False),
    "a.csv": f'label,text\n0,"{LONG}"\n',
    "a.tsv": f"{LONG}\t3\n",
    "a.txt": f"{LONG}\n",
    "separators.jsonl": json.dumps({"text": f"{LONG[:9]}\u2028{LONG[9:]}"}, ensure_ascii=False),
    "separators.csv": f"0,{LONG[:9]}\u2028{LONG[9:]}\r\n",
    "a.conll": "\n".join(f"{character}\tO" for character in LONG) + "\n\n中 B-LOC\n国 I-LOC\n",
}


def step(folder: Path, text: str = LONG, **settings: object) -> object:
    path = folder / "test.txt"
    path.write_text(text + "\n", encoding="utf-8")
    return read_test_sets(DecontaminateConfig.model_validate({"test_sets": [str(path)], **settings}))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_searched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[name], encoding="utf-8")
    found = read_test_sets(DecontaminateConfig(test_sets=[str(tmp_path)]))(Document(f"{GOOD}{LONG}{GOOD}"))
    assert isinstance(found, Rejection) and found.reason == "contaminated" and found.group == str(path)


@pytest.mark.parametrize(
    "disguise",
    [
        LONG,
        LONG[9:22],
        LONG.replace("，", " —— "),
        " ".join(LONG),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in LONG),
        f"{GOOD}\n\n{LONG[:20]}\n{LONG[20:]}",
    ],
)
def test_disguises_are_seen_through(tmp_path: Path, disguise: str) -> None:
    assert isinstance(step(tmp_path)(Document(f"开头{disguise}结尾")), Rejection)  # type: ignore[operator]


@pytest.mark.parametrize("text", [GOOD, LONG[:12], LONG[:12] + "又" + LONG[12:24], SHORT])
def test_what_shares_less_stays(tmp_path: Path, text: str) -> None:
    document = Document(text)
    assert step(tmp_path)(document) is document  # type: ignore[operator]


def test_short_sentences_count_as_a_whole(tmp_path: Path) -> None:
    found = step(tmp_path, f"{SHORT}很好。{GOOD}")
    assert isinstance(found(Document(f"他说{SHORT}很好吗")), Rejection)  # type: ignore[operator]
    assert isinstance(found(Document(f"他说{SHORT}不好")), Document)  # type: ignore[operator]


def test_only_the_sentence_goes_if_asked(tmp_path: Path) -> None:
    found = step(tmp_path, remove="sentence")
    outcome = found(Document(f"第一句在前面。{LONG}最后一句在后面。"))  # type: ignore[operator]
    assert isinstance(outcome, Document) and outcome.text == "第一句在前面。最后一句在后面。"
    assert outcome.changes == (f"sentences removed: {tmp_path / 'test.txt'}",)
    across = found(Document(f"前面。{LONG[:10]}。{LONG[10:20]}。后面。"))  # type: ignore[operator]
    assert isinstance(across, Document) and across.text == "前面。后面。"
    assert isinstance(found(Document(LONG)), Rejection)  # type: ignore[operator]


def test_all_planted_sentences_go_and_the_report_names_the_sets(tmp_path: Path) -> None:
    tests, texts = made_up(40, length=30, seed=9), made_up(200, seed=1)
    one, other = tmp_path / "one.txt", tmp_path / "other.jsonl"
    one.write_text("\n".join(tests[:20]), encoding="utf-8")
    write_records(other, tests[20:])
    planted = [text[:30] + test + text[30:] for text, test in zip(texts, tests, strict=False)]
    given = write_records(tmp_path / "in.jsonl", [*planted, *texts[40:]])
    config = CorpusConfig.model_validate({"decontaminate": {"test_sets": [str(one), str(other)]}})
    report = decontaminate(Job([str(given)], tmp_path / "out.jsonl", processes=2, chunk_bytes=2000), config)
    assert texts_in(tmp_path / "out.jsonl") == texts[40:]
    assert matches(report) == {str(one): 20, str(other): 20}


def test_real_test_sets_are_found_in_their_own_files(shared_data: Path) -> None:
    path = shared_data / "thucnews_titles" / "test.txt"
    kept_out = read_test_sets(DecontaminateConfig(test_sets=[str(path)]))
    titles = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()[:300]]
    long = [title for title in titles if len(squeezed(title)) >= 8]
    assert len(long) > 250
    assert all(isinstance(kept_out(Document(f"正如{title}所说")), Rejection) for title in long)


def test_a_packed_test_set_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl.gz"
    path.write_bytes(gzip.compress(FORMATS["a.jsonl"].encode()))
    found = read_test_sets(DecontaminateConfig(test_sets=[str(path)]))(Document(f"据报道：{LONG}"))
    assert isinstance(found, Rejection)


@pytest.mark.parametrize("content", [LONG.encode("utf-16"), b"PAR1" + bytes(range(256)) * 40 + b"\0" * 300])
def test_a_test_set_that_can_not_be_searched_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "test.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"test\.parquet: is (in UTF-16|no text)"):
        read_test_sets(DecontaminateConfig(test_sets=[str(path)]))


def test_letters_that_look_otherwise_at_the_end_of_a_word(tmp_path: Path) -> None:
    greek = "Ο ΣΟΦΟΣ ΑΝΘΡΩΠΟΣ ΕΙΝΑΙ ΣΟΦΟΣ."
    kept_out = step(tmp_path, greek, remove="sentence")
    found = kept_out(Document(f"{LONG}{greek}完了。"))
    assert isinstance(found, Document) and greek not in found.text and found.text.startswith(LONG[:10])


def test_a_test_set_without_anything_to_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no text of 8 letters or more"):
        step(tmp_path, "太短")
    with pytest.raises(DataError, match="does not exist; name a file or folder"):
        read_test_sets(DecontaminateConfig(test_sets=[str(tmp_path / "no")]))
