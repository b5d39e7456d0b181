"""A model gets another vocabulary: where its new rows come from, and that it is still a model of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_tokenizers import byte_level, sentencepiece, wordpiece
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from tiny import tiny_backbone_folder
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.vocabulary import VocabularyChange, replace_vocabulary
from wenmai.errors import UserError


def model_of(tokenizer: Tokenizer) -> Backbone:
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=tokenizer.pad_id,
    )
    torch.manual_seed(0)
    return Backbone(BertModel(config, add_pooling_layer=False)).eval()


def replaced(old: Tokenizer, new: Tokenizer) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Rows by token, before and after."""
    backbone = model_of(old)
    before = backbone.word_embeddings.weight.detach().clone()
    change = replace_vocabulary(backbone, old, new)
    assert change.copied + change.averaged + change.unknown == new.vocab_size
    after = backbone.word_embeddings.weight.detach()
    return (
        dict(zip(old.tokens(range(old.vocab_size)), before, strict=True)),
        dict(zip(new.tokens(range(new.vocab_size)), after, strict=True)),
    )


def test_sentencepiece_becomes_wordpiece() -> None:
    old, new = replaced(sentencepiece("▁hello", "ing", "▁中"), wordpiece())
    assert torch.equal(new["国"], old["国"])
    assert torch.equal(new["中"], old["中"])  # not the one that begins a text
    assert torch.equal(new["hello"], old["▁hello"])
    assert torch.equal(new["##ing"], old["ing"])
    assert torch.equal(new["a"], old["a"])
    roles = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    for ours, theirs in roles.items():
        assert torch.equal(new[ours], old[theirs])


def test_wordpiece_becomes_sentencepiece() -> None:
    old, new = replaced(wordpiece(), sentencepiece("中国", "▁北京", "▁hello", "龘"))
    torch.testing.assert_close(new["中国"], (old["中"] + old["国"]) / 2)
    torch.testing.assert_close(new["▁北京"], (old["北"] + old["京"]) / 2)
    assert torch.equal(new["▁hello"], old["hello"])
    ordinary = torch.stack([row for token, row in old.items() if not (token[0] == "[" and token[1:])])
    torch.testing.assert_close(new["龘"], ordinary.mean(0))  # the old one does not know it


def test_bytes_become_wordpiece() -> None:
    old, new = replaced(byte_level(), wordpiece())
    assert torch.equal(new["a"], old["a"])
    pieces = byte_level()
    expected = torch.stack([old[token] for token in pieces.tokens(pieces.encode("我").ids)]).mean(0)
    torch.testing.assert_close(new["我"], expected)


def test_the_saved_model_opens_in_transformers(tmp_path: Path) -> None:
    old, new = sentencepiece(), wordpiece()
    backbone = model_of(old)
    replace_vocabulary(backbone, old, new)
    backbone.save(tmp_path)
    new.save(tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)(["中国 hello", "好"], padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(tmp_path).eval()
    assert model.config.vocab_size == new.vocab_size
    assert model.config.pad_token_id == new.pad_id
    torch.testing.assert_close(model(**batch).last_hidden_state, backbone(dict(batch)))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_in_the_configuration(tmp_path: Path, weights: str) -> None:
    old = tiny_backbone_folder(tmp_path / "old", vocabulary="unigram")
    new = tiny_backbone_folder(tmp_path / "new", vocabulary="wordpiece", texts=["龘"])
    before, old_tokenizer = load_backbone(BackboneConfig(model=str(old)))
    section = {"model": str(old), "tokenizer": str(new), "weights": weights, "normalize": "nfkc"}
    backbone, tokenizer = load_backbone(BackboneConfig.model_validate(section))
    assert tokenizer.tokens(tokenizer.encode("中国").ids) == ["中", "国"]
    assert tokenizer.normalize == "nfkc"
    assert tokenizer.max_length == 512
    assert backbone.config.vocab_size == tokenizer.vocab_size == backbone.word_embeddings.num_embeddings

    def row(model: Backbone, one: Tokenizer, token: str) -> torch.Tensor:
        return model.word_embeddings.weight[one.pretrained.convert_tokens_to_ids(token)]

    same = torch.equal(row(backbone, tokenizer, "国"), row(before, old_tokenizer, "国"))
    assert same == (weights == "pretrained")


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    model = str(tiny_backbone_folder(tmp_path / "model"))
    with pytest.raises(UserError, match="there is no such folder; give one that holds a tokenizer"):
        load_backbone(BackboneConfig(model=model, tokenizer=str(tmp_path / "nowhere")))


def test_positions_that_begin_after_the_padding() -> None:
    """RoBERTa would read every text at other positions."""
    old, new = sentencepiece(), wordpiece()
    config = RobertaConfig(
        vocab_size=old.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
        pad_token_id=1,
    )
    backbone = Backbone(RobertaModel(config, add_pooling_layer=False))
    with pytest.raises(UserError, match=r"positions from the id of its padding token \(1\)"):
        replace_vocabulary(backbone, old, new)
    assert replace_vocabulary(backbone, old, sentencepiece("中国")) == VocabularyChange(
        copied=old.vocab_size, averaged=1, unknown=0
    )
