"""The keys that choose a loss: they reach the head that a task builds, and say where they can't be used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tiny import decoder_folder, tiny_backbone_folder
from wenmai.backbones.load import Backbone, load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.heads.cross_entropy import each_label, one_of_labels
from wenmai.heads.head import IGNORE
from wenmai.heads.marked_pair import OBJECT_START, SUBJECT_START
from wenmai.tasks import TASKS

LABELS = ["人", "地", "机构"]
PARSED = ["relation/nsubj", "relation/obj", "root/root", "upos/NOUN", "upos/VERB"]
LABEL = {"label": torch.tensor([0, 2, IGNORE, 1])}
HELD = {"labels": torch.tensor([[[0], [2]], [[IGNORE], [IGNORE]], [[1], [IGNORE]], [[0], [1]]])}
HOLDS = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)
TAGS = {"tags": torch.tensor([[IGNORE, 0, 6, 1], [2, 3, IGNORE, IGNORE]])}
ORIGINAL = {"original": torch.tensor([[IGNORE, 7, 3, IGNORE]])}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = {
    "text_classification": ("text_classification", {}, LABEL),
    "several labels": ("text_classification", {"multi_label": True}, HELD),
    "text_matching": ("text_matching", {}, LABEL),
    "relation_classification": ("relation_classification", {"representation": "cls"}, LABEL),
    "ner": ("ner", {"head": "softmax"}, TAGS),
    "masked_lm": ("masked_lm", {}, ORIGINAL),
}
OPTIONS = [
    (case, option)
    for case in CASES
    for option in ({"label_smoothing": 0.2}, {"focal_gamma": 2.0})
    if case != "masked_lm" or "focal_gamma" not in option
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Tokenizer]:
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def backbone(loaded: tuple[Backbone, Tokenizer]) -> Backbone:
    return loaded[0]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_folder(decoder_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"))))[0]


def loss_of(name: str, config: dict[str, Any], targets: dict[str, torch.Tensor], backbone: Backbone) -> float:
    """Of a fresh head on fixed hidden states, and the same by the functions that the formulas are tested on."""
    task = TASKS[name](TASKS[name].Config(**config), LABELS)
    torch.manual_seed(0)
    head = task.build_head(backbone).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    rows, tokens = next(iter(targets.values())).shape[0], 4
    marks = {"pair_marks": torch.tensor([[SUBJECT_START, 0, OBJECT_START, 0]]).expand(rows, tokens)}
    outputs = head.of_batch(torch.randn(rows, tokens, backbone.hidden_size), torch.ones(rows, tokens), marks)
    loss, count = head.loss(outputs, targets)
    options = {key: value for key, value in config.items() if key in ("label_smoothing", "focal_gamma")}
    if "labels" in targets:
        expected, terms = each_label(outputs["logits"], HOLDS, **options), rows
    else:
        gold = next(iter(targets.values()))
        logits = outputs["logits"].flatten(0, -2)
        expected, terms = one_of_labels(logits, gold.flatten(), **options)
    torch.testing.assert_close(loss, expected)
    assert count == terms
    return loss.item()


@pytest.mark.parametrize(("case", "option"), OPTIONS)
def test_the_key_reaches_the_loss(case: str, option: dict[str, float], backbone: Backbone) -> None:
    name, config, targets = CASES[case]
    plain = loss_of(name, config, targets, backbone)
    assert loss_of(name, {**config, **option}, targets, backbone) != pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("ner", {"label_smoothing": 0.1}, "label_smoothing needs head: softmax; the loss of head 'crf'"),
        (
            "ner",
            {"focal_gamma": 2, "head": "global_pointer"},
            "focal_gamma needs head: softmax; the loss of head 'global_pointer'",
        ),
        (
            "text_matching",
            {"label_smoothing": 0.1, "objective": "regression"},
            "label_smoothing needs objective: classification",
        ),
        (
            "text_matching",
            {"focal_gamma": 1, "objective": "regression"},
            "focal_gamma needs objective: classification",
        ),
        ("text_classification", {"label_smoothing": 0.1, "focal_gamma": 2}, "exclude each other"),
        ("text_matching", {"label_smoothing": 0.1, "focal_gamma": 2}, "exclude each other"),
        ("ner", {"head": "softmax", "label_smoothing": 0.1, "focal_gamma": 2}, "exclude each other"),
    ],
)
def test_where_it_can_not_be_used_it_is_refused(name: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TASKS[name].Config(**config)


@pytest.mark.parametrize("name", TASKS)
def test_heads_take_r_drop_unless_they_compare_texts_or_hold_no_logits(
    name: str, loaded: tuple[Backbone, Tokenizer], decoder: Backbone
) -> None:
    backbone, tokenizer = loaded
    configs = [TASKS[name].Config()]
    of_their_own = {"slot_filling": ["intent:问路", "slot:地"], "dependency_parsing": PARSED}
    of_their_own["document_layout"] = ["回答", "问题", "问题\t回答"]
    labels = of_their_own.get(name, LABELS)
    if name == "ner":
        configs = [TASKS[name].Config(head=head) for head in ("crf", "softmax", "global_pointer")]
    if name == "text_matching":
        configs += [TASKS[name].Config(objective="regression")]
    for config in configs:
        task = TASKS[name](config, labels)
        task.read_vocabulary(tokenizer)
        head = task.build_head(decoder if name == "causal_lm" else backbone)
        without = ("text_embedding", "contrastive_classification", "causal_lm")
        assert head.defines_divergence is (name not in without)
