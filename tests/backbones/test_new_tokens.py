"""New tokens for a model: where their rows come from, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_tokenizers import byte_level, sentencepiece, wordpiece
from test_replace_vocabulary import model_of
from transformers import AutoModel, AutoTokenizer

from tiny import decoder_folder, masked_lm_folder, tiny_backbone_folder
from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.load import load_backbone, load_folder
from wenmai.backbones.new_tokens import NewToken, check_unchanged, extend_vocabulary
from wenmai.backbones.new_tokens_folder import extend_model
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import load_bundle, save_bundle
from wenmai.cli import main
from wenmai.errors import UserError
from wenmai.tasks import TASKS
from wenmai.tasks.masked_lm import MaskedLM
from wenmai.tasks.model import Model, build_model

TEXTS = ["我在北京大学读书。", "张三爱上海！", "hello 123"]


@pytest.mark.parametrize("make", [wordpiece, sentencepiece, byte_level])
def test_old_texts_stay_and_new_tokens_are_found(make: Any) -> None:
    tokenizer: Tokenizer = make()
    backbone, before = model_of(tokenizer), model_of(tokenizer)
    larger, added = extend_vocabulary(
        backbone, tokenizer, [NewToken("北京大学"), NewToken("[E1]", special=True)]
    )
    assert len(tokenizer.pretrained) == tokenizer.vocab_size == larger.vocab_size - 2
    assert backbone.word_embeddings.num_embeddings == backbone.config.vocab_size == larger.vocab_size
    checked = check_unchanged((before, tokenizer), (backbone, larger), added, TEXTS)
    assert (checked.changed, checked.texts - checked.same) == (1, 1)
    assert checked.run == checked.same

    text = "我在北京大学[E1]读书"
    encoded = larger.encode(text)
    found = {text[slice(*span)]: i for i, span in zip(encoded.ids, encoded.offsets, strict=True)}
    assert (found["北京大学"], found["[E1]"]) == tuple(one.id for one in added)
    old = before.word_embeddings.weight
    new = backbone.word_embeddings.weight
    torch.testing.assert_close(new[added[0].id], old[tokenizer.encode("北京大学").ids].mean(0))
    assert torch.equal(new[: len(old)], old)


def test_rows_from_words_that_mean_the_same() -> None:
    tokenizer = wordpiece()
    backbone = model_of(tokenizer)
    rows = backbone.word_embeddings.weight.detach().clone()
    _, (added,) = extend_vocabulary(backbone, tokenizer, [NewToken("央行", like=("中国", "银行"))])
    assert added.pieces == ["中", "国", "银", "行"]
    torch.testing.assert_close(backbone.word_embeddings.weight[added.id], rows[added.sources].mean(0))


def test_what_the_vocabulary_knows_nothing_of() -> None:
    tokenizer = wordpiece()
    backbone = model_of(tokenizer)
    rows = backbone.word_embeddings.weight.detach().clone()
    _, (added,) = extend_vocabulary(backbone, tokenizer, [NewToken("龘")])
    assert added.pieces == []
    torch.testing.assert_close(backbone.word_embeddings.weight[added.id], rows[5:].mean(0))
    with pytest.raises(UserError, match="the vocabulary knows nothing of 靐"):
        extend_vocabulary(model_of(tokenizer), tokenizer, [NewToken("龘", like=("靐",))])


def test_whole_words_only() -> None:
    tokenizer = wordpiece()
    larger, (added,) = extend_vocabulary(model_of(tokenizer), tokenizer, [NewToken("cat", whole_word=True)])
    assert added.id in larger.encode("a cat.").ids
    assert added.id not in larger.encode("category").ids


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([" "], "new token ' ': is blank"),
        (["[E] "], "ends with a blank"),
        (["北京", "北京"], "'北京': is given 2 times"),
        (["我", "在"], "in the vocabulary already"),
    ],
)
def test_tokens_that_cannot_be_added(tokens: list[str], message: str) -> None:
    tokenizer = wordpiece()
    with pytest.raises(UserError, match=message):
        extend_vocabulary(model_of(tokenizer), tokenizer, [NewToken(token) for token in tokens])


def test_a_change_to_old_texts_is_refused_with_the_text() -> None:
    tokenizer = wordpiece()
    backbone, before = model_of(tokenizer), model_of(tokenizer)
    larger, added = extend_vocabulary(backbone, tokenizer, [NewToken("北京大学")])
    with torch.no_grad():
        backbone.word_embeddings.weight[tokenizer.encode("爱").ids[0]] += 1
    with pytest.raises(UserError, match=r"爱.*has other hidden states than before; nothing is written"):
        check_unchanged(
            (before, tokenizer), (backbone, larger), added, [text for text in TEXTS if "爱" in text]
        )
    with pytest.raises(UserError, match="has other tokens than before"):
        check_unchanged((before, tokenizer), (before, larger), [], TEXTS)


@pytest.mark.parametrize("vocabulary", ["wordpiece", "unigram"])
def test_the_new_folder_opens_in_transformers(tmp_path: Path, vocabulary: Any) -> None:
    folder = tiny_backbone_folder(tmp_path / "model", vocabulary=vocabulary)
    done = extend_model(str(folder), [NewToken("北京大学"), NewToken("<e>", special=True)], tmp_path / "new")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    model = AutoModel.from_pretrained(tmp_path / "new").eval()
    old = AutoModel.from_pretrained(folder).eval()
    assert len(tokenizer) == model.config.vocab_size == done.tokens == old.config.vocab_size + 2
    batch = AutoTokenizer.from_pretrained(folder)(["人民喜欢电影", "hi"], padding=True, return_tensors="pt")
    again = tokenizer(["人民喜欢电影", "hi"], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], again["input_ids"])
    assert torch.equal(old(**batch).last_hidden_state, model(**again).last_hidden_state)
    marked = tokenizer("北京大学<e>").input_ids
    assert [one.id for one in done.added] == [i for i in marked if i >= old.config.vocab_size]
    assert "<e>" not in tokenizer.decode(marked, skip_special_tokens=True)
    with pytest.raises(UserError, match="is there already"):
        extend_model(str(folder), [NewToken("上海大学")], tmp_path / "new")


def test_a_bundle_that_guesses_tokens_stays_one(tmp_path: Path) -> None:
    backbone, tokenizer = load_folder(tiny_backbone_folder(tmp_path / "model"))
    task = MaskedLM(MaskedLM.Config(name="masked_lm"), [])
    model = Model(backbone, task.build_head(backbone))
    torch.nn.init.normal_(model.head.bias)
    save_bundle(tmp_path / "bundle", task, model.eval(), tokenizer)
    done = extend_model(
        str(tmp_path / "bundle"), [NewToken("北京大学")], tmp_path / "new", texts=["我在北京大学"]
    )
    assert done.checked.changed == 1
    old, new = load_bundle(tmp_path / "bundle"), load_bundle(tmp_path / "new")
    bias_V = load_file(tmp_path / "new" / "model.safetensors")["wenmai_head.bias"]
    assert len(bias_V) == done.rows
    torch.testing.assert_close(bias_V[-1], model.head.bias.detach()[done.added[0].sources].mean())
    ids = torch.tensor([[2, *old.tokenizer.encode("人民喜欢电影").ids, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        before, after = (one.model(batch, "predict")["logits"] for one in (old, new))
    torch.testing.assert_close(after[..., :-1], before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["cloze", "decoder", "adapter"])
def test_all_of_a_bundle_stays(kind: str, tmp_path: Path) -> None:
    """Other heads that guess tokens, and an adapter that stands beside the encoder."""
    folder = tiny_backbone_folder(tmp_path / "model")
    name, settings, labels, adapter = "text_classification", {}, ["坏", "好"], None
    if kind == "cloze":
        name, folder = "cloze_classification", masked_lm_folder(folder)
        settings = {"templates": ["{text}，[MASK]"], "verbalizer": {label: label for label in labels}}
    elif kind == "decoder":
        name, folder, labels = "causal_lm", decoder_folder(folder), []
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    else:
        adapter = AdapterConfig(method="p_tuning_v2", virtual_tokens=3)
    task = TASKS[name](TASKS[name].Config(name=name, **settings), labels)
    backbone, tokenizer = load_backbone(BackboneConfig(model=str(folder), adapter=adapter))
    model, tokenizer = build_model(task, backbone, tokenizer)
    save_bundle(tmp_path / "bundle", task, model.eval(), tokenizer)
    extend_model(str(tmp_path / "bundle"), [NewToken("北京大学")], tmp_path / "new")
    old, new = load_bundle(tmp_path / "bundle"), load_bundle(tmp_path / "new")
    before, after = (dict(bundle.model.named_parameters()) for bundle in (old, new))
    assert list(before) == list(after)
    grown = [key for key in before if len(after[key]) == len(before[key]) + 1]
    wanted = {"cloze": ["head.lm.bias"], "decoder": ["head.output.weight"], "adapter": []}[kind]
    assert [key for key in grown if key.startswith("head.")] == wanted
    for key in before:
        torch.testing.assert_close(after[key][: len(before[key])], before[key], rtol=0, atol=0)


def test_a_model_with_more_rows_than_tokens(tmp_path: Path) -> None:
    folder = tiny_backbone_folder(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    state[name] = torch.cat([state[name], torch.zeros(7, state[name].size(1))])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(state[name])}))
    done = extend_model(str(folder), [NewToken("北京大学")], tmp_path / "new")
    assert (done.rows, done.tokens) == (len(state[name]), len(state[name]) - 6)
    assert load_folder(tmp_path / "new")[0].word_embeddings.weight[done.added[0].id].abs().sum() > 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_backbone_folder(tmp_path / "model")
    (tmp_path / "new.tsv").write_text("光刻机\t手机\t机器\n北京大学\n", encoding="utf-8")
    (tmp_path / "texts.txt").write_text("光刻机\n手机\n\n", encoding="utf-8")
    arguments = ["tokenizer", "extend", str(folder), "[E]", "--file", str(tmp_path / "new.tsv")]
    arguments += ["--texts", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out"), "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["text"] for one in found["added"]] == ["[E]", "光刻机", "北京大学"]
    assert found["added"][1]["pieces"] == ["手", "机", "机", "器"]
    assert found["checked"]["changed"] == 1
    assert main([*arguments[:-2], str(tmp_path / "other")]) == 0
    shown = capsys.readouterr().out
    assert "光刻机" in shown and "to the last bit" in shown
    assert main(["tokenizer", "extend", str(folder), "我", "[E]", "--output", str(tmp_path / "known")]) == 0
    assert "in the vocabulary already, and left as they are: 我\n" in capsys.readouterr().err
    assert main(["tokenizer", "extend", str(folder), "--output", str(tmp_path / "third")]) == 2
    assert "no new token is given" in capsys.readouterr().err
