"""What is told of a tokenizer: a text in pieces, counts over lines, the contents of a vocabulary, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_tokenizers import byte_level, sentencepiece, wordpiece
from transformers import AutoTokenizer

from tiny import tiny_backbone_folder
from wenmai.backbones.tokenizer_use import Usage, contents, cut, script, usage
from wenmai.cli import main


def test_a_text_in_pieces() -> None:
    found = cut(wordpiece(), "我\u200b爱hello龘")
    assert [(one.text, one.start, one.end) for one in found.pieces] == [
        ("我", 0, 1),
        ("爱", 2, 3),
        ("hello", 3, 8),
        ("龘", 8, 9),
    ]
    assert [one.unknown for one in found.pieces] == [False, False, False, True]
    assert found.lost == [(1, 2)]
    assert cut(wordpiece(), "我 爱", characters=True).lost == []


def test_counts_over_lines() -> None:
    found = usage(wordpiece(), iter(["我爱 hello", "龘龘我\u200b"]))
    assert found == Usage(
        lines=2,
        characters=11,
        words=7,
        tokens=6,
        unknown=2,
        covered=1 - 3 / 11,
        most_unknown=[("龘", 2), ("\u200b", 1)],
    )
    assert found.characters_per_token == 11 / 6
    assert found.tokens_per_word == 6 / 7
    assert found.unknown_share == 2 / 6
    assert usage(wordpiece(), []).tokens == 0


def test_contents_of_a_vocabulary() -> None:
    found = contents(sentencepiece("中国", "▁hello"))
    assert found.scripts["special"] == 5
    assert found.scripts["no text"] == 1  # the word mark
    assert found.scripts["latin"] == 53
    assert found.lengths[5] == 1
    assert found.lengths[2] == 1
    assert sum(found.scripts.values()) == found.tokens == sum(found.lengths.values()) + 5
    assert contents(byte_level()).scripts["no text"] > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [("中の", "chinese"), ("aé", "latin"), ("Ａ", "latin"), ("я", "other letters"), ("12", "digits")],
)
def test_scripts(text: str, expected: str) -> None:
    assert script(text) == expected
    assert script(f"{text}，") == "mixed"


def test_learning_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("我爱北京\n\n" * 20 + "北京大学\n" * 20, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": "上海大学"}) + "\n", encoding="utf-8")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]
    arguments = ["tokenizer", "train", *files, "--field", "body", "--size", "200", "--hold-out", "7"]
    arguments += ["--min-frequency", "1", "--coverage", "1", "--extra", "[E]", "--json"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "the texts hold no more than" in printed.err
    assert found["vocabulary"]["scripts"]["chinese"] == 8
    assert (found["usage"]["lines"], found["usage"]["unknown"]) == (6, 0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("上海[E]") == ["上", "海", "[E]"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "other"), "--hold-out", "1"]) == 2
    assert "leaves no line to learn from" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "other"), "--special", "a,b"]) == 2
    assert "expected five names" in capsys.readouterr().err
    (tmp_path / "b.jsonl").write_text('{"text": "上"}\n', encoding="utf-8")
    assert main([*arguments, "--output", str(tmp_path / "other")]) == 2
    assert "b.jsonl:1: body: the record has no text there, it has text" in capsys.readouterr().err


def test_looking_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tiny_backbone_folder(tmp_path / "model"))
    assert main(["tokenizer", "inspect", folder, "我爱龘[", "--json"]) == 0
    assert [one["token"] for one in json.loads(capsys.readouterr().out)["pieces"]] == [
        "我",
        "爱",
        "[UNK]",
        "[",
    ]
    assert main(["tokenizer", "inspect", folder, "我爱龘["]) == 0
    assert "4 characters, 4 tokens, 1 of them unknown" in capsys.readouterr().out
    (tmp_path / "a.txt").write_text("我爱\n龘\n", encoding="utf-8")
    assert main(["tokenizer", "inspect", folder, "--file", str(tmp_path / "a.txt")]) == 0
    shown = capsys.readouterr().out
    assert "33.3333%" in shown and "龘 1" in shown and "chinese" in shown
    assert main(["tokenizer", "inspect", folder, "我", "--file", str(tmp_path / "a.txt")]) == 2
    assert "ask one at a time" in capsys.readouterr().err
    assert main(["tokenizer", "inspect", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
