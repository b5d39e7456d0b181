"""Hard negatives: the nearest texts that are left, and what is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, PEOPLE, PLACES, write_jsonl
from wenmai.cli import main
from wenmai.data.examples import read_examples
from wenmai.errors import UserError
from wenmai.inference.embedder import Embedder, open_embedder
from wenmai.search.mining import Mining, mine_negatives, normal_form
from wenmai.tasks.embedding_example import TextEmbeddingConfig, TextEmbeddingExample
from wenmai.tasks.text_embedding import TextEmbedding

RECORDS: list[dict[str, Any]] = [
    {"anchor": "王小明是谁", "positive": "请介绍王小明", "id": 7},
    {"anchor": "请介绍王小明", "positive": "王小明是什么人"},
    {"text": "北京在哪里", "text_pair": "哪里能找到北京", "score": 1.0},
    {"text": "北京在哪里", "text_pair": "上海在哪里", "score": 0.0},
    {"anchor": "我们喜欢这家店", "positive": "这家店我们喜欢", "negatives": ["我们讨厌这家店"]},
]
TOGETHER = [
    {"王小明是谁", "请介绍王小明", "王小明是什么人"},
    {"北京在哪里", "哪里能找到北京"},
    {"我们喜欢这家店", "这家店我们喜欢"},
]
CORPUS = [
    *[f"{name}是谁" for name in PEOPLE],
    *[f"{place}在哪里" for place in PLACES],
    "王小明是谁？", "请介绍　王小明！", "ＡＢＣ", "abc。", "", " ", "我们讨厌这家店", "上海在哪里！",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[*ALL_TEXTS, *CORPUS])
    return open_embedder(folder, TextEmbeddingConfig(max_length=32), device="cpu")


def examples(records: list[dict[str, Any]] = RECORDS) -> list[TextEmbeddingExample]:
    return list(read_examples(records, TextEmbeddingExample))


def mined(made: Embedder, corpus: list[str] | None = CORPUS, **settings: Any) -> list[dict[str, Any]]:
    return list(mine_negatives(made, examples(), corpus, Mining(**settings)))


def expected(made: Embedder, corpus: list[str], margin: float) -> list[list[str]]:
    """All texts that may be negatives of each record, the most similar first, by the definition."""
    kept: dict[str, str] = {}
    for text in corpus:
        if text.strip():
            kept.setdefault(normal_form(text), text)
    texts = list(kept.values())
    vectors = dict(zip(texts, made.vectors(texts), strict=True))
    rows = []
    for anchor, positive in (
        ("王小明是谁", "请介绍王小明"),
        ("请介绍王小明", "王小明是什么人"),
        ("北京在哪里", "哪里能找到北京"),
        ("我们喜欢这家店", "这家店我们喜欢"),
    ):
        (group,) = [texts for texts in TOGETHER if anchor in texts]
        a, p = made.vectors([anchor, positive])
        near = {text: float(a @ vector) for text, vector in vectors.items()}
        rows.append(
            [
                text
                for text in sorted(texts, key=lambda text: -near[text])
                if normal_form(text) not in {normal_form(other) for other in group}
                and near[text] < float(a @ p) - margin
            ]
        )
    return rows


@pytest.mark.parametrize("settings", [{"count": 3}, {"count": 2, "first_rank": 3, "last_rank": 6}])
@pytest.mark.parametrize("margin", [-2.0, 0.05, 0.1])
def test_negatives_are_the_definition(made: Embedder, settings: dict[str, int], margin: float) -> None:
    found = mined(made, margin=margin, **settings)
    first, count = settings.get("first_rank", 1), settings["count"]
    wanted = [row[first - 1 :][:count] for row in expected(made, CORPUS, margin)]
    wanted[3] = ["我们讨厌这家店", *(text for text in wanted[3] if text != "我们讨厌这家店")]
    assert [record["negatives"] for record in found] == wanted
    assert margin > 0 or sum(map(len, wanted)) > 4
    assert [record.get("id") for record in found] == [7, None, None, None]
    assert found[2]["anchor"] == "北京在哪里" and found[2]["positive"] == "哪里能找到北京"


def test_a_margin_leaves_less(made: Embedder) -> None:
    counts = [
        sum(len(record["negatives"]) for record in mined(made, count=20, margin=margin))
        for margin in (-2.0, 0.0, 0.1)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_without_a_corpus_the_records_are_searched(made: Embedder) -> None:
    texts = [text for example in examples() for text in example.texts]
    found = mined(made, None, count=9, margin=-2.0)
    wanted = expected(made, texts, -2.0)
    assert [set(record["negatives"]) for record in found] == [set(row[:9]) for row in wanted]


def test_random_ones_come_from_the_ranks_and_follow_the_seed(made: Embedder) -> None:
    settings = {"count": 3, "first_rank": 2, "last_rank": 9, "margin": -2.0, "choice": "random"}
    first, same, other = (mined(made, **settings, seed=seed) for seed in (1, 1, 2))
    assert first == same != other
    for record, row in zip(first[:3], expected(made, CORPUS, -2.0), strict=False):
        assert len(record["negatives"]) == 3 and set(record["negatives"]) <= set(row[1:9])
        assert record["negatives"] == sorted(record["negatives"], key=row.index)


@pytest.mark.parametrize(
    ("records", "corpus", "said"),
    [
        ([{"text": "北京"}], CORPUS, "no record has a positive.*at least 1"),
        ([{"text": "北京", "text_pair": "上海", "score": 0.5}], CORPUS, "no record has a positive"),
        (RECORDS, ["", " "], "no text to search"),
    ],
)
def test_what_can_not_be_mined(
    made: Embedder, records: list[dict[str, Any]], corpus: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        list(mine_negatives(made, examples(records), corpus, Mining()))


def test_settings_that_contradict_each_other() -> None:
    for settings in ({"first_rank": 0}, {"first_rank": 5, "last_rank": 4}, {"count": 6, "last_rank": 5}):
        with pytest.raises(UserError, match="rank"):
            Mining(**settings)


def test_pairs_that_belong_together_go_by_their_score(made: Embedder) -> None:
    records = [{"text": "北京在哪里", "text_pair": "上海在哪里", "score": 3.0}]
    (found,) = mine_negatives(made, examples(records), CORPUS, Mining(positive_score=3.0, margin=-2.0))
    assert "上海在哪里！" not in found["negatives"] and len(found["negatives"]) == 5


def test_the_verb_writes_what_the_task_reads(
    made: Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_backbone_folder(tmp_path / "tiny", texts=[*ALL_TEXTS, *CORPUS])
    data = str(write_jsonl(tmp_path / "data.jsonl", RECORDS))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text for text in CORPUS if text.strip()), encoding="utf-8")
    out = tmp_path / "mined.jsonl"
    options = [
        "--corpus",
        str(corpus),
        "--count",
        "2",
        "--ranks",
        "2:5",
        "--margin",
        "-2",
        "--max-length",
        "32",
    ]
    assert main(["mine-negatives", str(model), data, "--output", str(out), *options]) == 0
    assert "4 anchors with 9 negatives; 0 have none" in capsys.readouterr().err
    assert main(["mine-negatives", str(model), data, *options]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected_records = mined(made, count=2, first_rank=2, last_rank=5, margin=-2.0)
    assert printed == expected_records == [json.loads(line) for line in out.read_text().splitlines()]
    task = TextEmbedding(TextEmbeddingConfig(objective="triplet"), [])
    read = read_examples(out, TextEmbeddingExample, require_labels=True)
    assert len(read) == 4 and not any(task.training_problems(example) for example in read)
    assert main(["mine-negatives", str(model), data, "--ranks", "5"]) == 2
    assert "expected FIRST:LAST" in capsys.readouterr().err
