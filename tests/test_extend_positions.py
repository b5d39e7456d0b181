"""``wenmai extend-positions``: folders, bundles and heads; and the same in a run's configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.cli import main
from wenmai.config import changed
from wenmai.inference.predictor import load
from wenmai.training.trainer import train

LONG = "这家店很好，" * 20


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, positions=64)


@pytest.fixture(scope="module")
def run(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(toy_config(tmp_path_factory.mktemp("run"), "classification", backbone, epochs=4))


def extended(source: Path, output: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    arguments = ["extend-positions", str(source), "--to", "200", "--output", str(output), "--json", *more]
    assert main(arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("method", ["copy", "random", "hierarchical"])
def test_a_folder(backbone: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = extended(backbone, tmp_path / "long", "--method", method, capsys=capsys)
    assert found["largest_difference"] <= 1e-6 and found["compared_lengths"] == [1, 20, 64]
    assert (found["positions_before"], found["positions"], found["method"]) == (64, 200, method)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "long")
    assert tokenizer.model_max_length == 200
    short, long = (dict(tokenizer(text, return_tensors="pt")) for text in ("今天去北京", LONG))
    old, new = (AutoModel.from_pretrained(path).eval() for path in (backbone, tmp_path / "long"))
    torch.testing.assert_close(
        new(**short).last_hidden_state, old(**short).last_hidden_state, atol=1e-6, rtol=0
    )
    assert new(**long).last_hidden_state.isfinite().all()
    again = extended(backbone, tmp_path / "again", "--method", method, capsys=capsys)
    assert again["largest_difference"] == found["largest_difference"]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("long", "again")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_bundle_keeps_its_head(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "long"
    assert main(["extend-positions", str(run), "--to", "200", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "200 positions (hierarchical), 64 of them as before" in printed
    (largest,) = re.findall(r"inputs of 1, 20, 64 tokens: (\S+)", printed)
    assert float(largest) <= 1e-6
    texts = ["这家店非常满意。", "这家店非常失望。", LONG]
    assert load(output)(texts) == load(run)(texts)
    manifest = output / "wenmai.json"
    tree = json.loads(manifest.read_text(encoding="utf-8"))
    tree["task"]["config"]["max_length"] = 200
    manifest.write_text(json.dumps(tree), encoding="utf-8")
    assert load(output)(LONG)["text"] == LONG  # in one row now


def test_every_weight_of_a_masked_language_model_is_kept(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "masked"
    AutoTokenizer.from_pretrained(backbone).save_pretrained(source)
    BertForMaskedLM(BertConfig.from_pretrained(backbone)).half().save_pretrained(source)
    state = load_file(source / "model.safetensors")
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]  # as old versions saved it
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    extended(source, tmp_path / "long", capsys=capsys)
    batch = dict(AutoTokenizer.from_pretrained(source)("今天[MASK]北京", return_tensors="pt"))
    old, new = (
        AutoModelForMaskedLM.from_pretrained(path, dtype=torch.float32).eval()
        for path in (source, tmp_path / "long")
    )
    torch.testing.assert_close(new(**batch).logits, old(**batch).logits, atol=1e-6, rtol=0)
    after = load_file(tmp_path / "long" / "model.safetensors")
    assert after.keys() == state.keys() - {"bert.embeddings.position_ids"}
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}


def test_pickled_and_sharded_weights(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled, sharded = tmp_path / "pickled", tmp_path / "sharded"
    for folder in (pickled, sharded):
        AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    model = AutoModel.from_pretrained(backbone)
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    model.save_pretrained(sharded, max_shard_size="100KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    for folder in (pickled, sharded):
        found = extended(folder, tmp_path / f"{folder.name}-long", capsys=capsys)
        assert found["largest_difference"] <= 1e-6
        written = {path.name for path in (tmp_path / f"{folder.name}-long").iterdir()}
        assert "model.safetensors" in written
        assert not any("index" in name or name.endswith(".bin") for name in written)


def test_in_a_runs_configuration(backbone: Path, tmp_path: Path) -> None:
    config = toy_config(tmp_path, "classification", backbone, max_steps=2)
    config = changed(config, {"backbone.positions": {"to": 200, "method": "random"}, "task.max_length": 200})
    predictor = load(train(config))
    assert predictor.tokenizer.max_length == predictor.model.backbone.max_length == 200
    assert len(predictor.task.featurize(predictor.task.as_example(LONG), predictor.tokenizer)) == 1
    assert predictor(LONG)["label"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "64"], "64 asked for"),
        (["--to", "5000"], "4,096 at most"),
        (["--to", "200", "--alpha", "0.5"], "--alpha 0.5: .*place 1 of block 2"),
        (["--to", "200", "--alpha", "1"], "--alpha 1: .*less than 1"),
    ],
)
def test_refusals(
    backbone: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "long"
    assert main(["extend-positions", str(backbone), "--output", str(output), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extend-positions", str(backbone), "--to", "200", "--output", str(backbone)]) == 2
    assert "is there already" in capsys.readouterr().err
