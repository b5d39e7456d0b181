"""Every document of a file is read once, however the file is cut; encodings are recognised, damage is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.texts import GOOD, made_up, write_records
from wenmai.corpus.encodings import detect, repair
from wenmai.corpus.inputs import chunks_of, find_files, unpack
from wenmai.corpus.reading import read_chunk
from wenmai.corpus.settings import ReadingConfig
from wenmai.errors import DataError, UserError

LINES = st.lists(st.sampled_from(["", "一", "二二", "\r", " ", "三三三三三三三", "a"]), max_size=12)


def read(path: Path, reading: ReadingConfig, chunk_bytes: int) -> list[tuple[str, str]]:
    inputs = unpack([str(path)], path.parent, reading.encoding)
    return [
        (document.text, document.place if refused is None else refused.reason)
        for chunk in chunks_of(inputs, chunk_bytes)
        for document, refused in read_chunk(chunk, reading)
    ]


@given(lines=LINES, end=st.sampled_from(["", "\n", "\n\n"]), chunk_bytes=st.integers(1, 40))
def test_lines_belong_to_one_chunk(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, chunk_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(("\n".join(["首", *lines]) + end).encode())
    found = read(path, ReadingConfig(), chunk_bytes)
    assert [text for text, _ in found] == [line.rstrip("\r") for line in ["首", *lines] if line.strip()]
    assert len({place for _, place in found}) == len(found)


@given(lines=LINES, end=st.sampled_from(["", "\n", "\n\n"]), chunk_bytes=st.integers(1, 40))
def test_blocks_belong_to_one_chunk(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, chunk_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a.txt"
    path.write_bytes(("\n".join(["首", *lines]) + end).encode())
    blocks: list[list[str]] = [[]]
    for line in ["首", *lines]:
        blocks[-1].append(line) if line.strip() else blocks.append([])
    found = read(path, ReadingConfig(unit="document"), chunk_bytes)
    assert [text for text, _ in found] == ["\n".join(block) for block in blocks if block]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "big5"])
def test_encodings_are_recognised(tmp_path: Path, encoding: str) -> None:
    text = "後來他們終於回到了故鄉，看見山上的樹木都已經長大。" if encoding == "big5" else GOOD
    path = tmp_path / "a.txt"
    path.write_bytes(f"{text}\n{text}\n".encode(encoding))
    assert [found for found, _ in read(path, ReadingConfig(), 1000)] == [text, text]
    (file,) = unpack([str(path)], tmp_path, "auto")
    assert file.encoding == encoding.removesuffix("-sig")


def test_encodings_of_real_text(shared_data: Path) -> None:
    text = (shared_data / "raw_text/classical_modern/zizhitongjian.modern.txt").read_text(encoding="utf-8")
    poems = (shared_data / "raw_text/chinese_poetry/poet.tang.0.json").read_text(encoding="utf-8")
    assert detect(text[:20000].encode("gb18030")) == "gb18030"
    assert detect(poems[:20000].encode("big5", errors="ignore")) == "big5"
    assert detect(poems[:20000].encode()) == "utf-8"


def test_a_damaged_line_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(GOOD.encode() + b"\n" + GOOD.encode()[:10] + b"\n" + GOOD.encode())
    assert [reason for _, reason in read(path, ReadingConfig(), 9)][1] == "undecodable"


def test_bad_records_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "好"}\n{"text"\n[1]\n{"txt": "好"}\n{"text": 5}\n', encoding="utf-8")
    assert [reason for _, reason in read(path, ReadingConfig(), 7)][1:] == [
        "not_json",
        "no_text",
        "no_text",
        "no_text",
    ]


def test_half_of_a_pair_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "好\\ud800的"}\n', encoding="utf-8")
    assert read(path, ReadingConfig(), 100)[0][0] == "好\ufffd的"


@pytest.mark.parametrize("unit", ["line", "document"])
def test_what_is_too_large_is_passed_over(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"短\n\n{'长' * 100}\n{'长' * 100}\n\n短\n", encoding="utf-8")
    found = read(path, ReadingConfig(unit=unit, largest_document=60), 1000)
    assert [text for text, reason in found if reason != "oversized"] == ["短", "短"]
    assert any(reason == "oversized" for _, reason in found)


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    plain = write_records(tmp_path / "a.jsonl", made_up(20))
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    work = tmp_path / "work"
    work.mkdir()
    (file,) = unpack([str(packed)], work, "auto")
    assert file.path.read_bytes() == plain.read_bytes() and file.name == str(packed)
    (work / "unpacked-000000").unlink()
    whole = gzip.compress(plain.read_bytes())
    for broken in (whole[:100], whole[:20] + bytes(20) + whole[40:]):
        packed.write_bytes(broken)
        with pytest.raises(UserError, match=r"b\.jsonl\.gz: is not a whole gzip file"):
            unpack([str(packed)], work, "auto")


def test_missing_and_empty_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as error:
        find_files([str(tmp_path / name) for name in ("no.txt", "empty.txt", "folder")])
    assert len(error.value.problems) == 3
    assert "does not exist" in str(error.value) and "without files that end in .txt" in str(error.value)


def test_utf16_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(UserError, match="iconv -f UTF-16"):
        unpack([str(tmp_path / "a.txt")], tmp_path, "auto")


def test_mojibake_is_undone() -> None:
    assert repair("中文测试".encode().decode("latin-1")) == "中文测试"
    assert repair(GOOD + "café") == GOOD + "café"
