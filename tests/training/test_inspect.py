"""Hooks: what they see, that they change nothing, and that they go."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, backbone_of, toy_config
from wenmai.backbones.load import load_folder
from wenmai.backbones.plain import module_by_module
from wenmai.bundle import save_bundle
from wenmai.config import save_config
from wenmai.data.examples import read_examples
from wenmai.data.rows import Batch
from wenmai.data.sources import Source
from wenmai.errors import UserError
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model, build_model
from wenmai.training.inspect import activation_kind, inspect_model, watching
from wenmai.training.inspected_run import batches_of, inspect_run


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def toy(backbone: Path, name: str) -> tuple[Model, list[Batch]]:
    """A fresh model of a toy task with batches of its data."""
    section, records = TOYS[name]
    task_type = TASKS[section["name"]]
    settings = task_type.Config.model_validate({"max_length": 64, **section})
    examples = read_examples(records, task_type.Example)
    task = task_type(settings, task_type.collect_labels(settings, examples))
    encoder, tokenizer = load_folder(backbone_of(name, backbone))
    torch.manual_seed(1)
    model, tokenizer = build_model(task, encoder, tokenizer)
    return model, list(batches_of(examples, task, tokenizer, tokens=256))


class Square(nn.Module):
    """relu(x W): 2 -> 3, with W known."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3, bias=False)
        self.act = nn.ReLU()
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.linear(x))
        return out


def test_a_tiny_module_by_hand() -> None:
    model = Square()
    with watching(model) as watch:
        for x in ([[1.0, 2.0]], [[3.0, 0.5]]):
            model(torch.tensor(x)).sum().backward()
            watch.step()
            model.zero_grad()
    linear, act = watch.inspection.modules["linear"], watch.inspection.modules["act"]
    # outputs of the linear layer: (1, 4, -3) and (3, 1, -3.5); of relu: (1, 4, 0) and (3, 1, 0)
    assert [(s["min"], s["max"], s["mean"]) for s in linear.steps] == [
        (-3.0, 4.0, pytest.approx(2 / 3)),
        (-3.5, 3.0, pytest.approx(0.5 / 3)),
    ]
    assert act.outputs.spread.to_json()["zero_share"] == pytest.approx(2 / 6)
    assert act.units is not None and act.units.dead == [2]
    # d loss / d relu = (1, 1, 1); behind it (1, 1, 0); of W it is the outer product with x
    assert [s["output_gradient_norm"] for s in act.steps] == pytest.approx([math.sqrt(3)] * 2)
    assert [s["output_gradient_norm"] for s in linear.steps] == pytest.approx([math.sqrt(2)] * 2)
    expected = [math.sqrt(2 * (1 + 4)), math.sqrt(2 * (9 + 0.25))]
    assert [s["weight_gradient_norm"] for s in linear.steps] == pytest.approx(expected)
    assert [s["weight_gradient_norm"] for s in act.steps] == [None, None]
    assert watch.inspection.steps == 2


def test_a_step_of_several_passes_is_one_step() -> None:
    model = Square()
    with watching(model, ["act"]) as watch:
        for x in ([[1.0, 2.0]], [[3.0, 0.5]]):
            model(torch.tensor(x)).sum().backward()
        watch.step()
        watch.step()  # nothing happened since
    (step,) = watch.inspection.modules["act"].steps
    assert step["values"] == 6 and step["output_gradient_norm"] == pytest.approx(math.sqrt(6))


def test_what_is_no_number_is_counted() -> None:
    model = Square()
    with watching(model, ["linear"]) as watch:
        model(torch.tensor([[math.inf, 1.0]]))
        watch.step()
    found = watch.inspection.modules["linear"].outputs.spread
    # inf * 1, inf * 0 and inf * -1: only 0 * 0 + ... would be left, and 0 * inf is no number either
    assert found.broken == 3 and found.count == 0
    json.dumps(watch.inspection.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_every_task_can_be_looked_into(backbone: Path, name: str) -> None:
    model, batches = toy(backbone, name)
    found = inspect_model(model, batches[:2])
    assert found.steps == min(2, len(batches))
    assert found.tokens == sum(int(batch["attention_mask"].sum()) for batch in batches[:2])
    decoder = model.backbone.causal
    layers = [f"backbone.model.{'h' if decoder else 'encoder.layer'}.{i}" for i in range(2)]
    words = "wte" if decoder else "embeddings.word_embeddings"
    assert set(layers) <= set(found.modules) and f"backbone.model.{words}" in found.modules
    for layer in layers:
        record = found.modules[layer]
        assert record.outputs.spread.count == found.tokens * 32
        # a batch whose pairs are all alike teaches cosent nothing
        assert any(step["output_gradient_norm"] > 0 for step in record.steps)
        assert any(step["weight_gradient_norm"] > 0 for step in record.steps)
        units = found.modules[f"{layer}.{'mlp.act' if decoder else 'intermediate.intermediate_act_fn'}"].units
        assert units is not None and units.tokens == found.tokens
        assert len(units.active_U) == (128 if decoder else 64)
    shares = found.to_json()["attention"]["share"]
    # fresh weights look almost everywhere alike, decoders only at what stands before
    assert [len(heads) for heads in shares] == [4, 4]
    assert all((0.5 if decoder else 0.9) < share <= 1 for heads in shares for share in heads)


def test_padding_changes_no_number(backbone: Path) -> None:
    model, batches = toy(backbone, "ner-softmax")
    batch = max(batches, key=lambda batch: batch["input_ids"].shape[1])
    wider = {
        key: nn.functional.pad(value, (0, 7)) if value.ndim == 2 else value for key, value in batch.items()
    }
    wider["tags"] = (
        nn.functional.pad(batch["tags"], (0, 7), value=-100) if "tags" in batch else wider.get("tags")
    )
    plain = inspect_model(model, [batch], backward=False)
    padded = inspect_model(model, [{k: v for k, v in wider.items() if v is not None}], backward=False)
    for name, record in plain.modules.items():
        if name.startswith("backbone"):
            one, other = record.outputs.spread, padded.modules[name].outputs.spread
            assert one.count == other.count
            assert one.squares == pytest.approx(other.squares, rel=1e-5)
    assert torch.allclose(plain.attention[1].entropy_A, padded.attention[1].entropy_A, rtol=1e-5)


def test_entropy_is_that_of_transformers_own_attention(backbone: Path) -> None:
    """Heads that are made to look hard: what the model gives with output_attentions, row by row."""
    model, batches = toy(backbone, "classification")
    with torch.no_grad():
        for layer in model.backbone.layers or ():
            layer.attention.self.query.weight.mul_(40)
            layer.attention.self.key.weight.mul_(40)
    found = inspect_model(model, batches[:1], backward=False).to_json()["attention"]
    batch = batches[0]
    with module_by_module(model.backbone, eager_attention=True), torch.no_grad():
        given = model.backbone.model.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_attentions=True
        ).attentions
    for layer, probabilities in enumerate(given):
        sums, tokens = torch.zeros(4), 0
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            for query in range(length):
                p = probabilities[row, :, query, :length]
                sums += -(p * p.clamp_min(1e-30).log()).sum(-1)
                tokens += 1
        assert found["entropy"][layer] == pytest.approx((sums / tokens).tolist(), rel=1e-4)
        assert min(found["share"][layer]) < 0.9


