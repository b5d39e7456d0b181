"""One-call use: the names people know, masks filled where they stand in the user's string, options that fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wenmai
from fresh import fresh_bundle
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, toy_config
from wenmai.cli import main
from wenmai.data.examples import read_examples
from wenmai.errors import UserError
from wenmai.inference.pipeline import KNOWN_AS, Pipeline, pipeline, task_of, uses_of
from wenmai.inference.predictor import Predictor, load
from wenmai.tasks import TASKS
from wenmai.tasks.fill_mask import prompt_rows
from wenmai.training.trainer import train

TEXT = "王小明[MASK]天去了北京开会，然后回家。"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


@pytest.fixture(scope="module")
def learned(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        toy_config(
            tmp_path_factory.mktemp("mlm"),
            "masked-lm",
            backbone,
            epochs=15,
            learning_rate=2e-2,
            eval_steps=0.5,
        )
    )


@pytest.fixture(scope="module")
def fill(learned: Path) -> Pipeline:
    made = pipeline("fill-mask", model=learned)
    assert isinstance(made, Pipeline)
    return made


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A masked LM whose tokenizer writes ``<mask>``."""
    folder = tmp_path_factory.mktemp("unigram")
    backbone = tiny_backbone_folder(folder / "backbone", texts=ALL_TEXTS, vocabulary="unigram")
    return load(fresh_bundle(folder / "bundle", backbone, {"name": "masked_lm", "max_length": 64}, []))


