"""Decoders: packed is padded is transformers, also with windows, shared heads and sparse layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_tokenizers import wordpiece
from test_packing import LENGTHS, assert_same, gradients
from test_packing import batch_of as padded_batch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2Model,
    GPTNeoConfig,
    GPTNeoModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from wenmai.backbones.dropout import key_dropout
from wenmai.backbones.load import Backbone, load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.view import View
from wenmai.errors import UserError
from wenmai.heads.classification import ClassificationHead
from wenmai.tasks.model import Model

SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SPARSE = {"window": 3, "stride": 4}


def sparse_gpt2() -> GPT2Model:
    config = GPT2Config(**SIZES)
    config.sparse_attention = SPARSE
    return GPT2Model(config)


DECODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2Model(GPT2Config(**SIZES)),
    "gpt2-sparse": sparse_gpt2,
    "llama": lambda: LlamaModel(
        LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=40, attention_dropout=0.1)
    ),
    "qwen3-window": lambda: Qwen3Model(
        Qwen3Config(
            **SIZES,
            num_key_value_heads=2,
            head_dim=6,
            intermediate_size=40,
            use_sliding_window=True,
            sliding_window=5,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
        )
    ),
}


def model_of(name: str) -> Model:
    torch.manual_seed(0)
    backbone = Backbone(DECODERS[name]().double())
    with torch.no_grad():  # initial weights are so small that attention would be a mean
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    head = ClassificationHead(backbone.hidden_size, 3, pooling="mean", dropout=0.1, hidden_layer=True)
    return Model(backbone, head.double())


def batch_of(model: Model, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    return padded_batch(model, lengths)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", DECODERS)
def test_packed_is_padded(name: str, training: bool) -> None:
    model = model_of(name).train(training)
    batch = batch_of(model)
    expected = gradients(model, batch)
    model.backbone.set_padding_free("on")
    assert model.backbone.padding_free
    assert_same(gradients(model, batch), expected)


@pytest.mark.parametrize("padding_free", ["on", "off"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", DECODERS)
def test_no_token_sees_what_follows(name: str, training: bool, padding_free: str) -> None:
    """Also in batches without padding, for which transformers passes no mask at all."""
    model = model_of(name).train(training)
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    batch = batch_of(model, (11, 11))
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][:, 6] = 77
    before, after = model.backbone(batch), model.backbone(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6], atol=1e-12, rtol=0)
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=-1).gt(1e-6).all()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3-window"])
def test_evaluation_is_the_plain_model_of_transformers(name: str) -> None:
    torch.manual_seed(0)
    plain = DECODERS[name]().double().eval()
    model = model_of(name).eval()
    plain.load_state_dict(model.backbone.model.state_dict())
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    expected = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(model.backbone(batch)[real], expected[real], atol=1e-12, rtol=1e-12)
    model.backbone.set_padding_free("on")
    torch.testing.assert_close(model.backbone(batch)[real], expected[real], atol=1e-10, rtol=1e-10)
    single = model.float().backbone(batch)[real]
    torch.testing.assert_close(single, expected[real].float(), atol=1e-5, rtol=1e-5)


def test_is_known_by_trying() -> None:
    assert all(model_of(name).backbone.causal for name in DECODERS)
    from test_packing import model_of as encoder_of

    assert not any(encoder_of(name).backbone.causal for name in ("bert", "modernbert", "distilbert"))


def test_attention_of_their_own_stays_padded() -> None:
    """GPT-Neo's local layers hide their window inside the module: found out, and left alone."""
    config = GPTNeoConfig(
        vocab_size=90,
        hidden_size=24,
        num_layers=2,
        num_heads=3,
        attention_types=[[["global", "local"], 1]],
        window_size=3,
        max_position_embeddings=64,
    )
    backbone = Backbone(GPTNeoModel(config).eval())
    backbone.set_padding_free("auto")
    assert backbone.causal and not backbone.padding_free


@pytest.mark.parametrize(
    "view", [View(True, 3), View(True, 3, 4), View(True, 2, 3), View(True), View(False, 3)]
)
def test_the_mask_is_the_definition(view: View) -> None:
    """Child et al. 2019: the last tokens, and from there back every so many."""
    for length, kept in ((1, 0), (9, 0), (2, 7), (1, 12)):
        found = view.mask(length, torch.device("cpu"), looked_at=length + kept)
        for i in range(length):
            for j in range(length + kept):
                back = i + kept - j
                near = view.window is None or abs(back) < view.window
                far = view.stride is not None and view.window is not None and back % view.stride == 0
                may = (near or far) and (back >= 0 or not view.causal)
                assert (True if found is None else bool(found[i, j])) == may


def test_sparse_layers_look_where_the_mask_says() -> None:
    """By gradients: with the other layers cut off, exactly the tokens of the pattern reach a token."""
    model = model_of("gpt2-sparse").backbone.model.eval()
    layer = model.h[1].attn
    x_BTH = torch.randn(1, 13, 24, dtype=torch.float64, requires_grad=True)
    for i in (0, 5, 12):
        (slope,) = torch.autograd.grad(layer(x_BTH)[0][0, i].sum(), x_BTH)
        reached = set(slope[0].abs().sum(-1).nonzero().flatten().tolist())
        assert reached == {j for j in range(i + 1) if i - j < 3 or (i - j) % 4 == 0}
        (slope,) = torch.autograd.grad(model.h[0].attn(x_BTH, attention_mask=None)[0][0, i].sum(), x_BTH)
        assert len(slope[0].abs().sum(-1).nonzero()) == i + 1


def test_sparse_layers_are_described_kept_and_refused(tmp_path: Path) -> None:
    wordpiece().save(tmp_path / "words")
    keys = {"model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 50}

    def load(**more: object) -> Backbone:
        section = {"architecture": {**keys, **more}, "tokenizer": str(tmp_path / "words")}
        return load_backbone(BackboneConfig.model_validate(section))[0]

    backbone = load(sparse_attention=SPARSE)
    ids = torch.arange(20, 40)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    backbone.save(tmp_path)
    wordpiece().save(tmp_path)
    again, _ = load_folder(tmp_path)
    again.set_padding_free("on")
    torch.testing.assert_close(again(batch), backbone(batch))
    dense = load()
    dense.load_state(backbone.state_for_saving())
    assert not torch.allclose(dense(batch), backbone(batch), atol=1e-6)
    with pytest.raises(ValueError, match=r"architecture\.sparse_attention: expected \{window"):
        load(sparse_attention={"stride": 3})
    with pytest.raises(UserError, match="is for decoders"):
        load(sparse_attention=SPARSE, n_layer=1)


@pytest.mark.parametrize("padding_free", ["on", "off"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_checkpointing_gives_the_same_gradients(name: str, padding_free: str) -> None:
    model = model_of(name).train()
    key_dropout(model, model.backbone.keys)
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    batch = batch_of(model)
    expected = gradients(model, batch)
    model.backbone.enable_gradient_checkpointing()
    assert_same(gradients(model, batch), expected)
