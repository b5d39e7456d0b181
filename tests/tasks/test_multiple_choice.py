"""Choices to rows: blanks filled, long texts cut where they matter least, answers in the user's own order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError
from wenmai.evaluation.cases import as_case
from wenmai.tasks.multiple_choice import MultipleChoice, MultipleChoiceExample

BLANK = "#idiom#"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny")))[1]


def task_of(**config: Any) -> MultipleChoice:
    return MultipleChoice(MultipleChoice.Config(**config), [])


def surfaces(task: MultipleChoice, example: MultipleChoiceExample, tokenizer: Tokenizer) -> list[str]:
    rows = task.featurize(example, tokenizer)
    assert all(len(row) <= task.config.max_length for row in rows)
    return ["".join(tokenizer.tokens(list(row.inputs["input_ids"]))) for row in rows]


def test_a_choice_goes_into_the_blank(tokenizer: Tokenizer) -> None:
    example = MultipleChoiceExample(text=f"他{BLANK}地说，{BLANK}。", choices=("高兴", "难过"), label=1)
    assert surfaces(task_of(blank=BLANK), example, tokenizer) == [
        "[CLS]高兴[SEP]他高兴地说，高兴。[SEP]",
        "[CLS]难过[SEP]他难过地说，难过。[SEP]",
    ]
    rows = task_of(blank=BLANK).featurize(example, tokenizer)
    assert [row.targets["chosen"] for row in rows] == [0, 1]
    plain = MultipleChoiceExample(text="哪里？", choices=("北京",))
    assert surfaces(task_of(), plain, tokenizer) == ["[CLS]哪里？[SEP]北京[SEP]"]
    assert "chosen" not in task_of().featurize(plain, tokenizer)[0].targets


def test_long_texts_are_cut_around_the_blank_and_at_the_end_without_one(tokenizer: Tokenizer) -> None:
    task = task_of(blank=BLANK, max_length=16)  # 11 tokens beside 3 special ones and the choice
    for before, behind, kept in (
        ("上" * 50, "下" * 50, "上上上上高兴下下下下下"),
        ("上", "下" * 50, "上高兴下下下下下下下下"),
        ("上" * 50, "下", "上上上上上上上上高兴下"),
    ):
        example = MultipleChoiceExample(text=before + BLANK + behind, choices=("高兴",), label=0)
        assert surfaces(task, example, tokenizer) == [f"[CLS]高兴[SEP]{kept}[SEP]"]
        tokens = len(before) + len(behind) + 4
        assert task.lost_labels(example, tokenizer) == [
            f"{tokens - 13} of {tokens} tokens of choices[0] and the text are cut off"
        ]
    example = MultipleChoiceExample(text="上" * 50, choices=("高兴", "难过"), label=0)
    assert surfaces(task_of(max_length=16), example, tokenizer)[1] == f"[CLS]{'上' * 11}[SEP]难过[SEP]"


def test_a_text_without_its_blank_is_told() -> None:
    example = MultipleChoiceExample(text="他高兴", choices=("高兴", "难过"), label=0)
    assert "there is no '#idiom#'" in task_of(blank=BLANK).label_problems(example)[0]
    assert task_of().label_problems(example) == []


def test_labels_count_choices_from_zero() -> None:
    with pytest.raises(ValidationError, match="label 2 is none of the 2 choices: it counts them from 0"):
        MultipleChoiceExample(text="？", choices=("甲", "乙"), label=2)
    with pytest.raises(ValidationError):
        MultipleChoiceExample(text="？", choices=())
    with pytest.raises(UserError, match="at least two choices"):
        MultipleChoice.collect_labels(
            MultipleChoice.Config(), [MultipleChoiceExample(text="？", choices=("甲",), label=0)]
        )
    with pytest.raises(UserError, match="predicts for"):
        task_of().as_example("？")


def test_the_best_choice_is_named_by_number_and_text() -> None:
    task = task_of()
    example = MultipleChoiceExample(text="？", choices=("甲", "乙", "丙"), label=2)
    rows = [{"score": np.array(score, dtype=np.float32)} for score in (0.0, np.log(2), np.log(5))]
    found = task.decode(rows, [], example)
    assert (found["label"], found["choice"], found["score"]) == (2, "丙", 0.625)
    assert found["scores"] == pytest.approx([0.125, 0.25, 0.625])
    scores = task.score([example, example], [found, {**found, "label": 0}])
    assert scores.values() == {"accuracy": 0.5}
    assert task.score([], []).values() == {"accuracy": 0.0}
    case = as_case({**found, "gold": {"label": 1}}, 1)
    assert (case["predicted"], case["gold"], case["right"]) == ("丙", "乙", False)
    assert case["scores"][0] == ("丙", 0.625)
