"""Runs with adapters: what learns, what is kept, how it is found again, and how it goes on after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.backbones.adapter_settings import AdapterMethod
from wenmai.config import RunConfig, changed
from wenmai.errors import BundleError, ConfigError, UserError
from wenmai.inference.predictor import load
from wenmai.training.info import model_info
from wenmai.training.journal import read_log
from wenmai.training.setup import prepare
from wenmai.training.trainer import train

METHODS: list[AdapterMethod] = ["lora", "prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2"]
TEXT = "这家店我会说很好。"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, layers=1)


def configured(folder: Path, backbone: Path, name: str = "classification", **adapter: Any) -> RunConfig:
    config = toy_config(folder, name, backbone, max_steps=6, logging_steps=1, eval_steps=3)
    return changed(config, {"backbone.adapter": adapter, "train.learning_rate": 1e-2})


@pytest.mark.parametrize("save", ["whole", "adapter"])
@pytest.mark.parametrize("method", METHODS)
def test_what_learns_and_what_is_kept(
    method: AdapterMethod, save: str, tmp_path: Path, backbone: Path
) -> None:
    config = configured(tmp_path, backbone, method=method, save=save)
    run = train(config)
    state = load_file(run / "checkpoint" / "model.safetensors")
    begun = prepare(changed(config, {"output": str(tmp_path / "other")})).model
    adapter = {f"backbone.{name}" for name in begun.backbone.adapter_names()}
    moved = {name for name, tensor in begun.state_dict().items() if not torch.equal(tensor, state[name])}
    assert moved == {*adapter, *(f"head.{name}" for name, _ in begun.head.named_parameters())}
    # frozen parts have no state: AdamW keeps a step and two moments of each that learns
    assert len(load_file(run / "checkpoint" / "optimizer.safetensors")) == 3 * len(moved)
    (first, *_) = read_log(run / "log.jsonl")
    learned = sum(p.numel() for name, p in begun.named_parameters() if name in moved)
    assert (first["event"], first["trainable"]) == ("model", learned) and learned < first["parameters"]

    bundle = run / "bundle"
    manifest = json.loads((bundle / "wenmai.json").read_text(encoding="utf-8"))
    if save == "adapter":
        names = set(load_file(bundle / "adapter.safetensors"))
        assert not any(name.startswith(("embeddings", "encoder")) for name in names)
        assert not (bundle / "model.safetensors").exists() and manifest["format"] == 2
    else:
        assert ("adapter" in manifest, manifest["format"]) == ((False, 1) if method == "lora" else (True, 2))
        theirs = AutoModel.from_pretrained(bundle).state_dict()
        plain = AutoModel.from_pretrained(backbone).state_dict()
        same = all(
            torch.equal(theirs[name], tensor) for name, tensor in plain.items() if "pooler" not in name
        )
        assert same == (method != "lora")
    # the run's last weights are also its best where both evaluations agree; the bundle answers as they do or did
    predictor = load(run)
    shutil.copytree(bundle, tmp_path / "copy")
    assert load(tmp_path / "copy")(TEXT) == predictor(TEXT)


def test_a_lora_bundle_answers_as_the_model_in_training(tmp_path: Path, backbone: Path) -> None:
    config = changed(configured(tmp_path, backbone, method="lora"), {"data.dev": None})
    run = train(config)
    work = prepare(changed(config, {"output": str(tmp_path / "other")}))
    work.model.load_state_dict(load_file(run / "checkpoint" / "model.safetensors"))
    encoded = work.tokenizer.encode(TEXT).ids
    batch = {"input_ids": torch.tensor([encoded]), "attention_mask": torch.ones(1, len(encoded))}
    with torch.no_grad():
        expected = work.model.eval()(batch)["logits"]
        torch.testing.assert_close(load(run).model(batch)["logits"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "prefix_tuning"])
def test_resuming_ends_bit_for_bit(
    method: AdapterMethod, tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.test_resume import fingerprint, train_with_stops, with_data

    shared = str(tmp_path / "a" / "data.jsonl")
    runs = [with_data(configured(tmp_path / name, backbone, method=method), shared) for name in "ab"]
    # an evaluation asks once for each of its 36 examples whether to stop
    assert fingerprint(train(runs[0])) == fingerprint(train_with_stops(runs[1], 38, monkeypatch))


def test_a_fitted_head_resumes_too(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.test_resume import fingerprint, train_with_stops, with_data

    shared = str(tmp_path / "a" / "data.jsonl")
    runs = [
        with_data(toy_config(tmp_path / name, "contrastive", backbone, max_steps=6, eval_steps=2), shared)
        for name in "ab"
    ]
    assert fingerprint(train(runs[0])) == fingerprint(train_with_stops(runs[1], 38, monkeypatch))
    weights = load_file(runs[0].output + "/bundle/model.safetensors")
    assert float(weights["wenmai_head.weight_LH"].abs().sum()) > 0


def test_an_adapter_knows_its_encoder(tmp_path: Path, backbone: Path) -> None:
    own = tmp_path / "encoder"
    shutil.copytree(backbone, own)
    run = train(configured(tmp_path / "run", own, method="p_tuning_v2", save="adapter"))
    load(run)
    AutoModel.from_pretrained(
        tiny_backbone_folder(tmp_path / "x", texts=ALL_TEXTS, layers=1, seed=1)
    ).save_pretrained(own)
    with pytest.raises(BundleError, match="not the encoder that the adapter was trained on"):
        load(run)
    shutil.rmtree(own)
    with pytest.raises(BundleError, match=r"can't be opened.*no such folder"):
        load(run)


def test_info_says_how_much_learns(tmp_path: Path, backbone: Path) -> None:
    config = configured(tmp_path, backbone, method="lora", rank=4)
    path = tmp_path / "adapted.yaml"
    path.write_text(config.model_dump_json(exclude={"tune"}), encoding="utf-8")
    info = model_info(str(path), tokens=64, length=16)
    layers = (
        4 * (32 + 32) + (32 + 64) + (64 + 32)
    )  # query, key, value, output; the two of the feed-forward part
    assert info.trainable == 4 * layers + 2 * 32 + 2  # rank 4, and the head


@pytest.mark.parametrize(
    ("name", "adapter", "said"),
    [
        ("causal-lm", {"method": "p_tuning_v2"}, "writes texts token by token"),
        ("relation", {"method": "lora", "save": "adapter"}, "gives it tokens"),
    ],
)
def test_what_does_not_go_together(
    name: str, adapter: dict[str, Any], said: str, tmp_path: Path, backbone: Path
) -> None:
    with pytest.raises(UserError, match=said):
        prepare(configured(tmp_path, backbone, name, **adapter))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ner-crf", "prompt_tuning"),
        ("embedding", "lora"),
        ("question-answering", "p_tuning_v2"),
        ("masked-lm", "prefix_tuning"),
        ("cloze", "p_tuning"),
    ],
)
def test_any_task_takes_an_adapter(name: str, method: AdapterMethod, tmp_path: Path, backbone: Path) -> None:
    config = configured(tmp_path, backbone, name, method=method)
    load(
        train(changed(config, {"train.max_steps": 2, "train.freeze": ["head.*"] if name == "cloze" else []}))
    )


def test_no_model_is_built_on_an_encoder_with_vectors_in_front(tmp_path: Path, backbone: Path) -> None:
    run = train(configured(tmp_path / "first", backbone, method="p_tuning_v2"))
    with pytest.raises(UserError, match=r"with an adapter \(p_tuning_v2\)"):
        prepare(toy_config(tmp_path / "second", "classification", run / "bundle"))
    merged = train(configured(tmp_path / "third", backbone, method="lora"))
    prepare(toy_config(tmp_path / "fourth", "classification", merged / "bundle"))


def test_an_encoder_that_is_drawn_can_not_be_left_out(tmp_path: Path, backbone: Path) -> None:
    config = toy_config(tmp_path, "classification", backbone)
    with pytest.raises(ConfigError, match="nowhere to be had"):
        changed(
            config, {"backbone.weights": "random", "backbone.adapter": {"method": "lora", "save": "adapter"}}
        )
