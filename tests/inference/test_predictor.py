"""Predictions: in order, in bounded memory, the same however they are batched; and bundles that say what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.errors import BundleError, UserError
from wenmai.inference.engine import predictions
from wenmai.inference.input import read_items
from wenmai.inference.predictor import Predictor, load
from wenmai.training.trainer import train


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[*ALL_TEXTS, "開會後來"])


@pytest.fixture(scope="module")
def run(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(toy_config(tmp_path_factory.mktemp("ner"), "ner-crf", backbone, epochs=15))


@pytest.fixture
def predictor(run: Path) -> Predictor:
    return load(run)


def test_the_folder_that_one_is_in(run: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert load(".")("张伟") == predictor("张伟")


def test_lines_of_wide_characters(tmp_path: Path) -> None:
    """U+0A0A is two bytes that look like ends of lines."""
    file = tmp_path / "texts.txt"
    file.write_text("张伟\r\n\u0a0a，好\n", encoding="utf-16")
    assert list(read_items(str(file), "auto", "utf-16")) == [
        (f"{file}:1", "张伟"),
        (f"{file}:2", "\u0a0a，好"),
    ]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"texts.txt:2: not utf-16"):
        list(read_items(str(file), "auto", "utf-16"))


def test_answers_come_in_order_with_their_ids(predictor: Predictor) -> None:
    items = [{"text": "王小明昨天去了北京开会，" * (1 + (7 * i) % 5), "id": i} for i in range(40)]
    found = predictor(items)
    assert [p["id"] for p in found] == list(range(40))
    assert [p["text"] for p in found] == [item["text"] for item in items]


@pytest.mark.parametrize(("tokens", "at_once"), [(16, 1), (64, 3), (4096, 1024)])
def test_budget_and_window_change_nothing(tokens: int, at_once: int, predictor: Predictor) -> None:
    items = ["王小明昨天去了北京开会，", "张伟", "", "赵六昨天去了成都开会，" * 9]
    examples = [predictor.task.as_example(item) for item in items]
    found = predictions(
        predictor.model,
        predictor.task,
        predictor.tokenizer,
        examples,
        tokens_per_batch=tokens,
        examples_at_once=at_once,
    )
    spans = [[(e["start"], e["end"], e["label"]) for e in p["entities"]] for p in found]
    assert spans == [[(e["start"], e["end"], e["label"]) for e in p["entities"]] for p in predictor(items)]
    assert (0, 3, "人名") in spans[0]


def test_an_endless_stream_is_answered(predictor: Predictor) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "王小明昨天去了北京开会，"

    answers = predictor.stream(texts())
    assert next(answers)["entities"][0]["text"] == "王小明"
    assert taken <= 1024


def test_one_item_gives_one_answer(predictor: Predictor) -> None:
    assert predictor("张伟")["text"] == "张伟"
    assert predictor([]) == []
    with pytest.raises(UserError, match="not for 7"):
        predictor([7])


def test_offsets_are_of_the_text_as_given(run: Path, backbone: Path, tmp_path: Path) -> None:
    """A model that reads simplified characters, asked about traditional ones and full width."""
    pytest.importorskip("opencc", reason="the package opencc (extra wenmai[chinese]) is not installed")
    config = toy_config(tmp_path, "ner-crf", backbone, epochs=15)
    config = config.model_copy(
        update={"backbone": config.backbone.model_copy(update={"normalize": "simplified"})}
    )
    simplified = load(train(config))
    assert simplified.tokenizer.normalize == "simplified"
    text = "李建國昨天去了廣州開會，然後回家㎏。李建國昨天去了廣州開會，然後回家。"
    found = simplified(text)["entities"]
    assert [(e["text"], e["label"]) for e in found] == [("李建國", "人名"), ("廣州", "地名")] * 2
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found)


def test_a_bundle_introduces_itself(run: Path) -> None:
    card = (run / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "# Ner model" in card
    assert "Labels: 人名, 地名." in card


def damaged(run: Path, folder: Path) -> Path:
    shutil.copytree(run / "bundle", folder)
    return folder


def test_missing_and_damaged_bundles_are_told_apart(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="is no bundle"):
        load(tmp_path / "empty")

    cut = damaged(run, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(BundleError, match="cut"):
        load(cut)

    newer = damaged(run, tmp_path / "newer")
    manifest = json.loads((newer / "wenmai.json").read_text(encoding="utf-8"))
    (newer / "wenmai.json").write_text(json.dumps({**manifest, "format": 99}), encoding="utf-8")
    with pytest.raises(BundleError, match="upgrade wenmai"):
        load(newer)

    other = damaged(run, tmp_path / "other")
    task = {**manifest["task"], "labels": ["人名"]}
    (other / "wenmai.json").write_text(json.dumps({**manifest, "task": task}), encoding="utf-8")
    with pytest.raises(BundleError, match="damaged"):
        load(other)


def test_a_replacement_cut_off_between_its_renames_is_undone(run: Path, tmp_path: Path) -> None:
    folder = damaged(run, tmp_path / "bundle")
    folder.rename(tmp_path / ".bundle.old")
    assert load(folder)("张伟")["text"] == "张伟"
    assert not (tmp_path / ".bundle.old").exists()
