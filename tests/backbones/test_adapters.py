"""Adapters against their definitions, written with transformers' own forward; packed batches against padded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import BertModel, DynamicCache

from tiny import decoder_folder, tiny_backbone_folder
from wenmai.backbones.adapter_settings import AdapterConfig, AdapterMethod
from wenmai.backbones.adapters import attach_adapter, fingerprint
from wenmai.backbones.dropout import key_dropout
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.errors import UserError

METHODS: list[AdapterMethod] = ["lora", "prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2"]
VIRTUAL = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), positions=24)


def adapted(folder: Path, method: AdapterMethod, *, seed: int = 1, **options: Any) -> Backbone:
    """An encoder in double precision whose adapter changes what it says."""
    virtual = {} if method == "lora" else {"virtual_tokens": VIRTUAL}
    adapter = AdapterConfig.model_validate({"method": method, **virtual, **options})
    torch.manual_seed(seed)
    backbone, tokenizer = load_backbone(BackboneConfig(model=str(folder), adapter=adapter))
    attach_adapter(backbone, tokenizer)
    key_dropout(backbone, backbone.keys)
    with torch.no_grad():
        for name in backbone.adapter_names():
            backbone.get_parameter(name).add_(torch.randn_like(backbone.get_parameter(name)) * 0.3)
    return backbone.double()


def rows() -> dict[str, Tensor]:
    """Three rows of 9, 4 and 11 tokens."""
    draws = torch.Generator().manual_seed(0)
    mask_BT = torch.ones(3, 11, dtype=torch.long)
    mask_BT[0, 9:], mask_BT[1, 4:] = 0, 0
    ids_BT = torch.randint(50, 900, (3, 11), generator=draws) * mask_BT
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "key": torch.tensor([3, 5, 8])}


def passed(backbone: Backbone, padding_free: str, *, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The hidden states of the real tokens, and the gradients of a sum over them."""
    backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    backbone.train(training).zero_grad()
    batch = rows()
    hidden_NH = backbone(batch)[batch["attention_mask"].bool()]
    (hidden_NH**2 * torch.arange(hidden_NH.size(1))).sum().backward()
    return hidden_NH.detach(), {
        name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("training", [False, True], ids=["predicting", "with-dropout"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_packed_is_padded(method: AdapterMethod, architecture: str, training: bool, folder: Path) -> None:
    """Bert goes its own lean way and GPT-2 through transformers' modules; LoRA through them in both."""
    options = {"dropout": 0.2} if method == "lora" else {}
    backbone = adapted(folder if architecture == "bert" else decoder_folder(folder), method, **options)
    padded, padded_gradients = passed(backbone, "off", training=training)
    packed, packed_gradients = passed(backbone, "on", training=training)
    torch.testing.assert_close(packed, padded, rtol=1e-9, atol=1e-9)
    assert padded_gradients.keys() == packed_gradients.keys() == set(backbone.adapter_names())
    for name, gradient in padded_gradients.items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_other_rows_and_padding_change_nothing(method: AdapterMethod, folder: Path) -> None:
    backbone = adapted(folder, method).eval()
    batch = rows()
    together = backbone(batch)
    for row in range(3):
        length = int(batch["attention_mask"][row].sum())
        alone = backbone(
            {name: value[row : row + 1, :length] for name, value in batch.items() if name != "key"}
        )
        torch.testing.assert_close(alone[0], together[row, :length], rtol=1e-9, atol=1e-9)


def plain(folder: Path) -> BertModel:
    return BertModel.from_pretrained(folder, add_pooling_layer=False).double().eval()


def test_lora_is_a_change_of_low_rank(folder: Path) -> None:
    """Against the same network with ``W + alpha / rank * B A`` written into its weights, gradients too."""
    backbone = adapted(folder, "lora", rank=3, alpha=6.0, target_modules=["query", "output.dense"]).eval()
    model, batch = plain(folder), rows()
    del batch["key"]
    learned = {
        name: backbone.get_parameter(name).detach().clone().requires_grad_()
        for name in backbone.adapter_names()
    }
    weights = dict(model.named_parameters())
    for name, a_RK in learned.items():
        if "lora_A" in name:
            b_MR = learned[name.replace("lora_A", "lora_B")]
            own = name.removeprefix("model.").split(".lora_A")[0] + ".weight"
            assert a_RK.shape[0] == 3 and own.endswith(("query.weight", "output.dense.weight"))
            weights[own] = weights[own] + 2.0 * b_MR @ a_RK
    assert len(learned) == 2 * 2 * 3  # two matrices, two layers, and query, attention's output and output
    expected = functional_call(model, weights, kwargs=batch).last_hidden_state
    found = backbone(batch)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (expected**3).sum().backward()
    (found**3).sum().backward()
    for name, tensor in learned.items():
        torch.testing.assert_close(backbone.get_parameter(name).grad, tensor.grad, rtol=1e-8, atol=1e-8)
    model.load_state_dict(backbone.state_for_saving())
    torch.testing.assert_close(model(**batch).last_hidden_state, found.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning"])
def test_prompts_are_embeddings_before_the_text(method: AdapterMethod, folder: Path) -> None:
    backbone, model = adapted(folder, method).eval(), plain(folder)
    batch = rows()
    assert backbone.prompt is not None
    prompt_PE = backbone.prompt.vectors().detach()
    words_BTE = model.embeddings.word_embeddings(batch["input_ids"])
    embedded = torch.cat([prompt_PE.expand(3, -1, -1), words_BTE], dim=1)
    mask = torch.cat([torch.ones(3, VIRTUAL, dtype=torch.long), batch["attention_mask"]], dim=1)
    places = torch.cat([torch.zeros(VIRTUAL, dtype=torch.long), torch.arange(11)])[None]
    expected = model(inputs_embeds=embedded, attention_mask=mask, position_ids=places).last_hidden_state
    found = backbone(batch)
    assert found.shape[:2] == (3, 11)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[:, VIRTUAL:][real], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["prefix_tuning", "p_tuning_v2"])
def test_prefixes_are_past_keys_and_values(method: AdapterMethod, folder: Path) -> None:
    backbone, model = adapted(folder, method).eval(), plain(folder)
    batch = rows()
    assert backbone.prefix is not None
    past = DynamicCache(config=model.config)
    for number, layer in enumerate(backbone.model.encoder.layer):
        keys, values = (part.detach() for part in backbone.prefix.pairs()[layer.attention.self])
        past.update(keys.expand(3, -1, -1, -1), values.expand(3, -1, -1, -1), number)
    mask = torch.cat([torch.ones(3, VIRTUAL, dtype=torch.long), batch["attention_mask"]], dim=1)
    expected = model(
        input_ids=batch["input_ids"],
        attention_mask=mask,
        past_key_values=past,
        position_ids=torch.arange(11)[None],
    ).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(backbone(batch)[real], expected[real], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_texts_may_be_as_long_as_before(method: AdapterMethod, folder: Path) -> None:
    backbone = adapted(folder, method).eval()
    ids = torch.full((1, 24), 100)
    assert backbone.max_length == 24
    assert backbone({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).shape == (1, 24, 32)


@pytest.mark.parametrize("method", METHODS)
def test_layers_computed_again_and_perturbed_words(method: AdapterMethod, folder: Path) -> None:
    backbone = adapted(folder, method)
    move = torch.zeros(3, 11, 32, dtype=torch.float64)
    batch = {**rows(), "perturbation": move}
    plain_states, gradients = passed(backbone, "on", training=True)
    torch.testing.assert_close(backbone(batch)[batch["attention_mask"].bool()], plain_states)
    move[0, 0, 0] = 1.0
    assert not torch.allclose(backbone(batch)[0], backbone(rows())[0])
    backbone.enable_gradient_checkpointing()
    again, gradients_again = passed(backbone, "on", training=True)
    torch.testing.assert_close(again, plain_states)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient)


OPTIONS: dict[str, tuple[AdapterMethod, dict[str, Any]]] = {
    "rank": ("lora", {"rank": 4}),
    "alpha": ("lora", {"alpha": 32.0}),
    "dropout": ("lora", {"dropout": 0.5}),
    "target_modules": ("lora", {"target_modules": ["value"]}),
    "virtual_tokens": ("p_tuning_v2", {"virtual_tokens": 3}),
    "initial_text": ("prompt_tuning", {"initial_text": "好坏"}),
    "reparameterization": ("prefix_tuning", {"reparameterization": "none"}),
    "encoder_hidden_size": ("p_tuning", {"encoder_hidden_size": 7}),
    "train_also": ("p_tuning_v2", {"train_also": ["*.bias"]}),
}


def test_every_key_is_here() -> None:
    # what `method` does is all of this page; `save` is in tests/test_adapter_bundles.py
    assert {*OPTIONS, "method", "save"} == set(AdapterConfig.model_fields)


@pytest.mark.parametrize("key", OPTIONS)
def test_every_key_does_something(key: str, folder: Path) -> None:
    method, options = OPTIONS[key]
    states, learning = [], []
    for given in ({}, options):
        backbone = adapted(folder, method, **given)
        states.append(passed(backbone, "auto", training=True)[0])
        learning.append({name for name, p in backbone.named_parameters() if p.requires_grad})
    if key == "train_also":
        assert learning[1] > learning[0] and all(name.endswith(".bias") for name in learning[1] - learning[0])
    else:
        assert not torch.allclose(*states)


def test_initial_text_is_where_the_vectors_begin(folder: Path) -> None:
    config = AdapterConfig(method="prompt_tuning", virtual_tokens=3, initial_text="好坏")
    backbone, tokenizer = load_backbone(BackboneConfig(model=str(folder), adapter=config))
    attach_adapter(backbone, tokenizer)
    good, bad = tokenizer.encode("好坏").ids
    assert backbone.prompt is not None
    expected = backbone.word_embeddings.weight[[good, bad, good]]
    torch.testing.assert_close(backbone.prompt.vectors(), expected)


def test_lora_begins_as_the_encoder_is(folder: Path) -> None:
    torch.manual_seed(0)
    config = BackboneConfig(model=str(folder), adapter=AdapterConfig(method="lora"))
    backbone, tokenizer = load_backbone(config)
    before, states = fingerprint(backbone.model), backbone(rows())
    attach_adapter(backbone, tokenizer)
    torch.testing.assert_close(backbone(rows()), states)
    fresh = plain(folder).float()
    fresh.load_state_dict(backbone.state_for_saving())
    assert fingerprint(fresh) == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "lora", "virtual_tokens": 3}, "virtual_tokens is read by prompt_tuning"),
        ({"method": "p_tuning_v2", "reparameterization": "lstm"}, "lstm is for p_tuning"),
        ({"method": "p_tuning_v2", "encoder_hidden_size": 3}, "needs reparameterization"),
        ({"method": "lora", "save": "adapter", "train_also": ["*"]}, "take save: whole"),
    ],
)
def test_keys_that_do_not_go_together(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        AdapterConfig.model_validate(given)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("lora", {"target_modules": ["q_proj"]}, r"q_proj given, but .* dense, key, query, value"),
        ("lora", {"train_also": ["*.nothing"]}, "fits none"),
        ("prompt_tuning", {"initial_text": " "}, "has no token"),
    ],
)
def test_what_the_encoder_has_not(
    method: AdapterMethod, options: dict[str, Any], expected: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        adapted(folder, method, **options)
