"""Statistics are those counted by hand."""

from __future__ import annotations

from pathlib import Path

from corpus.texts import write_records
from wenmai.corpus.settings import ReadingConfig
from wenmai.corpus.statistics import LENGTHS, statistics


def test_counts(tmp_path: Path) -> None:
    one = write_records(tmp_path / "one.jsonl", ["一二三", "一二，三", "abc" * 10, "五" * 60])
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "一二三。"}\n{"txt": 1}\n', encoding="utf-8")
    found = statistics([str(one), str(other)], ReadingConfig(), processes=2)
    total = found["total"]
    assert (total["documents"], total["characters"], total["unreadable"]) == (5, 101, 1)
    assert total["bytes"] == 3 * (3 + 4 + 60 + 4) + 30
    assert total["lengths"] == {**dict.fromkeys(map(str, LENGTHS), 0), "0": 3, "20": 1, "50": 1}
    assert {name: n for name, n in total["scripts"].items() if n} == {
        "chinese": 69, "latin": 30, "punctuation": 2,
    }  # fmt: skip
    assert found["duplicates"] == 2 and found["distinct_characters"] == 9
    assert list(found["frequent"].items())[:2] == [("五", 60), ("a", 10)]
    assert found["sources"][str(other)]["documents"] == 1
