"""Networks that are described: transformers' own of the same configuration, drawn by the seed, errors in words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizers import byte_level, wordpiece
from transformers import AutoConfig, BertConfig, BertModel

from wenmai.backbones.load import Backbone, load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import load_config
from wenmai.errors import ConfigError, UserError

BERT = {
    "model_type": "bert",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 50,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 24,
    "num_hidden_layers": 2,
    "n_head": 3,
    "max_position_embeddings": 50,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    wordpiece().save(folder)
    return folder


def build(architecture: dict[str, Any], tokenizer: Path, **keys: Any) -> tuple[Backbone, Tokenizer]:
    torch.manual_seed(keys.pop("seed", 0))
    return load_backbone(BackboneConfig(architecture=architecture, tokenizer=str(tokenizer), **keys))


def problems(tmp_path: Path, backbone: str) -> list[tuple[str, str]]:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"task: {{name: masked_lm}}\nbackbone: {backbone}\ndata: {{train: a.jsonl}}\noutput: runs/a\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [(problem.place.removeprefix(f"{path}: "), problem.message) for problem in caught.value.problems]


def test_is_the_network_of_transformers_with_the_tokenizers_vocabulary(words: Path) -> None:
    backbone, tokenizer = build(BERT, words)
    sizes = {key: value for key, value in BERT.items() if key != "model_type"}
    torch.manual_seed(0)
    expected = BertModel(
        BertConfig(**sizes, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id),
        add_pooling_layer=False,
    )
    assert backbone.model.config.vocab_size == tokenizer.vocab_size
    assert tokenizer.max_length == 50 and not backbone.training
    for (name, found), (other, wanted) in zip(
        backbone.model.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    again, other_seed = build(BERT, words)[0], build(BERT, words, seed=1)[0]
    assert torch.equal(again.word_embeddings.weight, backbone.word_embeddings.weight)
    assert not torch.equal(other_seed.word_embeddings.weight, backbone.word_embeddings.weight)


def test_special_ids_are_the_tokenizers(words: Path, tmp_path: Path) -> None:
    config = build(GPT2, words)[0].config
    tokens = wordpiece().pretrained
    assert (config.bos_token_id, config.eos_token_id) == (tokens.cls_token_id, tokens.sep_token_id)
    assert config.pad_token_id == tokens.pad_token_id
    byte_level().save(tmp_path)
    config = build(GPT2, tmp_path)[0].config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, 0)
    modern = {**BERT, "model_type": "modernbert"}
    assert build(modern, words)[0].config.cls_token_id == tokens.cls_token_id


def test_both_names_of_a_key_mean_the_same(words: Path) -> None:
    one, _ = build(GPT2, words)
    other, _ = build(
        {"model_type": "gpt2", "hidden_size": 24, "n_layer": 2, "n_head": 3, "n_positions": 50}, words
    )
    assert one.config.to_dict() == other.config.to_dict()
    assert (one.hidden_size, one.max_length, len(one.layers or ())) == (24, 50, 2)


def test_dropout_and_normalization_are_those_of_the_section(words: Path) -> None:
    backbone, tokenizer = build(BERT, words, dropout=0.25, normalize="nfkc")
    assert {m.p for m in backbone.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert tokenizer.normalize == "nfkc"


@pytest.mark.parametrize("layers", [2, 8])
def test_gpt2_begins_its_residual_projections_smaller_with_depth(words: Path, layers: int) -> None:
    """Radford et al. 2019: by 1/√N of the N = 2 · layers residual additions; pre-norm."""
    sizes = {"n_embd": 120, "n_layer": layers, "n_head": 4, "n_positions": 32}
    model = build({"model_type": "gpt2", **sizes}, words)[0].model
    for block in model.h:
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            assert projection.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * layers), rel=0.03)
        for free in (block.attn.c_attn, block.mlp.c_fc):
            assert free.weight.std().item() == pytest.approx(0.02, rel=0.03)
    layer, x_BTH = model.h[0].eval(), torch.randn(1, 5, 120)
    for norm in (layer.ln_1, layer.ln_2):  # before what they belong to: with both at 0, only biases are added
        torch.nn.init.zeros_(norm.weight)
    torch.testing.assert_close(layer(x_BTH), x_BTH)


def test_saved_it_is_a_model_folder_like_any_other(words: Path, tmp_path: Path) -> None:
    backbone, tokenizer = build(GPT2, words)
    backbone.save(tmp_path)
    tokenizer.save(tmp_path)
    again, _ = load_folder(tmp_path)
    ids = torch.tensor([[7, 8, 9]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    torch.testing.assert_close(again(batch), backbone(batch))
    assert AutoConfig.from_pretrained(tmp_path).model_type == "gpt2"


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("{hidden_size: 8}", "architecture.model_type: missing"),
        ("{model_type: brt}", "no plain model for 'brt'; did you mean 'bert'? some of those it has: bert,"),
        ("{model_type: t5}", "encoder with a decoder"),
        (
            "{model_type: bert, hiden_size: 8}",
            "architecture.hiden_size: bert has no such key; did you mean 'hidden_size'? allowed: hidden_size,",
        ),
        ("{model_type: bert, vocab_size: 8}", "vocab_size: is the tokenizer's; remove it here"),
        ("{model_type: bert, hidden_size: wide}", "'hidden_size' expected int, got str (value: 'wide')"),
        ("{model_type: gpt2, hidden_size: wide}", "'n_embd' expected int, got str"),
        ("{model_type: gpt2, n_embd: 8, hidden_size: 8}", "another name of n_embd"),
    ],
)
def test_wrong_keys_are_told(tmp_path: Path, architecture: str, message: str) -> None:
    ((key, found),) = problems(tmp_path, f"{{tokenizer: words, architecture: {architecture}}}")
    assert key == "backbone" and message in found


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{layers: 2}", "give model (e5-small"),
        ("{model: a, architecture: {model_type: bert}}", "exclude each other"),
        ("{architecture: {model_type: bert}}", "architecture needs tokenizer"),
        ("{architecture: {model_type: bert}, tokenizer: a, layers: 2}", "num_hidden_layers"),
    ],
)
def test_one_network_and_its_vocabulary(tmp_path: Path, section: str, message: str) -> None:
    ((key, found),) = problems(tmp_path, section)
    assert key == "backbone" and message in found


def test_sizes_that_do_not_fit_together_and_missing_tokenizers(words: Path) -> None:
    with pytest.raises(UserError, match=r"backbone\.architecture: no bert can be built so: .*not a multiple"):
        build({**BERT, "num_attention_heads": 5}, words)
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        build(BERT, words / "nowhere")
