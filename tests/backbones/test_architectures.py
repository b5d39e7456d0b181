"""Architectures with relative, rotary or sparse attention load as they are: tiny random ones of each."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BigBirdConfig,
    ConvBertConfig,
    DebertaV2Config,
    ErnieConfig,
    FNetConfig,
    FunnelConfig,
    LongformerConfig,
    ModernBertConfig,
    RoFormerConfig,
    XLNetConfig,
)

from tiny import common_characters, tiny_backbone_folder
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import collate
from wenmai.errors import UserError
from wenmai.tasks.model import Model
from wenmai.tasks.ner import Ner, NerConfig
from wenmai.tasks.text_classification import TextClassification, TextClassificationConfig

SIZE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
INNER: dict[str, Any] = {"intermediate_size": 32}
CONFIGS: dict[str, Callable[[int], Any]] = {
    "roformer": lambda vocab: RoFormerConfig(
        vocab_size=vocab, max_position_embeddings=1024, embedding_size=16, **SIZE, **INNER
    ),
    "longformer": lambda vocab: LongformerConfig(
        vocab_size=vocab, max_position_embeddings=1025, attention_window=32, pad_token_id=0, **SIZE, **INNER
    ),
    "big_bird": lambda vocab: BigBirdConfig(
        vocab_size=vocab, max_position_embeddings=1024, block_size=16, num_random_blocks=2, **SIZE, **INNER
    ),
    "modernbert": lambda vocab: ModernBertConfig(
        vocab_size=vocab,
        max_position_embeddings=1024,
        local_attention=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        **SIZE,
        **INNER,
    ),
    "ernie": lambda vocab: ErnieConfig(
        vocab_size=vocab,
        max_position_embeddings=1024,
        use_task_id=True,
        task_type_vocab_size=3,
        **SIZE,
        **INNER,
    ),
    "deberta-v2": lambda vocab: DebertaV2Config(
        vocab_size=vocab,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        max_position_embeddings=64,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        type_vocab_size=0,
        **SIZE,
        **INNER,
    ),
    "xlnet": lambda vocab: XLNetConfig(vocab_size=vocab, d_model=16, n_layer=2, n_head=2, d_inner=32),
    "funnel": lambda vocab: FunnelConfig(
        vocab_size=vocab,
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=32,
        block_sizes=[1, 1],
        num_decoder_layers=1,
        architectures=["FunnelModel"],
    ),
    "fnet": lambda vocab: FNetConfig(
        vocab_size=vocab,
        max_position_embeddings=1024,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=32,
        type_vocab_size=2,
    ),
    "convbert": lambda vocab: ConvBertConfig(
        vocab_size=vocab, max_position_embeddings=1024, embedding_size=16, **SIZE, **INNER
    ),
}
LIMITS = {"deberta-v2": None, "xlnet": None, "funnel": None}
DROPOUT_OF_ITS_OWN = ("longformer", "deberta-v2", "xlnet", "funnel")
"""Activations of other shapes than (rows, tokens, width): their dropout is PyTorch's, and not a function of the row."""
LONG = 700
TEXTS = [
    "今天北京天气很好",
    "好",
    "中国人民银行发布了新的货币政策报告，" * 2,
    "上海" * 17,
    "我们公司的电影质量很好" * 60,
]
"""Tokens 10, 3, 38, 36 and over 600, special ones included: odd and even, inside and beyond windows and blocks."""


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_backbone_folder(tmp_path_factory.mktemp(request.param), texts=TEXTS)
    vocabulary = len(AutoTokenizer.from_pretrained(path))
    (path / "model.safetensors").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModel.from_config(CONFIGS[request.param](vocabulary))
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Backbone, Tokenizer]:
    return load_backbone(BackboneConfig(model=str(folder)))