@pytest.fixture(scope="module")
def classifier(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return fresh_bundle(folder / "bundle", backbone, {"name": "text_classification"}, ["中", "坏", "好"])


def test_the_call_of_the_readme_fills_a_mask(learned: Path) -> None:
    found = wenmai.pipeline("fill-mask", model=str(learned))(TEXT)
    (mask,) = found["masks"]
    assert TEXT[mask["start"] : mask["end"]] == "[MASK]"
    assert "昨" in [guess["text"] for guess in mask["guesses"][:2]]  # of 4,000
    assert all(guess["filled"] == TEXT.replace("[MASK]", guess["text"]) for guess in mask["guesses"])
    assert found["filled"] == mask["guesses"][0]["filled"]
    scores = [guess["score"] for guess in mask["guesses"]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True) and sum(scores) <= 1


def test_scores_are_the_softmax_over_the_whole_vocabulary(fill: Pipeline) -> None:
    predictor = fill.predictor
    text = "王小明昨[MASK]去了[MASK]京开会"
    pretrained = predictor.tokenizer.pretrained
    batch = dict(pretrained([text], return_tensors="pt"))
    with torch.no_grad():
        logits_TV = predictor.model(batch)["logits"][0].double()
    for mask, place in zip(
        fill(text)["masks"], (batch["input_ids"][0] == predictor.tokenizer.mask_id).nonzero(), strict=True
    ):
        probability_V = logits_TV[place.item()].softmax(dim=-1)
        probability_V[sorted(predictor.tokenizer.special_ids)] = 0
        scores, ids = probability_V.topk(5)
        assert [guess["token"] for guess in mask["guesses"]] == pretrained.convert_ids_to_tokens(ids.tolist())
        np.testing.assert_allclose([guess["score"] for guess in mask["guesses"]], scores, atol=2e-5)


@pytest.mark.parametrize("written", ["[MASK]", "<mask>"])
def test_either_spelling_is_a_mask_with_its_own_offsets(written: str, unigram: Predictor) -> None:
    text = f"👨‍👩‍👧{written}ＡＢＣ e\u0301  {written}{written} 在北京{written}"
    found = unigram(text)
    assert [(m["start"], m["end"]) for m in found["masks"]] == [
        (i, i + len(written)) for i in range(len(text)) if text.startswith(written, i)
    ]
    other = unigram(text.replace(written, "<mask>"))
    assert [m["guesses"][0]["token"] for m in other["masks"]] == [
        m["guesses"][0]["token"] for m in found["masks"]
    ]
    assert "mask" not in found["filled"].lower() and found["filled"].startswith("👨‍👩‍👧")


def test_masks_of_a_long_text_are_each_judged_once_where_they_stand_freest(fill: Pipeline) -> None:
    pieces = ["王小明昨天去了北京开会，" * 20, "王小明昨", "去了北京", *["开会" * 40] * 2, ""]
    text = "[MASK]".join(pieces)
    found = fill(text, top_k=1)
    starts = [i for i in range(len(text)) if text.startswith("[MASK]", i)]
    assert [mask["start"] for mask in found["masks"]] == starts
    assert found["masks"][0]["guesses"][0]["filled"] == text.replace("[MASK]", found["filled"][starts[0]], 1)
    rows = prompt_rows(text, fill.predictor.tokenizer, max_length=64, mask_share=0.3)
    assert max(map(len, rows)) <= 64 and len(rows) <= len(starts)  # windows without a mask are not computed


def test_batch_mates_change_nothing(fill: Pipeline) -> None:
    texts = [TEXT, "[MASK]" * 3, f"{'开会' * 90}[MASK]", "李建[MASK]昨天"]
    for alone, together in zip(map(fill, texts), fill(texts), strict=True):
        assert [m["start"] for m in alone["masks"]] == [m["start"] for m in together["masks"]]
        for one, other in zip(alone["masks"], together["masks"], strict=True):
            np.testing.assert_allclose(one["guesses"][0]["score"], other["guesses"][0]["score"], atol=2e-5)


def test_targets_restrict_the_guesses_and_keep_their_probability(fill: Pipeline) -> None:
    free = {g["text"]: g["score"] for g in fill(TEXT, top_k=4000)["masks"][0]["guesses"]}
    (mask,) = fill(TEXT, targets=["今", "昨"])["masks"]
    assert [guess["text"] for guess in mask["guesses"]] == ["昨", "今"]
    for guess in mask["guesses"]:
        assert guess["score"] == pytest.approx(free[guess["text"]], abs=1e-5)
    for target, said in (("昨天", "2 tokens"), ("[MASK]", "no token"), ("🇨🇳", "token")):
        with pytest.raises(UserError, match=said):
            fill(TEXT, targets=[target])


def test_a_text_without_masks_is_scored_and_every_token_counts_once(fill: Pipeline) -> None:
    with pytest.raises(UserError, match=r"no mask to fill: write \[MASK\]"):
        fill("王小明昨天去了北京开会，然后回家。")
    text = "王小明昨天去了北京开会，" * 9
    known, shuffled, empty = fill.predictor([text, "，会开京北了去天昨明小王" * 9, ""])
    assert known["tokens"] == shuffled["tokens"] == len(text)
    assert known["perplexity"] < shuffled["perplexity"]
    assert known["perplexity"] == pytest.approx(np.exp(known["loss"] / known["tokens"]), abs=1e-3)
    assert (empty["tokens"], empty["perplexity"]) == (0, 1.0)


def test_the_command_line_does_the_same(
    fill: Pipeline, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": TEXT, "id": 7, "top_k": 1, "targets": ["今", "昨"]}, {"text": "开会"}]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert main(["predict", str(learned), str(file)]) == 0
    asked, scored = map(json.loads, capsys.readouterr().out.splitlines())
    assert asked == fill({"text": TEXT, "id": 7}, top_k=1, targets=["今", "昨"])
    assert [guess["text"] for guess in asked["masks"][0]["guesses"]] == ["昨"]
    assert scored["tokens"] == 2


def test_every_task_has_a_use_and_every_use_a_task() -> None:
    assert set(KNOWN_AS.values()) <= set(TASKS)
    for name in TASKS:
        assert {task_of(use) for use in uses_of(name)} == {name, None}
        assert task_of(name) == name
    with pytest.raises(UserError, match="did you mean 'sentiment-analysis'"):
        task_of("sentiment-analyses")


def test_the_page_lists_the_names() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")
    for use, task in KNOWN_AS.items():
        assert re.search(rf"^\|.*`{use}`.*`{task}`", page, re.MULTILINE), use


def test_a_bundle_of_another_task_is_refused_with_what_it_can_do(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is a masked_lm model.*pipeline\('fill-mask'\) or .*pipeline\('feature"
    ):
        pipeline("ner", model=learned)
    with pytest.raises(UserError, match="no such folder"):
        pipeline("ner", model=tmp_path / "nowhere")


def test_top_k_keeps_the_best_labels(classifier: Path) -> None:
    classify = pipeline("sentiment-analysis", model=classifier, top_k=2, device=-1)
    whole = load(classifier)("很好")["scores"]
    best = classify("很好")["scores"]
    assert list(best) == sorted(whole, key=lambda label: -whole[label])[:2]
    assert list(classify("很好", top_k=1)["scores"]) == list(best)[:1]
    assert [p["text"] for p in classify(["很好", {"text": "坏"}])] == ["很好", "坏"]


@pytest.mark.parametrize(
    ("use", "options", "said"),
    [
        ("text-classification", {"targets": ["好"]}, "targets: is for fill-mask"),
        ("text-classification", {"top_k": 0}, "expected 1 or more"),
        ("text-classification", {"pooling": "mean"}, "pooling: is no option"),
        ("feature-extraction", {"top_k": 3}, "top_k: is no option"),
        ("feature-extraction", {"pooling": "max"}, "give mean, cls or last"),
        ("text-classification", {"device": "tpu7"}, "give auto, cpu or cuda:N"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    use: str, options: dict[str, Any], said: str, classifier: Path
) -> None:
    with pytest.raises(UserError, match=said):
        pipeline(use, model=classifier, **options)


USES: dict[str, tuple[str, Any, dict[str, Any], set[str]]] = {
    "ner": ("ner", TEXT, {}, {"text", "entities"}),
    "sentiment-analysis": ("text_classification", TEXT, {}, {"text", "label", "score", "scores"}),
    "text-classification": ("text_classification", TEXT, {}, {"text", "label", "score", "scores"}),
    "text-pair": ("text_matching", (TEXT, "北京"), {}, {"text", "text_pair", "label", "score", "scores"}),
    "question-answering": (
        "question_answering",
        {"question": "谁去了？", "context": TEXT},
        {},
        {"question", "context", "answer", "start", "end", "score", "n_best"},
    ),
    "relation-extraction": ("relation_extraction", TEXT, {}, {"text", "relations"}),
    "fill-mask": ("masked_lm", TEXT, {}, {"text", "filled", "masks"}),
    "dependency-parsing": ("dependency_parsing", TEXT, {}, {"text", "words", "sentences"}),
    "feature-extraction": ("masked_lm", TEXT, {}, {"text", "embedding"}),
    "slot-filling": ("slot_filling", TEXT, {}, {"text", "intents", "scores", "slots"}),
    "zero-shot-classification": (
        "masked_lm",
        TEXT,
        {"candidate_labels": ["好", "坏"]},
        {"sequence", "labels", "scores"},
    ),
}
"""Use: the task of a bundle that it takes, what is asked, options, the keys of the answer."""


@pytest.mark.parametrize("use", USES)
def test_every_name_that_people_know_works(use: str, backbone: Path, tmp_path: Path) -> None:
    task, item, options, keys = USES[use]
    section, records = next(toy for toy in TOYS.values() if toy[0]["name"] == task)
    of_task = TASKS[task]
    examples = read_examples(records, of_task.Example)
    labels = of_task.collect_labels(of_task.Config.model_validate(section), examples)
    bundle = fresh_bundle(tmp_path / "bundle", backbone, {"max_length": 64, **section}, labels)
    ask = pipeline(use, model=bundle, device="cpu", **options)
    found = ask(item)
    assert found.keys() == keys
    several = ask([item, item])
    assert [answer.keys() for answer in several] == [keys, keys]
    assert use == "feature-extraction" or use in uses_of(task)
    other = "relation_classification"
    if task != "masked_lm":
        with pytest.raises(UserError, match=f"is a {task} model"):
            pipeline(other, model=bundle)


def test_the_page_lists_every_use() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")
    for use in [*USES, *(name.replace("_", "-") for name in TASKS)]:
        assert re.search(rf"^\|.*`{use}`", page, re.MULTILINE), use
