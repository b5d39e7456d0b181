"""Labels named when a model is asked: equal to transformers by inference, to the definition by prompts, on any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertPreTrainedModel,
    ZeroShotClassificationPipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

import wenmai
from fresh import fresh_bundle
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, write_jsonl
from wenmai.cli import main
from wenmai.errors import UserError
from wenmai.inference.cloze import _windows
from wenmai.inference.entailment import entails_and_contradicts
from wenmai.inference.predictor import load
from wenmai.inference.zero_shot import ZeroShotClassifier

TEXTS = [
    "中国队昨晚以三比一战胜了韩国队。",
    "人民银行今天在北京发布了新的货币政策报告",
    "Mixed 中英 text，ＦＵＬＬ　ＷＩＤＴＨ e\u0301 👨‍👩‍👧",
    "",
    "我",
]
KNOWN = [TEXTS[0], TEXTS[1], "Mixed 中英 text 2026", "我"]
"""transformers refuses an empty text, and takes an unknown word for one token where we take each character."""
LABELS = ["体育", "经济", "天气预报", "好"]
LONG = "".join(f"第{i}次，王小明昨天去了北京开会。" for i in range(60))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With weights so large that answers to different texts differ."""
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)
    config = BertConfig.from_pretrained(folder)
    config.initializer_range = 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judge(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "bundle"
    task = {"name": "text_matching", "max_length": 64, "pooling": "mean"}
    return fresh_bundle(folder, backbone, task, ["contradiction", "entailment", "neutral"], scale=30)


@pytest.fixture(scope="module")
def cloze(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloze") / "bundle"
    return fresh_bundle(folder, backbone, {"name": "masked_lm", "max_length": 64}, [])


def classifier_folder(folder: Path, backbone: Path, classes: list[str]) -> Path:
    config = BertConfig.from_pretrained(backbone)
    config.id2label, config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return folder


def masked_lm_folder(folder: Path, backbone: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = BertForMaskedLM(BertConfig.from_pretrained(backbone))
        torch.nn.init.normal_(model.cls.predictions.bias, std=1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return folder


class AsTransformers(BertPreTrainedModel):
    """A bundle for pairs as transformers' pipelines want a classifier."""

    def __init__(self, bundle: Path):
        predictor = load(bundle, device="cpu")
        config = BertConfig(
            id2label=dict(enumerate(predictor.task.labels)), label2id=predictor.task.label_ids
        )
        super().__init__(config)
        self.answer = predictor.model

    def forward(self, **batch: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.answer(batch)["logits"])


def assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for own, other in zip(ours, theirs, strict=True):
        assert own.keys() == other.keys()
        assert (own["sequence"], own["labels"]) == (other["sequence"], other["labels"])
        np.testing.assert_allclose(own["scores"], other["scores"], atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "classes", [["entailment", "neutral", "contradiction"], ["CONTRADICTION", "x", "ENTAILMENT"]]
)
def test_equal_to_transformers_on_a_folder_of_its_own(
    classes: list[str], multi_label: bool, backbone: Path, tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path / "nli", backbone, classes)
    ours = wenmai.pipeline("zero-shot-classification", model=folder, device="cpu", multi_label=multi_label)
    theirs = wenmai_free_pipeline(BertForSequenceClassification.from_pretrained(folder), folder)
    template = "这句话是关于{}的。"
    for labels in (LABELS, "体育, 经济", ["好"]):
        given = {"candidate_labels": labels, "hypothesis_template": template}
        found = ours(KNOWN, labels)
        assert_equal(found, theirs(KNOWN, **given, multi_label=multi_label))
        assert labels is not LABELS or np.ptp(found[0]["scores"]) > 0.01
    one = ours(TEXTS[0], LABELS, hypothesis_template="{}新闻")
    assert_equal(
        [one],
        [theirs(TEXTS[0], candidate_labels=LABELS, hypothesis_template="{}新闻", multi_label=multi_label)],
    )


def wenmai_free_pipeline(model: Any, folder: Path) -> Any:
    return ZeroShotClassificationPipeline(
        model=model.eval(), tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_equal_to_transformers_on_the_weights_of_a_bundle(judge: Path, multi_label: bool) -> None:
    ours = ZeroShotClassifier(judge, device="cpu")
    theirs = wenmai_free_pipeline(AsTransformers(judge), judge)
    options: dict[str, Any] = {"hypothesis_template": "这是{}。", "multi_label": multi_label}
    found = ours(KNOWN, LABELS, **options)
    assert_equal(found, theirs(KNOWN, candidate_labels=LABELS, **options))
    assert np.ptp(found[0]["scores"]) > 0.05  # answers that differ, so that equality says something


def test_classes_are_known_by_their_names() -> None:
    for classes, expected in [
        (["neutral", "entailment", "contradiction"], (1, 2)),  # by place transformers would take 0
        (["not_entailment", "entailment"], (1, 0)),
        (["蕴含", "中立", "矛盾"], (0, 2)),
        (["entailment", "其他"], (0, 1)),
        (["entailment", "neutral", "other"], None),
        (["相同", "不同"], None),
    ]:
        assert entails_and_contradicts(classes) == expected


def guesses(model: Any, tokenizer: Any, sentence: str, word: str) -> float:
    """The mean log-probability of a word's characters at the sentence's masks, by the whole output matrix."""
    batch = tokenizer([sentence], return_tensors="pt")
    if tokenizer.mask_token != "[MASK]":
        # the mark of a word's beginning where no word begins is left out, as in training with wenmai
        mark_T = batch["input_ids"][0] == tokenizer.convert_tokens_to_ids("▁")
        batch = {name: tensor[:, ~mark_T] for name, tensor in batch.items()}
    places = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    ids = tokenizer.convert_tokens_to_ids(list(word))
    with torch.no_grad():
        log_TV = model(**batch).logits[0].double().log_softmax(dim=-1)
    assert len(places) == len(ids) and tokenizer.unk_token_id not in ids
    return float(log_TV[places, ids].mean())


def softmax(values: list[float]) -> list[float]:
    exponents = np.exp(np.array(values) - max(values))
    return list(exponents / exponents.sum())


@pytest.mark.parametrize("vocabulary", ["wordpiece", "unigram"])
def test_prompts_are_scored_as_defined(vocabulary: Any, tmp_path: Path) -> None:
    backbone = tiny_backbone_folder(tmp_path / "tiny", texts=ALL_TEXTS, vocabulary=vocabulary)
    folder = masked_lm_folder(tmp_path / "mlm", backbone)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)
    model.eval()
    words = {"sports": "育", "finance": "财雨", "weather": "晴雨雪"}
    prompt, mask = "“[MASK]”栏目：{}。", tokenizer.mask_token
    ours = ZeroShotClassifier(folder, device="cpu", prompt=prompt, candidate_labels=words)
    texts = [TEXTS[0], "", "我"]

    def expected(text: str) -> list[float]:
        return [
            guesses(model, tokenizer, prompt.replace("[MASK]", mask * len(word)).replace("{}", text), word)
            for word in words.values()
        ]

    prior, mean = np.array(expected("")), np.mean([expected("我"), expected(TEXTS[0])], axis=0)
    for text in texts:
        log_L = np.array(expected(text))
        for options, scores in [
            ({}, softmax(list(log_L - prior))),
            ({"calibrate": False}, softmax(list(log_L))),
            ({"calibrate": ["我", TEXTS[0]]}, softmax(list(log_L - mean))),
            ({"multi_label": True}, 1 / (1 + np.exp(prior - log_L))),
        ]:
            found = ours(text, **options)
            of = dict(zip(found["labels"], found["scores"], strict=True))
            assert found["scores"] == sorted(found["scores"], reverse=True)
            np.testing.assert_allclose([of[label] for label in words], scores, atol=1e-5)


def test_a_bundle_answers_like_the_folder_of_transformers(cloze: Path, tmp_path: Path) -> None:
    ours = ZeroShotClassifier(cloze, device="cpu", prompt="[MASK][MASK]：{}", candidate_labels="体育,经济")
    predictor = load(cloze, device="cpu")

    class Whole:
        def __call__(self, **batch: torch.Tensor) -> Any:
            return SequenceClassifierOutput(logits=predictor.model(batch)["logits"])

    tokenizer = predictor.tokenizer.pretrained
    log = [guesses(Whole(), tokenizer, f"[MASK][MASK]：{TEXTS[1]}", word) for word in ("体育", "经济")]
    found = ours(TEXTS[1], calibrate=False)
    of = dict(zip(found["labels"], found["scores"], strict=True))
    np.testing.assert_allclose([of["体育"], of["经济"]], softmax(log), atol=1e-5)


@pytest.mark.parametrize("which", ["judge", "cloze"])
def test_batch_mates_change_nothing_and_any_text_is_answered(
    which: str, request: pytest.FixtureRequest
) -> None:
    ask = ZeroShotClassifier(request.getfixturevalue(which), device="cpu", candidate_labels=LABELS)
    texts = [*TEXTS, " ", "\u3000\r\n", "𠮷野家🇨🇳", "王[MASK]明{}[MASK]", LONG]
    together = ask([{"text": text, "id": i} for i, text in enumerate(texts)])
    assert [(p["id"], p["sequence"]) for p in together] == list(enumerate(texts))
    for text, found in zip(texts, together, strict=True):
        alone = ask(text)
        # by label: labels of equal scores may change places
        by_label = [dict(zip(p["labels"], p["scores"], strict=True)) for p in (found, alone)]
        assert set(by_label[0]) == set(LABELS)
        for label in LABELS:
            assert by_label[0][label] == pytest.approx(by_label[1][label], abs=2e-5)
        assert sum(found["scores"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("which", ["judge", "cloze"])
def test_long_texts_are_read_to_their_end(which: str, request: pytest.FixtureRequest) -> None:
    ask = ZeroShotClassifier(request.getfixturevalue(which), device="cpu", candidate_labels=LABELS)
    changed = LONG[:-9] + "在上海发布了新书。"
    assert len(changed) == len(LONG)
    assert ask(LONG)["scores"] != ask(changed)["scores"]


def test_windows_hold_the_whole_prompt_and_leave_the_masks_of_the_text_alone(cloze: Path) -> None:
    ask = ZeroShotClassifier(cloze, device="cpu")
    text = LONG + "他说[MASK]。"
    rows = _windows(text, "「[MASK][MASK]」关于{}。", ask.model)  # type: ignore[arg-type]
    whole = ask.tokenizer.encode(text)
    assert len(rows) > 10 and max(map(len, rows)) <= 64
    seen: set[tuple[int, int]] = set()
    for row in rows:
        ids = list(row.inputs["input_ids"])
        original = row.targets["original"]
        assert isinstance(original, list) and [i for i, target in enumerate(original) if target == -1] == [
            2,
            3,
        ]
        written = ask.tokenizer.tokens(ids)
        assert written[:7] == ["[CLS]", "「", "[MASK]", "[MASK]", "」", "关", "于"]
        assert written[-2:] == ["。", "[SEP]"]
        seen |= {*row.offsets[7:-2]}
    shift = len("「[MASK][MASK]」关于")
    assert seen == {(start + shift, end + shift) for start, end in whole.offsets}


@pytest.mark.parametrize(
    ("which", "options", "said"),
    [
        ("judge", {}, "candidate_labels: none given"),
        ("judge", {"candidate_labels": []}, "none given; name at least one"),
        ("judge", {"candidate_labels": ["好", "好"]}, "a label is named twice"),
        ("judge", {"candidate_labels": ["好", " "]}, "expected texts that are not empty"),
        (
            "judge",
            {"candidate_labels": LABELS, "hypothesis_template": "关于它。"},
            r"write \{\} where it goes",
        ),
        (
            "judge",
            {"candidate_labels": LABELS, "prompt": "[MASK]{}"},
            "prompt: is for masked language models",
        ),
        (
            "judge",
            {"candidate_labels": LABELS, "calibrate": False},
            "calibrate: is for masked language models",
        ),
        ("judge", {"candidate_labels": ["长" * 99]}, "leaves no room for a text in the 64 tokens"),
        ("judge", {"candidate_labels": LABELS, "labels": LABELS}, "labels: is no option of zero-shot"),
        ("cloze", {"candidate_labels": LABELS, "hypothesis_template": "{}"}, "is for models of inference"),
        ("cloze", {"candidate_labels": LABELS, "prompt": "关于[MASK]。"}, "has 0 places for the text"),
        ("cloze", {"candidate_labels": LABELS, "prompt": "关于{}。"}, r"write \[MASK\] where it goes"),
        (
            "cloze",
            {"candidate_labels": LABELS, "prompt": "[MASK][MASK]{}"},
            "'天气预报' has 4 tokens.*2 masks",
        ),
        ("cloze", {"candidate_labels": LABELS, "prompt": "长" * 64 + "[MASK]{}"}, "leaves no room"),
        ("cloze", {"candidate_labels": ["好", "𨑨"]}, "can't be written with this model's vocabulary"),
        ("cloze", {"candidate_labels": ["好"], "calibrate": False}, "calibrate: false given, but by prompts"),
        ("cloze", {"candidate_labels": LABELS, "calibrate": "好"}, "expected true, false or a list"),
    ],
)
def test_what_can_not_be_asked_is_told(
    which: str, options: dict[str, Any], said: str, request: pytest.FixtureRequest
) -> None:
    ask = ZeroShotClassifier(request.getfixturevalue(which), device="cpu")
    with pytest.raises(UserError, match=said):
        ask(TEXTS[0], **options)


def test_models_of_another_kind_are_refused(backbone: Path, tmp_path: Path) -> None:
    pairs = fresh_bundle(tmp_path / "pairs", backbone, {"name": "text_matching"}, ["different", "same"])
    ner = fresh_bundle(tmp_path / "ner", backbone, {"name": "ner"}, ["人名"])
    for folder, said in [
        (pairs, "its classes are different, same: none is called entail"),
        (ner, "is a ner model: zero-shot classification needs a text_matching bundle"),
        (backbone, "has no head of use here"),
    ]:
        with pytest.raises(UserError, match=said):
            wenmai.pipeline("zero-shot-classification", model=folder)
    with pytest.raises(UserError, match="top_k: is no option of pipeline"):
        wenmai.pipeline("zero-shot-classification", model=pairs, top_k=2)


def test_the_command_line_predicts_and_scores(
    cloze: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": text, "label": "sports" if i % 2 else "money"} for i, text in enumerate(TEXTS)]
    data = write_jsonl(tmp_path / "data.jsonl", records)
    words = tmp_path / "labels.txt"
    words.write_text("sports\t体育\nmoney\t经济\n", encoding="utf-8")
    unlabelled = tmp_path / "texts.txt"
    unlabelled.write_text("很好\n北京\n", encoding="utf-8")
    options = ["--prompt", "[MASK]：{}", "--calibrate", str(unlabelled)]
    answers: list[list[dict[str, Any]]] = []
    for labels in (str(words), "sports=体育,money=经济"):
        assert main(["predict", str(cloze), str(data), "--labels", labels, *options]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert answers[0] == answers[1]
    ask = ZeroShotClassifier(cloze, device="cpu", prompt="[MASK]：{}", calibrate=["很好", "北京"])
    for found, own in zip(answers[0], ask(TEXTS, {"sports": "体育", "money": "经济"}), strict=True):
        assert (found["text"], found["label"], found["score"]) == (
            own["sequence"],
            own["labels"][0],
            own["scores"][0],
        )
    scoring = [
        "evaluate",
        str(cloze),
        str(data),
        "--labels",
        str(words),
        *options,
        "--output",
        str(tmp_path),
        "--json",
    ]
    assert main(scoring) == 0
    metrics = json.loads(capsys.readouterr().out)
    right = [found["label"] == record["label"] for found, record in zip(answers[0], records, strict=True)]
    assert metrics["accuracy"] == pytest.approx(np.mean(right)) and metrics["examples"] == 5
    assert metrics["zero_shot"] == {"labels": {"sports": "体育", "money": "经济"}, "template": "[MASK]：{}"}
    lines = (tmp_path / "evaluation" / "test" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["gold"]["label"] for line in lines] == [record["label"] for record in records]


def test_several_labels_are_scored_too(
    judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": text, "labels": LABELS[: i % 3]} for i, text in enumerate(TEXTS)]
    data = str(write_jsonl(tmp_path / "data.jsonl", records))
    asked = [str(judge), data, "--labels", ",".join(LABELS), "--hypothesis-template", "{}。", "--multi-label"]
    assert main(["evaluate", *asked, "--output", str(tmp_path), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["primary_metric"] == "f1" and 0 <= metrics["f1"] <= 1
    assert main(["predict", *asked]) == 0
    for line in capsys.readouterr().out.splitlines():
        found = json.loads(line)
        assert found["labels"] == [label for label in LABELS if found["scores"][label] >= 0.5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "MODEL", "DATA", "--labels", "体育,经济"], "name an output folder"),
        (["evaluate", "MODEL", "DATA", "--labels", "体育,经济", "--output", "OUT"], "1 label is not among"),
        (["evaluate", "MODEL", "DATA", "--prompt", "[MASK]{}"], "--prompt: is for zero-shot classification"),
        (["predict", "MODEL", "DATA", "--multi-label"], "--multi-label: is for zero-shot classification"),
        (["predict", "MODEL", "DATA", "--labels", "体育,经济", "--calibrate", "yse"], "does not exist"),
        (
            ["predict", "MODEL", "DATA", "--labels", "体育,经济", "--part", "a"],
            "--part: is of a model of several",
        ),
        (["predict", "MODEL", "DATA", "--labels", "TWICE"], "a label stands there twice"),
    ],
)
def test_mistakes_on_the_command_line_are_told(
    arguments: list[str], said: str, cloze: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(
        tmp_path / "data.jsonl", [{"text": "好", "label": "体育"}, {"text": "坏", "label": "军事"}]
    )
    twice = tmp_path / "twice.txt"
    twice.write_text("体育\t体\n体育 \t育\n", encoding="utf-8")
    known = {"MODEL": str(cloze), "DATA": str(data), "OUT": str(tmp_path), "TWICE": str(twice)}
    assert main([known.get(argument, argument) for argument in arguments]) == 2
    assert said in capsys.readouterr().err
