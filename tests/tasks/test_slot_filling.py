"""Slot filling: the order of tags, gold through rows and back, kinds of intents, labels that training lacks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.examples import read_examples
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.tasks.slot_filling import SlotFilling, SlotFillingConfig, SlotFillingExample, slot_tags
from wenmai.tasks.task import RowOutputs
from wenmai.text.spans import Span

TEXT = "明天从北京去New York，后天回北京"
EXAMPLES = [
    {"text": TEXT, "intents": ["订票"], "slots": {"出发": "北京", "到达": "New York"}},
    {"text": "北京天气", "intents": ["天气", "订票"], "slots": [{"start": 0, "end": 2, "label": "地点"}]},
]


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[TEXT], vocabulary=request.param)
    return load_folder(folder)[1]


def task_of(examples: list[dict[str, Any]], **keys: Any) -> tuple[SlotFilling, list[SlotFillingExample]]:
    config = SlotFillingConfig(**keys)
    found = [SlotFillingExample.model_validate(example) for example in examples]
    return SlotFilling(config, SlotFilling.collect_labels(config, found)), found


def test_tags_are_ordered_by_slot_and_then_by_prefix() -> None:
    assert slot_tags(["b", "a.x", "a"], "BIO") == ["O", "B-a", "I-a", "B-a.x", "I-a.x", "B-b", "I-b"]
    names = [f"slot{i}" for i in range(20)]
    for scheme in ("BIO", "BIOES"):
        expected = slot_tags(names, scheme)
        assert expected[1:] == sorted(expected[1:], key=lambda tag: (tag[2:], tag[:1]))
        assert slot_tags(random.Random(1).sample(names, 20), scheme) == expected


def right_outputs(task: SlotFilling, rows: list[Row], intents: list[float]) -> list[RowOutputs]:
    """What a model that is always right about slots gives."""
    outputs = []
    for row in rows:
        logits = np.zeros((len(row), len(task.tags)), dtype=np.float32)
        for at, tag in enumerate(row.targets["tags"]):
            if tag != IGNORE:
                logits[at, tag] = 9.0
        outputs.append({"logits": logits, "intent_logits": np.array(intents, dtype=np.float32)})
    return outputs


@pytest.mark.parametrize("tagging", ["BIO", "BIOES"])
@pytest.mark.parametrize("times", [1, 7])
def test_slots_come_back(tagging: str, times: int, tokenizer: Tokenizer) -> None:
    text, length = TEXT * times, len(TEXT)
    slots = [
        {"start": start + i * length, "end": end + i * length, "label": label}
        for i in range(times)
        for start, end, label in ((3, 5, "出发"), (6, 14, "到达"), (18, 20, "到达"))
    ]
    task, (example, _) = task_of(
        [{"text": text, "intents": ["订票"], "slots": slots}, EXAMPLES[1]],
        tagging=tagging,
        max_length=48,
        window_overlap=16,
        intents="several",
        tokens="characters",
    )
    rows = task.featurize(example, tokenizer)
    assert (len(rows) > 1) is (times > 1) and max(map(len, rows)) <= 48
    prediction = task.decode(right_outputs(task, rows, [-3.0, 3.0]), rows, example)
    assert [(s["start"], s["end"], s["label"]) for s in prediction["slots"]] == [
        (s["start"], s["end"], s["label"]) for s in slots
    ]
    assert all(text[s["start"] : s["end"]] == s["text"] for s in prediction["slots"])
    assert prediction["intents"] == ["订票"] == list(example.intents or ())
    assert task.lost_labels(example, tokenizer) == []
    assert task.score([example], [prediction]).values()["sentence_accuracy"] == 1.0


def test_kinds_of_intents(tokenizer: Tokenizer) -> None:
    several, examples = task_of(EXAMPLES, intents="several")
    assert several.intents == ["天气", "订票"]
    rows = [several.featurize(example, tokenizer)[0] for example in examples]
    assert [row.targets["labels"].tolist() for row in rows] == [[[1]], [[0], [1]]]

    def answer(task: SlotFilling, logits: list[float]) -> list[str]:
        row = task.featurize(examples[0], tokenizer)
        found: list[str] = task.decode(right_outputs(task, row, logits), row, examples[0])["intents"]
        return found

    assert answer(several, [1.0, 2.0]) == ["订票", "天气"]
    assert answer(several, [-2.0, -1.0]) == ["订票"]  # at least the likeliest

    combined, _ = task_of(EXAMPLES, intents="combined")
    assert combined.intents == ["天气#订票", "订票"]
    assert answer(combined, [3.0, 0.0]) == ["天气", "订票"]
    other_order = SlotFillingExample(text="x", intents=("订票", "天气"), slots=())
    assert combined.featurize(other_order, tokenizer)[0].targets["label"] == 0

    for written in ("天气#订票", "订票#天气"):
        example = SlotFillingExample(text="x", intents=written, slots=())
        assert combined.label_problems(example) == []
        assert combined.featurize(example, tokenizer)[0].targets["label"] == 0
        prediction = {"intents": ["天气", "订票"], "slots": []}
        assert combined.score([example], [prediction]).values()["intent_accuracy"] == 1.0

    one, _ = task_of(EXAMPLES)
    assert one.label_problems(examples[0]) == []
    (problem,) = one.label_problems(examples[1])
    assert "has 2: set task.intents: several, or combined" in problem
    (problem,) = several.label_problems(SlotFillingExample(text="x", intents=(), slots=()))
    assert "has none" in problem


def test_labels_that_training_lacks(tokenizer: Tokenizer) -> None:
    stranger = {"text": "听歌", "intents": ["播放"], "slots": [{"start": 1, "end": 2, "label": "类型"}]}
    example = SlotFillingExample.model_validate(stranger)
    strict, _ = task_of(EXAMPLES, intents="several")
    problems = strict.label_problems(example)
    assert len(problems) == 2 and all("task.unseen_labels: count" in problem for problem in problems)
    counting, _ = task_of(EXAMPLES, unseen_labels="count", intents="combined")
    assert counting.label_problems(example) == []
    lost = counting.lost_labels(example, tokenizer)
    assert len(lost) == 2 and all("it counts as a mistake" in one for one in lost)
    (row,) = counting.featurize(example, tokenizer)
    assert row.targets["label"] == IGNORE and set(row.targets["tags"]) <= {IGNORE, 0}
    prediction = counting.decode(right_outputs(counting, [row], [0.0, 1.0]), [row], example)
    scores = counting.score([example], [prediction]).values()
    assert scores["intent_accuracy"] == scores["sentence_accuracy"] == scores["slot_recall"] == 0.0
    assert scores["label/slot:类型/support"] == 1.0


def test_slots_that_no_row_can_say(tokenizer: Tokenizer) -> None:
    nested = {
        "text": "佛山大良汽车站",
        "intents": ["导航"],
        "slots": {"city": "佛山", "poi": "佛山大良汽车站"},
    }
    task, (example,) = task_of([nested], tokens="characters")
    (lost,) = task.lost_labels(example, tokenizer)
    assert lost.startswith("'佛山' at 0:2 (city) overlaps another slot")
    (row,) = task.featurize(example, tokenizer)
    found = task.decode(right_outputs(task, [row], [0.0]), [row], example)["slots"]
    assert [(s["start"], s["end"], s["label"]) for s in found] == [(0, 7, "poi")]


def test_records_in_short_form() -> None:
    example = SlotFillingExample.model_validate(
        {"text": "蛋糕可以做蛋糕吗", "intents": "QUERY", "slots": {"dish": "蛋糕"}}
    )
    assert example.intents == ("QUERY",) and example.spans == [Span(0, 2, "dish")]
    assert example.guesses == ("'蛋糕' stands 2 times in the text; the one at 0:2 is taken",)
    assert "guessed" not in example.model_dump()
    assert not SlotFillingExample(text="x", intents=("a",)).labelled


@pytest.mark.parametrize(
    ("slots", "field", "said"),
    [
        ({"dish": "面包"}, "slots.dish", "'面包' does not stand in the text"),
        ([{"start": 1, "end": 9, "label": "x"}], "slots[0]", "end 9 lies outside the text (4 characters)"),
        ([{"start": 0, "end": 1, "label": "x", "text": "糕"}], "slots[0]", "is '蛋', not '糕'"),
    ],
)
def test_wrong_records_name_their_field(slots: Any, field: str, said: str) -> None:
    rows = [{"text": "蛋糕好吃", "intents": ["a"], "slots": slots}]
    with pytest.raises(UserError) as error:
        read_examples(rows, SlotFillingExample)
    (problem,) = error.value.problems  # type: ignore[attr-defined]
    assert problem.field == field and said in problem.message


def test_a_training_set_without_slots_is_refused() -> None:
    with pytest.raises(UserError, match=r"has 1 and 0: .* intents alone are text_classification"):
        task_of([{"text": "x", "intents": ["a"], "slots": []}])
    with pytest.raises(ValidationError):
        SlotFillingConfig(intents="two")


def test_atis_counts_what_its_training_set_lacks(shared_data: Path) -> None:
    config = SlotFillingConfig(intents="combined", unseen_labels="count")
    train, test = (
        read_examples(str(shared_data / "atis" / name), SlotFillingExample) for name in ("train", "test")
    )
    task = SlotFilling(config, SlotFilling.collect_labels(config, train))
    assert (len(task.intents), len(task.slots)) == (21, 79)
    assert not any(task.label_problems(example) for example in test)
    strict = SlotFilling(config.model_copy(update={"unseen_labels": "refuse"}), task.labels)
    assert sum(bool(strict.label_problems(example)) for example in test) == 7
