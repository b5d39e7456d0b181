"""Pages: records are checked, gold survives rows -> targets -> decode through windows, boxes reach every encoder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModel,
    LayoutLMConfig,
    LayoutLMModel,
    LayoutLMv3Config,
    LayoutLMv3Model,
    LayoutLMv3Tokenizer,
    LiltConfig,
    LiltModel,
)

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, layout_records
from wenmai.backbones.load import Backbone, load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import IGNORE, Row, collate
from wenmai.errors import UserError
from wenmai.evaluation.evaluate import prediction_line
from wenmai.evaluation.sides import _example as record_of_line
from wenmai.heads.page_links import DISTANCES, IMPOSSIBLE
from wenmai.tasks.document_layout import DocumentLayout, DocumentLayoutConfig
from wenmai.tasks.layout_example import DocumentLayoutExample, page_text
from wenmai.tasks.model import Model, build_model
from wenmai.tasks.task import RowOutputs
from wenmai.text.boxes import around, in_thousandths, plain

LABELS = ["回答", "标题", "问题", "问题\t回答"]
BOX = [10, 10, 90, 40]
PARTS = [
    "王小明",
    "Name:",
    "R",
    "&",
    "",
    " ",
    "👨\u200d👩\u200d👧",
    "é",
    "ＡＢ",
    "\u200b",
    "New York",
    "3.14",
    "：",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[*PARTS, *ALL_TEXTS])


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [*PARTS, *ALL_TEXTS]
    return tiny_backbone_folder(tmp_path_factory.mktemp("unigram"), texts=texts, vocabulary="unigram")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_folder(folder)[1]


def task_of(labels: list[str] = LABELS, **options: Any) -> DocumentLayout:
    return DocumentLayout(DocumentLayoutConfig(**options), labels)


def page(*words: str, **fields: Any) -> DocumentLayoutExample:
    return DocumentLayoutExample.model_validate(
        {"words": [{"text": word, "box": BOX} for word in words], **fields}
    )


def toy_pages() -> list[DocumentLayoutExample]:
    return [DocumentLayoutExample.model_validate(record) for record in layout_records()]


# ---- records ---------------------------------------------------------------------------------------------


def test_words_are_joined_as_they_are_written() -> None:
    words = ["Date", "of", "birth", "：", "", "2026", "年", "R", "&", "D"]
    text, places = page_text(words)
    assert text == "Date of birth：2026年R&D"
    assert [text[start:end] for start, end in places] == words
    assert page_text([]) == ("", [])


def test_boxes_of_any_unit_become_thousandths() -> None:
    assert in_thousandths((75.4, 100, 377, 1000), 754, 1000) == (100, 100, 500, 1000)
    assert in_thousandths((0.1, 0.2, 0.5, 1.0), 1, 1) == (100, 200, 500, 1000)
    assert in_thousandths((-5, 0, 120, 50), 100, 100) == (0, 0, 1000, 500)
    assert around([(5, 6, 7, 8), (1, 9, 6, 10)]) == (1, 6, 7, 10)
    assert plain((1.0, 2.5, 3, 4)) == [1, 2.5, 3, 4]
    inches = page("a", width=85, height=110)
    assert inches.thousandths(segments=False) == [(118, 91, 1000, 364)]
    assert "1 boxes reach beyond the page" in inches.guesses[0]
    assert page("a").thousandths(segments=False) == [(10, 10, 90, 40)] and not page("a").guesses


def test_entities_by_words_or_by_characters() -> None:
    by_words = page("姓名", "：", "王小明", entities=[{"words": [0, 1], "label": "问题"}])
    by_characters = page("姓名", "：", "王小明", entities=[{"start": 0, "end": 3, "label": "问题"}])
    assert by_words == by_characters
    assert by_words.spans[0] == (0, 3, "问题") and by_words.text == "姓名：王小明"
    again = DocumentLayoutExample.model_validate_json(by_words.model_dump_json())
    assert again == by_words


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"words": [{"text": "a", "box": [5, 5, 1, 9]}]}, r"words\[0\].box: .* ends before it begins"),
        ({"words": [{"text": "a", "box": [0, 0, 5, 1200]}]}, "not within 0 to 1000: give the width and height"),
        (
            {"words": [{"text": "a", "box": [300, 0, 400, 9]}], "width": 200, "height": 100},
            "lies outside of the page, which is 200 wide and 100 high",
        ),
        (
            {"words": [{"text": "a", "box": BOX, "segment_box": [5, 5, 1, 9]}]},
            r"words\[0\].segment_box: .* ends before",
        ),
        ({"width": 100}, "height: is missing"),
        ({"width": 100, "height": 0}, "greater than 0"),
        ({"text": "b"}, "text: is 'b', but the words are 'a'"),
        ({"entities": [{"words": [1], "label": "x"}]}, r"words \[1\] are not numbers from 0 to 0"),
        ({"entities": [{"words": [], "label": "x"}]}, "has no words"),
        ({"entities": [{"words": [0], "label": "x\ty"}]}, "holds a tab"),
        ({"entities": [{"words": [0], "label": "x", "text": "b"}]}, "its words are 'a', not 'b'"),
        ({"entities": [{"start": 0, "end": 1, "words": [0, 0], "label": "x"}]}, "in order, each once"),
        (
            {"words": [{"text": "ab", "box": BOX}] * 2, "entities": [{"start": 0, "end": 3, "label": "x"}]},
            "are not where words begin and end",
        ),
        ({"entities": [{"words": [0], "label": "x"}], "links": [{"key": 0, "value": 0}]}, "not the numbers of two"),
        ({"links": [{"key": 0, "value": 1}]}, "0 entities"),
    ],
)  # fmt: skip
def test_wrong_records_are_told(fields: dict[str, Any], said: str) -> None:
    record = {"words": [{"text": "a", "box": BOX}], **fields}
    with pytest.raises(ValidationError, match=said):
        DocumentLayoutExample.model_validate(record)


def test_what_can_be_asked() -> None:
    task = task_of()
    record = layout_records()[0]
    asked = task.as_example(record)
    assert (asked.id, asked.width, asked.entities) == (record["id"], 800, None)
    for item in ("文本", {"text": "文本"}, {"words": "文本"}):
        with pytest.raises(UserError, match="document_layout predicts for a page"):
            task.as_example(item)
    links = task_of(parts=["links"])
    assert len(links.as_example(record).spans) == len(record["entities"])
    with pytest.raises(UserError, match="give them as"):
        links.as_example({"words": record["words"]})


# ---- rows, targets, decode -------------------------------------------------------------------------------


def outputs_of(rows: list[Row], task: DocumentLayout, gold: DocumentLayoutExample) -> list[RowOutputs]:
    """What a head that knows the targets of a page would say: one dimension an entity, so that links cross windows."""
    entities = gold.entities or ()
    outputs = []
    for row in rows:
        out: RowOutputs = {}
        if task.finds_entities:
            logits = np.full((len(row), len(task.tags)), 0.0, dtype=np.float32)
            for token, tag in enumerate(row.targets["tags"]):
                logits[token, tag if tag != IGNORE else 0] = 9.0
            out["logits"] = logits
        if task.finds_links:
            keys = np.zeros((len(row), len(entities) + 1), dtype=np.float32)
            values = np.zeros_like(keys)
            keys[:, -1], values[:, -1] = 1.0, -5.0 * keys.shape[1] ** 0.5
            first, stop = row.content
            for number, entity in enumerate(entities):
                start = gold.places[entity.words[0]][0]
                tokens = [t for t in range(first, stop) if row.offsets[t][0] == start]
                for token in tokens[:1]:
                    keys[token, number] = 10.0 * keys.shape[1] ** 0.5
                    for link in gold.links or ():
                        if link.value == number:
                            values[token, link.key] = 1.0
            out["keys"], out["values"] = keys, values
            out["places"] = np.zeros((2, DISTANCES, DISTANCES), dtype=np.float32)
            out["types"] = np.where(task.possible, 0.0, IMPOSSIBLE).astype(np.float32)
        outputs.append(out)
    return outputs


def random_pages(seed: int, words: int) -> DocumentLayoutExample:
    rng = random.Random(seed)
    texts = [rng.choice(PARTS) for _ in range(words)]
    entities: list[dict[str, Any]] = []
    at = 0
    while at < words:
        size = rng.randint(1, 3)
        own = [i for i in range(at, min(at + size, words)) if texts[i]]
        if own and rng.random() < 0.6 and own[-1] - own[0] + 1 == len(own):
            entities.append({"words": own, "label": rng.choice(["问题", "回答", "标题"])})
        at += size
    links = [
        {"key": k, "value": v}
        for k, one in enumerate(entities)
        for v, other in enumerate(entities)
        if (one["label"], other["label"]) == ("问题", "回答") and rng.random() < 0.2
    ]
    corner = [(rng.random() * 500, rng.random() * 500) for _ in texts]
    return DocumentLayoutExample.model_validate(
        {
            "words": [
                {"text": text, "box": [x, y, x + 20, y + 10]}
                for text, (x, y) in zip(texts, corner, strict=True)
            ],
            "width": 600,
            "height": 600,
            "entities": entities,
            "links": links,
        }
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_gold_comes_back_through_windows(folder: Path, unigram: Path, seed: int, scheme: str) -> None:
    example = random_pages(seed, 90)
    for path in (folder, unigram):
        tokenizer = load_folder(path)[1]
        for max_length in (512, 40):
            task = task_of(max_length=max_length, window_overlap=12, tagging=scheme)
            rows = task.featurize(example, tokenizer)
            assert (len(rows) > 1) == (max_length == 40)
            found = task.decode(outputs_of(rows, task, example), rows, example)
            assert found["text"] == example.text
            assert [(e["start"], e["end"], e["label"]) for e in found["entities"]] == example.spans
            assert [tuple(e["words"]) for e in found["entities"]] == [e.words for e in example.entities or ()]
            wanted = [(link.key, link.value) for link in example.links or ()]
            for links in (found["links"], found["given_links"]):
                assert [(link["key"], link["value"]) for link in links] == sorted(wanted)
            for entity in found["entities"]:
                assert entity["text"] == example.text[entity["start"] : entity["end"]]
                assert entity["box"] == plain(around(example.words[i].box for i in entity["words"]))
            values = task.score([example], [found]).values()
            assert values["f1"] == values["link_f1"] == values["given_link_f1"] == 1.0
    given = task_of(parts=["links"])
    rows = given.featurize(example, tokenizer)
    found = given.decode(outputs_of(rows, given, example), rows, example)
    assert "tags" not in rows[0].targets and "given_links" not in found
    assert [(link["key"], link["value"]) for link in found["links"]] == sorted(wanted)


def test_what_evaluation_writes_is_read_again(tokenizer: Tokenizer) -> None:
    task, example = task_of(), random_pages(0, 20)
    rows = task.featurize(example, tokenizer)
    line = prediction_line(task, example, task.decode(outputs_of(rows, task, example), rows, example))
    again = record_of_line(DocumentLayoutExample, line, "predictions.jsonl:1")
    assert isinstance(again, DocumentLayoutExample) and again.size == example.size == (600, 600)
    assert (again.spans, again.links) == (example.spans, example.links)
    with pytest.raises(ValidationError, match="start"):
        DocumentLayoutExample.model_validate({"words": [{"text": "a", "box": BOX, "start": 1, "end": 2}]})


def test_every_token_has_the_box_of_its_word(tokenizer: Tokenizer) -> None:
    example = toy_pages()[0]
    template = tokenizer.single
    for kind in ("words", "segments"):
        (row,) = task_of(boxes=kind).featurize(example, tokenizer)
        boxes = list(zip(*(row.inputs[name] for name in BOX_NAMES), strict=True))
        known = example.thousandths(segments=kind == "segments")
        first, stop = row.content
        assert boxes[:first] == [(0, 0, 0, 0)] * len(template.before)
        assert boxes[stop:] == [(1000,) * 4] * len(template.after)
        for token in range(first, stop):
            start, end = row.offsets[token]
            (word,) = [i for i, (s, e) in enumerate(example.places) if s <= start and end <= e]
            assert boxes[token] == known[word]
    assert known[3] != example.thousandths(segments=False)[3]
    (row,) = task_of(boxes="none").featurize(example, tokenizer)
    assert not {*BOX_NAMES} & row.inputs.keys()


BOX_NAMES = ("box_left", "box_top", "box_right", "box_bottom")


def test_what_the_rows_cannot_say_is_told(tokenizer: Tokenizer) -> None:
    task = task_of(max_length=8, window_overlap=2)
    assert not any(task_of().lost_labels(example, tokenizer) for example in toy_pages())
    apart = page(
        *"姓名：一二三四五六七八九王小明",
        entities=[{"words": [0, 1], "label": "问题"}, {"words": [12, 13, 14], "label": "回答"}],
        links=[{"key": 0, "value": 1}],
    )
    assert "1 of 1 links have ends that no row holds together" in task.lost_labels(apart, tokenizer)[0]
    odd = page(
        "姓名", "王", "：", "",
        entities=[
            {"words": [0, 2], "label": "问题"}, {"words": [1], "label": "回答"}, {"words": [1], "label": "标题"},
            {"words": [3], "label": "标题"}, {"words": [2], "label": "新"},
        ],
        links=[{"key": 1, "value": 0}],
    )  # fmt: skip
    said = "\n".join(task_of().lost_labels(odd, tokenizer))
    for reason in (
        "has other words between",
        "shares words",
        "no word with a character",
        "does not occur",
        "1 links are between labels",
    ):
        assert reason in said
    assert task_of().label_problems(odd) == [
        "entities[4]: label '新' does not occur in the training set, which has 回答, 标题, 问题"
    ]
    (missing,) = task_of().label_problems(page("a", entities=[{"words": [0], "label": "问题"}]))
    assert missing.startswith("links: are missing")


def test_labels_are_those_of_entities_and_of_links() -> None:
    config = DocumentLayoutConfig()
    assert DocumentLayout.collect_labels(config, toy_pages()) == LABELS
    alone = DocumentLayoutConfig(parts=["entities"])
    assert DocumentLayout.collect_labels(alone, toy_pages()) == LABELS[:3]
    with pytest.raises(UserError, match="needs entities"):
        DocumentLayout.collect_labels(config, [page("a")])
    with pytest.raises(UserError, match="the training set has none"):
        DocumentLayout.collect_labels(config, [page("a", entities=[{"words": [0], "label": "问题"}])])
    with pytest.raises(ValidationError, match="names a part twice"):
        DocumentLayoutConfig(parts=["links", "links"])


# ---- boxes and encoders ----------------------------------------------------------------------------------


def model_of(folder: Path, **options: Any) -> tuple[DocumentLayout, Model, Tokenizer]:
    task = task_of(**options)
    torch.manual_seed(0)
    model, tokenizer = build_model(task, *load_folder(folder))
    for table in [] if model.head.boxes is None else model.head.boxes.parameters():
        torch.nn.init.normal_(table, std=0.5)
    return task, model.eval(), tokenizer


def batch_of(
    task: DocumentLayout, tokenizer: Tokenizer, pages: list[DocumentLayoutExample]
) -> dict[str, Any]:
    return collate([row for page in pages for row in task.featurize(page, tokenizer)], tokenizer.pad_id)


@pytest.mark.parametrize("training", [False, True])
def test_with_added_boxes_packed_is_padded(folder: Path, training: bool) -> None:
    task, model, tokenizer = model_of(folder)
    model.train(training)
    batch = batch_of(task, tokenizer, toy_pages()[:4]) | {"key": torch.arange(4)}
    assert not batch["attention_mask"].all()
    results = []
    for choice in ("off", "on"):
        model.backbone.set_padding_free(choice)
        model.zero_grad()
        outputs = model(batch, "train")
        loss, _ = model.head.loss(outputs, batch)
        loss.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (packed_loss, packed_gradients) = results
    torch.testing.assert_close(packed_loss, loss)
    assert gradients.keys() == packed_gradients.keys() >= {"head.boxes.x.weight", "head.links.places"}
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5, rtol=1e-3)


def layoutlm_folder(path: Path, texts_from: Path) -> Path:
    """A random LayoutLM with the tokenizer of another folder."""
    tokenizer = load_folder(texts_from)[1]
    tokenizer.save(path)
    config = LayoutLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, pad_token_id=tokenizer.pad_id, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    LayoutLMModel(config).save_pretrained(path)
    return path


def lilt_folder(path: Path, texts_from: Path) -> Path:
    tokenizer = load_folder(texts_from)[1]
    tokenizer.save(path)
    config = LiltConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, pad_token_id=tokenizer.pad_id, initializer_range=0.3, max_position_embeddings=514,
    )  # fmt: skip
    torch.manual_seed(0)
    LiltModel(config).save_pretrained(path)
    return path


def layoutlmv3_folder(path: Path, texts_from: Path) -> Path:
    """With its own tokenizer, of bytes, which asks for boxes."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*special, *sorted(ByteLevel.alphabet()), "Ġa", "an"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    LayoutLMv3Tokenizer(vocab=vocabulary, merges=[("Ġ", "a"), ("a", "n")]).save_pretrained(path)
    config = LayoutLMv3Config(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        coordinate_size=4, shape_size=8, max_position_embeddings=514, input_size=32, initializer_range=0.3,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    LayoutLMv3Model(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("make", [layoutlm_folder, lilt_folder, layoutlmv3_folder])
def test_encoders_that_read_boxes_get_them(folder: Path, tmp_path: Path, make: Any) -> None:
    task, model, tokenizer = model_of(make(tmp_path / "model", folder))
    assert model.backbone.reads_boxes and model.head.boxes is None
    batch = batch_of(task, tokenizer, toy_pages()[:3])
    theirs = AutoModel.from_pretrained(tmp_path / "model").eval()
    box = torch.stack([batch[name] for name in BOX_NAMES], dim=-1)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        for choice in ("off", "auto"):
            model.backbone.set_padding_free(choice)
            found = model.backbone(batch)[real]
            known = {name: batch[name] for name in ("input_ids", "attention_mask")}
            expected = theirs(**known, bbox=box).last_hidden_state[real]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            without = {name: value for name, value in batch.items() if name not in BOX_NAMES}
            assert (model.backbone(without)[real] - expected).abs().max() > 0.01


def test_a_layoutlm_is_trained_saved_and_loaded(folder: Path, tmp_path: Path) -> None:
    from toy import toy_config
    from wenmai.inference.pipeline import pipeline
    from wenmai.inference.pipeline import task_of as task_of_use
    from wenmai.inference.predictor import load
    from wenmai.training.trainer import train

    backbone = layoutlm_folder(tmp_path / "layoutlm", folder)
    run = train(toy_config(tmp_path / "toy", "layout", backbone, epochs=1))
    model, page = load(run), layout_records()[0]
    assert model(page) == load(run)(page) == pipeline("document-layout", model=run)(page)
    assert task_of_use("form-understanding") == "document_layout"
    assert isinstance(AutoModel.from_pretrained(run / "bundle"), LayoutLMModel)


def test_the_doctor_reads_pages(folder: Path, tmp_path: Path) -> None:
    from toy import toy_config
    from wenmai.check.doctor import check

    report = check(toy_config(tmp_path, "layout", folder))
    # the toy is its own dev set
    assert {finding.code for finding in report.findings} == {"leakage"}, report.findings
    assert report.splits[0].labels == {"问题": 40, "回答": 40, "标题": 16}


def test_every_option_has_an_effect(folder: Path) -> None:
    """On the targets, the head or its loss; window_overlap, max_length: see the windows above."""
    example = toy_pages()[0]

    def facts(**options: Any) -> tuple[Any, ...]:
        task, model, tokenizer = model_of(folder, **options)
        batch = batch_of(task, tokenizer, [example])
        model.train()
        loss, count = model.head.loss(
            model(batch | {"key": torch.zeros(1, dtype=torch.long)}, "train"), batch
        )
        return round(loss.item(), 5), count, sorted(name for name, _ in model.named_parameters())

    base = facts()
    changes: dict[str, Any] = {
        "parts": ["entities"], "boxes": "none", "tagging": "BIOES", "link_size": 8, "link_weight": 0.5, "dropout": 0.5,
    }  # fmt: skip
    assert {*changes, "name", "max_length", "window_overlap"} == set(DocumentLayoutConfig.model_fields)
    for key, value in changes.items():
        assert facts(**{key: value}) != base, key
    assert facts(boxes="segments") != base


def test_backbones_without_boxes_pass_over_them(folder: Path) -> None:
    backbone: Backbone = load_folder(folder)[0]
    assert not backbone.reads_boxes