def test_a_planted_dead_unit_is_found(backbone: Path) -> None:
    model, batches = toy(backbone, "classification")
    with torch.no_grad():
        for number in (3, 17):
            dense = (model.backbone.layers or [])[1].intermediate.dense
            dense.weight[number] = 0
            dense.bias[number] = -8
    found = inspect_model(model, batches, patterns=["*.layer.1.*_act_fn"])
    (record,) = found.modules.values()
    assert record.units is not None and record.units.dead == [3, 17]


def test_hooks_change_no_bit_and_are_gone_afterwards(backbone: Path) -> None:
    def trained(watched: bool) -> list[Tensor]:
        model, batches = toy(backbone, "ner-crf")
        torch.manual_seed(0)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watching(model, ["*"] if watched else ["head"], attention=watched) as watch:
            for batch in batches[:3]:
                loss, terms = model.head.loss(model(batch, "train"), batch)
                (loss / terms).backward()
                watch.step()
                optimizer.step()
                optimizer.zero_grad()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        return list(model.parameters())

    for one, other in zip(trained(True), trained(False), strict=True):
        assert torch.equal(one, other)


def test_the_model_is_left_as_it_was(backbone: Path) -> None:
    model, batches = toy(backbone, "classification")
    model.train()
    marks = [torch.full_like(p, 0.5) for p in model.parameters()]
    for parameter, mark in zip(model.parameters(), marks, strict=True):
        parameter.grad = mark
    weights = [p.detach().clone() for p in model.parameters()]
    attention = model.backbone.config._attn_implementation
    state = torch.get_rng_state()
    inspect_model(model, batches[:1])
    assert all(p.grad is mark for p, mark in zip(model.parameters(), marks, strict=True))
    assert all(torch.equal(p, weight) for p, weight in zip(model.parameters(), weights, strict=True))
    assert model.training and model.backbone.config._attn_implementation == attention
    assert torch.equal(torch.get_rng_state(), state)
    # also when it goes wrong
    with pytest.raises(ValueError, match="input_ids"):
        inspect_model(model, [{"attention_mask": torch.ones(1, 2)}])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.training and model.backbone.config._attn_implementation == attention


def test_a_pattern_that_fits_nothing_is_refused(backbone: Path) -> None:
    model, batches = toy(backbone, "classification")
    with pytest.raises(UserError, match=r"'\*\.layers\.0' fits none .* backbone\.model\."):
        inspect_model(model, batches, patterns=["*.dense", "*.layers.0"])


def test_kinds_of_activation_functions() -> None:
    kinds = {
        nn.GELU: "soft", nn.SiLU: "soft", nn.ELU: "soft", nn.LeakyReLU: "soft",
        nn.ReLU: "relu", nn.ReLU6: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Identity: None,
    }  # fmt: skip
    assert {kind: activation_kind(kind()) for kind in kinds} == kinds
    assert activation_kind(nn.PReLU()) is None  # it learns, so it is no fixed function


def test_a_run_folder(tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "classification", backbone)
    run = Path(config.output)
    model, _ = toy(backbone, "classification")
    _, tokenizer = load_folder(backbone)
    task = TASKS["text_classification"](config.task, ["好评", "差评"])
    save_bundle(run / "bundle", task, model, tokenizer)
    with pytest.raises(UserError, match="lies in no run"):
        inspect_run(run)
    save_config(config, run / "config.yaml")
    content = inspect_run(run, examples=10)
    assert json.loads((run / "inspection.json").read_text(encoding="utf-8")) == content
    assert (content["data"], content["examples"], content["task"]) == ("dev", 10, "text_classification")
    # a text without a label can be looked at forwards
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "这家店很好。"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="label"):
        inspect_run(run, Source(path=str(bare)), output=tmp_path / "x.json")
    content = inspect_run(run, Source(path=str(bare)), output=tmp_path / "x.json", backward=False)
    assert content["steps"] == 1 and content["modules"][0]["gradients"]["norm"] is None
    with pytest.raises(UserError, match="--examples 0"):
        inspect_run(run, examples=0)
