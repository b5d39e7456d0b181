"""Ids that follow a prompt as text, and the tokens at the ends of what a decoder reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_tokenizers import byte_level

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.errors import UserError


@pytest.mark.parametrize(
    ("prompt", "added", "text"),
    [("我在", "北京读书", "北京读书"), ("hello", " world", " world"), ("我", "", "")],
)
def test_text_of_bytes(prompt: str, added: str, text: str) -> None:
    tokenizer = byte_level()
    ids, more = tokenizer.encode(prompt).ids, tokenizer.pretrained(added)["input_ids"]
    assert tokenizer.continuation(ids, more) == text
    cut = tokenizer.pretrained("魑")["input_ids"]
    assert len(cut) > 1 and tokenizer.continuation(ids, [*more, *cut[:-1]]) == text


def test_text_of_pieces(tmp_path: Path) -> None:
    for vocabulary in ("wordpiece", "unigram"):
        tokenizer = load_folder(
            tiny_backbone_folder(tmp_path / vocabulary, texts=["王小明在北京"], vocabulary=vocabulary)  # type: ignore[arg-type]
        )[1]
        prompt, more = (
            tokenizer.pretrained(t, add_special_tokens=False)["input_ids"] for t in ("王小明", "北京ab 12。")
        )
        assert tokenizer.continuation(prompt, more).replace(" ", "") == "北京ab12。"
        assert not tokenizer.continuation(prompt, more).startswith(" ") or vocabulary == "unigram"


def test_a_decoders_tokenizer_marks_the_end() -> None:
    tokens = byte_level().pretrained
    tokens.eos_token = "<mask>"
    tokenizer = type(byte_level())(tokens)
    assert tokenizer.document_ends == ([tokens.eos_token_id], [tokens.eos_token_id])
    assert (tokenizer.single.before, tokenizer.single.after) == ([], [tokens.eos_token_id])
    assert (tokenizer.pair.between, tokenizer.pair.after) == ([tokens.eos_token_id], [tokens.eos_token_id])
    with pytest.raises(UserError, match="no token for the end of a text"):
        byte_level().document_ends  # noqa: B018
