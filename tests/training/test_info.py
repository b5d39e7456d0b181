"""``wenmai info``: every name of a model, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, backbone_of, toy_config
from wenmai.backbones.load import load_folder
from wenmai.bundle import load_bundle, save_bundle
from wenmai.config import save_config
from wenmai.errors import UserError
from wenmai.tasks.model import Model
from wenmai.tasks.ner import Ner, NerConfig
from wenmai.training.info import ModuleSize, model_info, module_sizes


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, layers=3)


def names(part: ModuleSize) -> list[str]:
    return [part.name, *(name for inner in part.parts for name in names(inner))]


def test_a_model_folder(backbone: Path) -> None:
    info = model_info(str(backbone), length=16)
    loaded, tokenizer = load_folder(backbone)
    assert info.parameters == info.trainable == sum(p.numel() for p in loaded.parameters())
    assert info.buffers == sum(b.nbytes for b in loaded.buffers())
    assert info.disk == (backbone / "model.safetensors").stat().st_size
    assert (info.task, info.head, info.labels) == (None, None, None)
    assert (info.tokenizer, info.pieces) == ("WordPiece", tokenizer.vocab_size)
    found = info.architecture
    assert (found.kind, found.layers, found.hidden_size, found.heads, found.head_size) == (
        "bert",
        3,
        32,
        4,
        8,
    )
    assert (found.intermediate_size, found.vocabulary, found.positions) == (64, tokenizer.vocab_size, 512)
    assert (found.hidden_dropout, found.attention_dropout, found.activation) == (0.1, 0.1, "gelu")
    assert (info.tokens, info.length) == (2048, 16)
    kinds = [(row.precision, row.optimizer, row.average) for row in info.memory]
    assert len(kinds) == len(set(kinds)) == 12


def test_the_tree_adds_up_and_equal_layers_stand_together(backbone: Path) -> None:
    tree = model_info(str(backbone), length=16).modules
    assert "0-2" in names(tree)
    loaded, _ = load_folder(backbone)
    layer = sum(p.numel() for p in (loaded.layers or [])[0].parameters())

    def check(part: ModuleSize) -> None:
        if part.name == "0-2":
            assert (part.parameters, part.times, part.kind) == (3 * layer, 3, "BertLayer")
        elif part.parts:
            assert part.parameters >= sum(inner.parameters for inner in part.parts)
        for inner in part.parts:
            check(inner)

    check(tree)


def test_shared_and_frozen_parameters_count_once_and_apart() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    tree = module_sizes(model, depth=1)
    assert (tree.parameters, tree.trainable) == (16 + 8 + 2, 16 + 2)
    assert [(part.name, part.parameters, part.trainable) for part in tree.parts] == [
        ("0", 16, 16),
        ("2", 10, 2),
    ]
    assert module_sizes(model, depth=0).parts == ()


def test_a_run_and_its_bundle(tmp_path: Path, backbone: Path) -> None:
    """Parameters that the run froze do not learn; the micro-batch is the run's."""
    config = toy_config(tmp_path, "ner-crf", backbone, freeze=["backbone.*"], tokens_per_micro_batch=512)
    run = Path(config.output)
    encoder, tokenizer = load_folder(backbone)
    task = Ner(NerConfig(head="crf"), ["人名", "地名"])
    save_bundle(run / "bundle", task, Model(encoder, task.build_head(encoder)), tokenizer)
    save_config(config, run / "config.yaml")
    for name in (run, run / "bundle"):
        info = model_info(str(name), length=16)
        head = sum(p.numel() for p in load_bundle(run).model.head.parameters())
        assert (info.task, info.head, info.labels, info.tokens) == ("ner", "CRFHead", 2, 512)
        assert info.trainable == head and info.parameters > head
        assert info.memory[0].bytes.gradients == 4 * head
        # a tag matrix of 5 x 32 and no gradient below it
        assert info.operations.training == info.operations.forward + 2 * 5 * 32
    with pytest.raises(UserError, match="is trained already"):
        model_info(str(run), ["train.epochs=1"])


def test_a_configuration(tmp_path: Path, backbone: Path) -> None:
    toy_config(tmp_path, "classification", backbone, examples_per_step=8)
    path = str(tmp_path / "config.yaml")
    info = model_info(path, length=16)
    assert (info.task, info.labels, info.disk, info.tokens) == ("text_classification", 2, None, 8 * 16)
    assert info.trainable == info.parameters
    frozen = model_info(path, ["train.freeze=['backbone.*']", "train.examples_per_micro_batch=2"], length=16)
    assert frozen.trainable < info.trainable and frozen.tokens == 32
    json.dumps(info.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_every_head_is_counted(tmp_path: Path, backbone: Path, name: str) -> None:
    """A head is at least a matrix, and small beside the encoder unless it guesses words."""
    toy_config(tmp_path, name, backbone)
    info, alone = (
        model_info(path, length=16)
        for path in (str(tmp_path / "config.yaml"), str(backbone_of(name, backbone)))
    )
    extra = info.operations.forward / alone.operations.forward
    if name.startswith(("embedding", "contrastive")):
        assert extra == 1 and info.parameters == alone.parameters  # pooling learns nothing
    elif name == "causal-lm":
        assert 1 < extra < 20 and info.parameters == alone.parameters  # its matrix is that of the words
    elif name.startswith("relations"):
        assert 1 < extra < 3 and info.parameters > alone.parameters  # 128 numbers a token, the encoder has 32
    else:
        assert 1 < extra < (20 if name in ("masked-lm", "classification-decoder", "cloze") else 1.3)
        assert info.parameters > alone.parameters


def test_masked_lm_pays_for_its_vocabulary(tmp_path: Path, backbone: Path) -> None:
    """30 % of the tokens go through the dense layer and the tied word embeddings."""
    toy_config(tmp_path, "masked-lm", backbone)
    with_head, alone = (
        model_info(str(tmp_path / "config.yaml"), length=16),
        model_info(str(backbone), length=16),
    )
    vocabulary = alone.architecture.vocabulary
    assert with_head.operations.forward - alone.operations.forward == pytest.approx(
        0.3 * 2 * (32 * 32 + 32 * vocabulary)
    )
    per_token = [row.memory[0].bytes.activations / row.tokens for row in (with_head, alone)]
    assert per_token[0] - per_token[1] == pytest.approx(0.3 * 8 * vocabulary, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 513}, "512 positions"),
        ({"tokens": 0}, "--tokens 0"),
        ({"overrides": ["a=1"]}, "no configuration"),
        ({"name": "/nowhere/at/all"}, "no such folder"),
    ],
)
def test_what_cannot_be_is_refused(backbone: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model_info(**{"name": str(backbone), **arguments})  # type: ignore[arg-type]
