"""Models of transformers with the head they were trained with answer as they do there, whatever the architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from tiny import tiny_backbone_folder
from wenmai.backbones.with_head import MaskGuesser, head_kind, load_classifier, load_mask_guesser
from wenmai.data.rows import collate
from wenmai.errors import UserError
from wenmai.tasks.windows import window_rows

TEXTS = ["今天[MASK]气很好。", "北京[MASK][MASK]，上海。", "[MASK]"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
MASKED: list[tuple[Any, Any, dict[str, Any]]] = [
    (BertForMaskedLM, BertConfig, SIZES),
    (RobertaForMaskedLM, RobertaConfig, {**SIZES, "type_vocab_size": 1}),
    (ElectraForMaskedLM, ElectraConfig, {**SIZES, "embedding_size": 16}),
    (AlbertForMaskedLM, AlbertConfig, {**SIZES, "embedding_size": 16}),
    (DistilBertForMaskedLM, DistilBertConfig, DISTIL),
    (DebertaV2ForMaskedLM, DebertaV2Config, SIZES),
    (ModernBertForMaskedLM, ModernBertConfig, SIZES),
]
CLASSIFIERS: list[tuple[Any, Any, dict[str, Any]]] = [
    (BertForSequenceClassification, BertConfig, SIZES),
    (RobertaForSequenceClassification, RobertaConfig, {**SIZES, "type_vocab_size": 1}),
    (ElectraForSequenceClassification, ElectraConfig, SIZES),
    (DistilBertForSequenceClassification, DistilBertConfig, DISTIL),
    (DebertaV2ForSequenceClassification, DebertaV2Config, {**SIZES, "type_vocab_size": 2}),
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"))


def saved(folder: Path, tokenizer_folder: Path, kind: Any, config: Any, sizes: dict[str, Any]) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes))
        for name, parameter in model.named_parameters():
            if "bias" in name:
                torch.nn.init.normal_(parameter, std=0.1)  # a head whose bias is left out is found out
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "sizes"), MASKED, ids=lambda value: getattr(value, "__name__", "")
)
def test_masks_are_guessed_as_the_whole_model_does(
    kind: Any, config: Any, sizes: dict[str, Any], tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", tokenizer_folder, kind, config, sizes)
    assert head_kind(folder) == "masked_lm"
    guesser = load_mask_guesser(folder).eval()
    guesser.backbone.set_padding_free("auto")
    tokenizer = guesser.tokenizer
    rows = [window_rows(tokenizer.encode(text), tokenizer, max_length=32, overlap=0)[0] for text in TEXTS]
    batch = collate(rows, tokenizer.pad_id)
    asked_BT = batch["input_ids"] == tokenizer.mask_id
    assert asked_BT.sum() == 4
    whole = AutoModelForMaskedLM.from_pretrained(folder).eval()
    names = ["input_ids", "attention_mask"]
    with torch.no_grad():
        expected_MV = whole(**{name: batch[name] for name in names}).logits[asked_BT]
        torch.testing.assert_close(guesser(batch, asked_BT), expected_MV, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "config", "sizes"), CLASSIFIERS, ids=lambda value: getattr(value, "__name__", "")
)
def test_classifiers_answer_as_they_are(
    kind: Any, config: Any, sizes: dict[str, Any], tokenizer_folder: Path, tmp_path: Path
) -> None:
    named = {**sizes, "id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    folder = saved(tmp_path / "model", tokenizer_folder, kind, config, named)
    assert head_kind(folder) == "classifier"
    classifier, _, labels = load_classifier(folder)
    assert labels == ["a", "b", "c"]
    theirs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    whole = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    wanted = {name: theirs[name] for name in classifier.inputs if name in theirs}
    with torch.no_grad():
        torch.testing.assert_close(classifier.eval()(dict(theirs)), whole(**wanted).logits)


def test_weights_that_would_be_random_are_refused(tokenizer_folder: Path) -> None:
    assert head_kind(tokenizer_folder) is None
    with pytest.raises(UserError, match=r"weights of the bert model with its head are not in the file.*cls"):
        load_mask_guesser(tokenizer_folder)
    with pytest.raises(UserError, match=r"not in the file.*classifier"):
        load_classifier(tokenizer_folder)


def test_a_head_that_reads_more_than_hidden_states_is_refused(tokenizer_folder: Path) -> None:
    class Peeking(BertForMaskedLM):
        def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
            found = super().forward(input_ids, attention_mask, **options)
            if attention_mask is not None:
                found.logits = found.logits + 1 * attention_mask[..., None] * found.logits.abs().max()
            return found

    config = BertConfig.from_pretrained(tokenizer_folder)
    with pytest.raises(UserError, match="the head of Peeking can't be used apart"):
        MaskGuesser(Peeking(config), AutoTokenizer.from_pretrained(tokenizer_folder))
