"""Templates and verbalisers by hand, the pre-trained head against transformers' own, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, RobertaConfig, RobertaForMaskedLM

from tiny import masked_lm_folder, tiny_backbone_folder
from toy import ALL_TEXTS
from wenmai.backbones.lm_head import pretrained_lm_head
from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import collate
from wenmai.errors import UserError
from wenmai.tasks.cloze_classification import ClozeClassification, ClozeClassificationConfig
from wenmai.tasks.labelled_text import LabelledText
from wenmai.tasks.model import build_model

LABELS = ["差", "好"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked_lm_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_backbone(BackboneConfig(model=str(folder)))[1]


def task(labels: list[str] = LABELS, **options: Any) -> ClozeClassification:
    return ClozeClassification(ClozeClassificationConfig(**{"max_length": 32, **options}), labels)


def written(row: Any, tokenizer: Tokenizer) -> str:
    return "".join(tokenizer.tokens([int(i) for i in row.inputs["input_ids"]]))


def test_rows_are_templates_with_the_text_in_them(tokenizer: Tokenizer) -> None:
    asked = task(templates=["真[MASK]！{text}", "{text}，[MASK]"], verbalizer={"好": ["很好", "妙"]})
    first, second = asked.featurize(LabelledText(text="天气很热", label="好"), tokenizer)
    assert written(first, tokenizer) == "[CLS]真[MASK][MASK]！天气很热[SEP]"
    assert written(second, tokenizer) == "[CLS]天气很热，[MASK][MASK][SEP]"
    assert first.inputs["slots"] == [0, 0, 1, 2, 0, 0, 0, 0, 0, 0]
    assert [first.offsets[i] for i in range(*first.content)] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert first.targets == second.targets == {"label": 1}


def test_pairs_and_their_cut(tokenizer: Tokenizer) -> None:
    asked = task(templates=["{text_pair}和{text}[MASK]"], max_length=16)
    (row,) = asked.featurize(LabelledText(text="一二三", text_pair="四五"), tokenizer)
    assert written(row, tokenizer) == "[CLS]四五和一二三[MASK][SEP]" and not row.targets
    long = LabelledText(text="一二三", text_pair="四五六七" * 4)
    (row,) = asked.featurize(long, tokenizer)
    assert len(row) == 16 and written(row, tokenizer).endswith("和一二三[MASK][SEP]")
    assert asked.lost_labels(long, tokenizer) == ["7 of 19 tokens of the pair are cut off"]


def test_long_texts_are_read_to_their_end(tokenizer: Tokenizer) -> None:
    text = "这家店真的很好吃" * 10
    rows = task(templates=["[MASK]：{text}"], window_overlap=4).featurize(LabelledText(text=text), tokenizer)
    assert len(rows) > 2 and all(len(row) <= 32 and sum(row.inputs["slots"]) == 1 for row in rows)
    covered = {row.offsets[i] for row in rows for i in range(*row.content)}
    assert {start for start, _ in covered} == set(range(len(text)))
    wider = task(templates=["[MASK]：{text}"], window_overlap=20).featurize(
        LabelledText(text=text), tokenizer
    )
    assert len(wider) > len(rows)


@pytest.mark.parametrize("words", [{}, {"好": "不错", "差": ["坏", "难吃"]}])
def test_untrained_it_answers_as_transformers_masked_lm(folder: Path, words: dict[str, Any]) -> None:
    """The pre-trained head is the real one: its probabilities are those of BertForMaskedLM."""
    asked = task(templates=["味道[MASK]，{text}"], verbalizer=words)
    model, tokenizer = build_model(asked, *load_backbone(BackboneConfig(model=str(folder))))
    (row,) = asked.featurize(LabelledText(text="今天去北京"), tokenizer)
    with torch.no_grad():
        logits = model.eval()(collate([row], tokenizer.pad_id))["logits"][0]
        theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()
        log_p = theirs(input_ids=torch.tensor([row.inputs["input_ids"]])).logits[0].log_softmax(dim=-1)
    masks = [i for i, slot in enumerate(row.inputs["slots"]) if slot]
    for number, label in enumerate(LABELS):
        given = words.get(label, label)
        scores = []
        for word in [given] if isinstance(given, str) else given:
            pieces = tokenizer.encode(word).ids
            scores.append(np.mean([float(log_p[m, i]) for m, i in zip(masks, pieces, strict=False)]))
        assert float(logits[number]) == pytest.approx(np.log(np.mean(np.exp(scores))), abs=1e-4)


def test_heads_of_other_names_are_found_too(folder: Path, tmp_path: Path) -> None:
    _, tokenizer = load_backbone(BackboneConfig(model=str(folder)))
    tokenizer.pretrained.save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=tokenizer.vocab_size, pad_token_id=0, **sizes))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    found = pretrained_lm_head(load_backbone(BackboneConfig(model=str(tmp_path)))[0])
    assert found is not None
    torch.testing.assert_close(found["dense.weight"], model.lm_head.dense.weight.detach())
    torch.testing.assert_close(found["bias"], model.lm_head.bias.detach())


def test_the_shipped_encoder_has_its_head() -> None:
    found = pretrained_lm_head(load_backbone(BackboneConfig(model="wenmai-tiny-zh"))[0])
    assert found is not None and float(found["bias"].abs().sum()) > 0


def test_several_templates_are_averaged(tokenizer: Tokenizer) -> None:
    asked = task(templates=["[MASK]{text}", "{text}[MASK]"])
    example = LabelledText(text="天气")
    rows = asked.featurize(example, tokenizer)
    outputs = [{"logits": np.array([0.0, 3.0], np.float32)}, {"logits": np.array([1.0, 0.0], np.float32)}]
    assert asked.decode(outputs, rows, example)["score"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


def test_labels_without_examples_can_be_answered() -> None:
    config = ClozeClassificationConfig(verbalizer={"中": "一般"})
    examples = [LabelledText(text="a", label="好"), LabelledText(text="b", label="差")]
    assert ClozeClassification.collect_labels(config, examples) == ["中", "好", "差"]


@pytest.mark.parametrize("template", ["{text}", "[MASK]", "[MASK][MASK]{text}", "{text}{text}[MASK]"])
def test_templates_need_their_slots(template: str) -> None:
    with pytest.raises(ValueError, match=r"write \{text\} once, \[MASK\] once"):
        task(templates=[template])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"verbalizer": {"好": "差"}}, "'差' for label '差' and '差' for label '好' are the same tokens"),
        ({"verbalizer": {"好": "𪚥"}}, "is not written with this model's vocabulary"),
        (
            {"templates": ["一二三四五六七八九十一二三四五六七八九十一二三四五六七八[MASK]{text}"]},
            "shorten it",
        ),
    ],
)
def test_what_the_vocabulary_or_the_row_can_not(
    options: dict[str, Any], said: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match=said):
        task(**options).featurize(LabelledText(text="天气"), tokenizer)


def test_pairs_and_templates_must_fit(tokenizer: Tokenizer) -> None:
    pair = LabelledText(text="a", text_pair="b", label="好")
    assert "has a text_pair" in task().label_problems(pair)[0]
    assert (
        "has no text_pair"
        in task(templates=["{text}{text_pair}[MASK]"]).label_problems(LabelledText(text="a", label="好"))[0]
    )
    with pytest.raises(UserError, match="has a text_pair"):
        task().as_example(("a", "b"))


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    bare = BackboneConfig(model=str(tiny_backbone_folder(tmp_path)))
    with pytest.raises(UserError, match="hold no masked-LM head"):
        build_model(task(), *load_backbone(bare))
    # what is drawn has no pre-trained head, and begins with a drawn one
    build_model(task(), *load_backbone(bare.model_copy(update={"weights": "random"})))
