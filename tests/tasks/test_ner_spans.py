"""Gold entities survive features -> labels -> decode of the task itself, for every head, over difficult text."""

from __future__ import annotations

import random
import string
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.tasks.ner import Ner, NerConfig, NerExample
from wenmai.tasks.span_decoding import decode_nested
from wenmai.tasks.span_targets import token_spans
from wenmai.tasks.task import RowOutputs
from wenmai.text.spans import Span

TEXTS = 10_000
LONGEST = 12
LABELS = ["人名", "地名"]
PARTS = [
    *["张三", "北京大学", "在", "中国人民银行", "，", "。", "龘", "hello", "World", "3.14", "[SEP]", "</s>"],
    *["ＡＢＣ", "１２３", "，！？", "ｶﾞ", "㎏", "½", "ﬁ", "👨\u200d👩\u200d👧", "❤\ufe0f", "🇨🇳", "😀"],
    *["\r\n", "\n", "\t", " ", "  ", "\u3000", "\u00a0", "\u200b", "\ufeff", "\u2060", "\0"],
    *[
        "e\u0301",
        "中\u0301",
        "é",
        "한국",
        "ひら",
        "𠮷",
        "\U0002a6d6\U00020001",
        "▁",
        "ß",
        *string.ascii_letters[:4],
    ],
]


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=PARTS, vocabulary=request.param)
    return load_folder(folder)[1]


def example(rng: random.Random, *, nested: bool) -> NerExample:
    text = "".join(rng.choices(PARTS, k=rng.randint(0, 12)))
    spans: set[Span] = set()
    for _ in range(rng.randint(0, 4)):
        if text:
            start = rng.randrange(len(text))
            spans.add(Span(start, min(len(text), start + rng.randint(1, LONGEST)), rng.choice(LABELS)))
    if not nested:
        apart: list[Span] = []
        for span in sorted(spans):
            if not apart or span.start >= apart[-1].end:
                apart.append(span)
        spans = set(apart)
    entities = [{"start": s.start, "end": s.end, "label": s.label} for s in sorted(spans)]
    return NerExample.model_validate({"text": text, "entities": entities})


def right_outputs(task: Ner, given: NerExample, rows: list[Row], tokenizer: Tokenizer) -> list[RowOutputs]:
    """What a model that is always right gives for these rows."""
    if task.config.head == "global_pointer":
        outputs = []
        for row in rows:
            logits = np.full((len(LABELS), len(row), len(row)), -5.0, dtype=np.float32)
            for first, last, label in row.targets["spans"]:
                logits[label, first, last] = 5.0
            outputs.append({"logits": logits})
        return outputs
    whole = Ner(task.config.model_copy(update={"max_length": sys.maxsize}), LABELS)
    (row,) = whole.featurize(given, tokenizer)
    tags = row.targets["tags"][row.content[0] : row.content[1]]
    assert IGNORE not in tags
    outputs = []
    for row in rows:
        logits = np.zeros((len(row), len(task.tags)), dtype=np.float32)
        for at in range(*row.content):
            logits[at, tags[row.window + at - row.content[0]]] = 5.0
        outputs.append({"logits": logits})
    return outputs


@pytest.mark.parametrize("tokens", ["characters", "pieces"])
@pytest.mark.parametrize("head", ["softmax", "global_pointer"])
def test_entities_come_back(head: str, tokens: str, tokenizer: Tokenizer) -> None:
    nested = head == "global_pointer"
    rng = random.Random(7)
    lost = found = 0
    for _ in range(TEXTS // 4):
        config = NerConfig.model_validate(
            {
                "head": head,
                "nested": nested,
                "tokens": tokens,
                "tagging": rng.choice(["BIO", "BIOES"]),
                "max_length": rng.choice([LONGEST * 2, 512]),
                "window_overlap": LONGEST,
            }
        )
        task = Ner(config, LABELS)
        given = example(rng, nested=nested)
        rows = task.featurize(given, tokenizer)
        prediction = task.decode(right_outputs(task, given, rows, tokenizer), rows, given)
        spans = {Span(e["start"], e["end"], e["label"]) for e in prediction["entities"]}
        missing = task.lost_labels(given, tokenizer)
        assert spans <= set(given.spans)
        assert len(spans) + len(missing) == len(set(given.spans)), (given, prediction, missing)
        for entity in prediction["entities"]:
            assert given.text[entity["start"] : entity["end"]] == entity["text"]
        lost += len(missing)
        found += len(spans)
    assert found > TEXTS // 8
    assert (lost == 0) == (tokens == "characters")


def test_overlapping_entities_of_a_flat_task_are_told(tmp_path: Path) -> None:
    tokenizer = load_folder(tiny_backbone_folder(tmp_path))[1]
    given = NerExample.model_validate(
        {
            "text": "北京大学的张三",
            "entities": [{"start": 0, "end": 2, "label": "地名"}, {"start": 0, "end": 4, "label": "人名"}],
        }
    )
    (message,) = Ner(NerConfig(tokens="characters"), LABELS).lost_labels(given, tokenizer)
    assert "'北京' at 0:2" in message
    assert "nested: true" in message


def test_flat_entities_of_a_long_text_in_linear_time() -> None:
    """Every character an entity, in windows of 100; each compared with all others took minutes."""
    rows, outputs = [], []
    for start in range(0, 20_000, 100):
        rows.append(
            Row({}, offsets=[(i, i + 1) for i in range(start, start + 100)], content=(0, 100), window=start)
        )
        outputs.append({"logits": np.diag(np.full(100, 2.0, dtype=np.float32))[None] - 1})
    began = time.process_time()
    found = decode_nested(outputs, rows, ["字"], nested=False)
    assert time.process_time() - began < 10
    assert [span[:2] for span, _ in found] == [(i, i + 1) for i in range(20_000)]


def test_of_entities_at_one_place_the_same_stays_in_every_process() -> None:
    """Sets of strings have another order in each; 20 places are enough to see it in one."""
    names = ["事件", "人名", "地名", "机构"]
    spans = [Span(at, at + 1, name) for at in range(20) for name in names]
    encoding = Encoding(list(range(20)), [(at, at + 1) for at in range(20)])
    kept, lost = token_spans(spans, "字" * 20, encoding, names, overlap="overlaps")
    assert kept == [Span(at, at + 1, "事件") for at in range(20)]
    assert len(lost) == 60


def test_a_window_that_cuts_an_entity_does_not_teach_half_of_it(tmp_path: Path) -> None:
    tokenizer = load_folder(tiny_backbone_folder(tmp_path, texts=["中国人民银行"]))[1]
    task = Ner(NerConfig(max_length=8, window_overlap=2, tokens="characters"), LABELS)
    given = NerExample.model_validate(
        {"text": "在在在在中国人民银行在在在", "entities": [{"start": 4, "end": 10, "label": "地名"}]}
    )
    for row in task.featurize(given, tokenizer):
        first, stop = row.content
        begin, end = row.window, row.window + stop - first
        tags = row.targets["tags"][first:stop]
        if begin <= 4 and end >= 10:
            assert IGNORE not in tags
        else:
            cut = [IGNORE if 4 <= at < 10 else 0 for at in range(begin, end)]
            assert tags == cut