def rows(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Tensor]:
    template = tokenizer.single
    ids = [[*template.before, *tokenizer.encode(text).ids[: LONG - 2], *template.after] for text in texts]
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([row + [tokenizer.pad_id] * (longest - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        "token_type_ids": torch.zeros(len(ids), longest, dtype=torch.long),
    }


def test_longest_input(loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    limit = LIMITS.get(backbone.config.model_type, 1024)
    assert backbone.max_length == limit
    assert tokenizer.max_length >= 1024


@torch.no_grad()
def test_padding_and_batch_mates_change_nothing(loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    batch = rows(tokenizer, TEXTS)
    assert batch["input_ids"].size(1) > 512
    for choice in ("off", "auto"):
        backbone.set_padding_free(choice)
        together = backbone(batch)
        for i, text in enumerate(TEXTS):
            alone = backbone(rows(tokenizer, [text]))[0]
            torch.testing.assert_close(together[i, : len(alone)], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_transformers_gives_the_same(folder: Path, loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    kind = backbone.config.model_type
    for text in (TEXTS[0], TEXTS[-1]):
        batch = rows(tokenizer, [text])
        theirs = AutoModel.from_pretrained(folder).eval()  # anew: BigBird changes with what it reads
        known = {name: batch[name] for name in backbone.inputs if name in batch}
        if kind == "longformer":
            known["global_attention_mask"] = torch.zeros_like(batch["input_ids"])
            known["global_attention_mask"][:, 0] = 1
        torch.testing.assert_close(backbone(batch), theirs(**known).last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(find_spec("rjieba") is None, reason="RoFormer's words are cut by the package rjieba")
def test_the_words_of_roformer(tmp_path: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, "银行", "人民", "北京", "非常", *common_characters(), "，", "。", "b", "##a", "##nk"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    config = RoFormerConfig(vocab_size=len(pieces), embedding_size=16, **SIZE, **INNER)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    text = "在北京，  人民的银行非常好。bank"
    saved = tmp_path / "saved"
    backbone, tokenizer = load_backbone(BackboneConfig(model=str(tmp_path)))
    backbone.save(saved)
    tokenizer.save(saved)
    for each in (tokenizer, load_backbone(BackboneConfig(model=str(saved)))[1]):
        encoding = each.encode(text)
        assert [text[start:end] for start, end in encoding.offsets][:-3] == [
            *("在", "北京", "，", "人民", "的", "银行", "非常", "好", "。")
        ]
        assert each.tokens(encoding.ids)[1] == "北京"
        assert each.max_length == 1536
        assert each.identity == tokenizer.identity
        assert each.encode(text).ids == encoding.ids  # reading the identity changed nothing


def test_layers_set_for_other_rows_are_not_computed_again(tmp_path: Path) -> None:
    backbone = Backbone(AutoModel.from_config(CONFIGS["big_bird"](100)))
    with pytest.raises(UserError, match="big_bird models can't compute their layers again"):
        backbone.enable_gradient_checkpointing()


@torch.no_grad()
def test_perturbations_go_with_their_rows(loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    batch = rows(tokenizer, TEXTS)
    before = backbone(batch)
    width = backbone.word_embeddings.embedding_dim
    perturbation = torch.zeros(*batch["input_ids"].shape, width)
    perturbation[2, 1] = torch.linspace(-1.0, 1.0, width)
    changed = (backbone({**batch, "perturbation": perturbation}) - before).abs().amax(dim=2)
    changed = (changed * batch["attention_mask"]).amax(dim=1)
    assert changed[2] > 1e-4
    assert changed[[0, 1, 3, 4]].max() < 1e-5


def test_under_the_heads(loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    text = TEXTS[-1]
    classification = TextClassification(TextClassificationConfig(max_length=LONG), ["a", "b"])
    ner = Ner(NerConfig(max_length=LONG), ["地名"])
    spans = [{"start": 2, "end": 4, "label": "地名"}]
    examples: list[tuple[Any, Any]] = [
        (classification, [classification.Example(text=t, label="a") for t in (text, "好")]),
        (ner, [ner.Example(text=t, entities=spans) for t in (text, "今天北京")]),
    ]
    for task, given in examples:
        model = Model(backbone, task.build_head(backbone)).train()
        batch = collate(
            [row for example in given for row in task.featurize(example, tokenizer)], tokenizer.pad_id
        )
        batch["key"] = torch.arange(len(batch["input_ids"]))
        model.zero_grad()
        losses = []
        for _ in range(2):
            loss, terms = model.head.loss(model(batch, "train"), batch)
            losses.append(loss.detach())
        loss.backward()
        if backbone.config.model_type not in DROPOUT_OF_ITS_OWN:
            assert losses[0] == losses[1]
        assert terms > 0 and torch.isfinite(loss)
        words = backbone.word_embeddings.weight.grad
        assert words is not None and words.abs().sum() > 0 and torch.isfinite(words).all()
        model.eval()
