"""``wenmai info`` and ``wenmai inspect`` as their users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.cli import main
from wenmai.cli.model_tables import bytes_text, count_text
from wenmai.config import save_config
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, a configuration, and a run whose model has learned nothing."""
    folder = tmp_path_factory.mktemp("home")
    path = tiny_backbone_folder(folder / "backbone", texts=ALL_TEXTS)
    config = toy_config(folder, "classification", path)
    backbone, tokenizer = load_folder(path)
    task = TASKS["text_classification"](config.task, ["好评", "差评"])
    save_bundle(folder / "run" / "bundle", task, Model(backbone, task.build_head(backbone)), tokenizer)
    save_config(config, folder / "run" / "config.yaml")
    return folder


def test_info_for_people_and_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(home / "backbone"), "--length", "32", "--tokens", "640"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    backbone, _ = load_folder(home / "backbone")
    count = count_text(sum(p.numel() for p in backbone.parameters()))
    assert f"{count}, of which 100.0% learn" in shown.out
    assert "bert: 2 layers of 32, inside 64 (gelu), 4 heads of 8" in shown.out
    assert "2 x BertLayer" in shown.out and "word_embeddings" in shown.out
    assert "640 tokens in rows of 32" in shown.out and "adafactor" in shown.out and "bf16, fp16" in shown.out
    assert main(["info", str(home / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["labels"]) == ("text_classification", 2)
    operations = found["operations"]
    assert operations["forward"] == operations["matrices"] + operations["attention"]
    for row in found["memory"]:
        parts = {key: value for key, value in row["bytes"].items() if key != "total"}
        assert row["bytes"]["total"] == sum(parts.values())


def test_info_of_a_configuration_with_a_change(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change = "train.freeze=['backbone.*']"
    assert main(["info", str(home / "config.yaml"), change, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["trainable"] < 0.1 * found["parameters"]


def test_inspect_writes_what_the_report_draws(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = home / "run"
    assert main(["inspect", str(run), "--examples", "6"]) == 0
    shown = capsys.readouterr()
    assert (
        "6 examples of dev" in shown.out and "layer.1.intermediate" in shown.out and "layer 1 " in shown.out
    )
    assert f"wenmai report {run}" in shown.err
    assert main(["report", str(run)]) == 0
    assert "Inside the model" in (run / "report.html").read_text(encoding="utf-8")


def test_inspect_of_chosen_modules_and_other_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = home / "texts.txt"
    texts.write_text("这家店很好。\n难吃\n", encoding="utf-8")
    target = home / "other.json"
    arguments = [
        "--no-backward",
        "--modules",
        "*.query",
        "--modules",
        "*.key",
        "--output",
        str(target),
        "--json",
    ]
    assert main(["inspect", str(home / "run"), str(texts), "format=text", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(target.read_text(encoding="utf-8"))
    assert [record["name"].rpartition(".")[2] for record in found["modules"]] == ["query", "key"] * 2
    assert found["examples"] == 2 and found["backward"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "{home}/nowhere/x"], "no such folder"),
        (["info", "{home}/backbone", "--length", "9999"], "512 positions"),
        (["inspect", "{home}/run", "--modules", "*.nothing"], "'*.nothing' fits none"),
        (["inspect", "{home}/backbone"], "is no bundle"),
        (["inspect", "{home}/run/bundle", "{home}/none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_is_told(
    home: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.replace("{home}", str(home)) for part in arguments]) == 2
    assert message in capsys.readouterr().err


def test_sizes_as_text() -> None:
    assert [count_text(n) for n in (999_999, 35_251_200, 1_204_000_000, 3 * 10**12)] == [
        "999,999", "35.25 M", "1.20 B", "3.00 T",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (0, 1023, 4096, 141_012_992, 3 * 2**30)] == [
        "0 B", "1023 B", "4.0 KiB", "134.5 MiB", "3.00 GiB",
    ]  # fmt: skip
