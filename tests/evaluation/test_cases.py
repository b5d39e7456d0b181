from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from handmade import classification_pairs, entity, ner_pairs

from wenmai.errors import UserError
from wenmai.evaluation.cases import as_case, choose, read_predictions
from wenmai.evaluation.evaluate import prediction_line


def ner_lines() -> list[dict[str, Any]]:
    task, examples, predictions = ner_pairs()
    return [prediction_line(task, e, p) for e, p in zip(examples, predictions, strict=True)]


def test_spans_are_told_apart_by_what_went_wrong() -> None:
    nested, long = (as_case(ner_lines()[i], i + 1) for i in (1, 2))
    assert [(s["start"], s["end"], s["label"], s["status"], s["kind"]) for s in nested["spans"]] == [
        (2, 4, "地名", "correct", "correct"),
        (2, 8, "人名", "spurious", "wrong label"),
        (2, 8, "机构", "missed", "wrong label"),
    ]
    assert [s["kind"] for s in long["spans"]] == ["spurious", "wrong boundary", "wrong boundary"]
    assert long["kinds"] == ["spurious", "wrong boundary"] and long["right"] is False
    assert [s["score"] for s in nested["spans"]] == [0.75, 0.75, None]


def test_classes_name_the_mistake() -> None:
    task, examples, predictions = classification_pairs()
    case = as_case(prediction_line(task, examples[2], predictions[2]), 3)
    assert (case["gold"], case["predicted"], case["right"]) == ("差评", "好评", False)
    assert case["kinds"] == ["差评 → 好评"]
    assert case["scores"][0] == ("好评", 0.7)


@pytest.mark.parametrize(
    ("line", "gold", "predicted", "right", "kinds"),
    [
        ({"labels": ["a"], "gold": {"labels": ["a", "b"]}}, "a、b", "a", False, ["missed"]),
        ({"labels": [], "gold": {"labels": []}}, "(no label)", "(no label)", True, []),
        ({"value": 0.5, "gold": {"label": 1.0}}, "label 1", "value 0.5", None, []),
        (
            {"similarity": 0.25, "embedding": [1.0], "gold": {"score": 0.5}},
            "score 0.5",
            "similarity 0.25",
            None,
            [],
        ),
        ({"label": "a", "score": 1.0}, None, "a", None, []),
    ],
)
def test_other_kinds_of_predictions(
    line: dict[str, Any], gold: str | None, predicted: str, right: bool | None, kinds: list[str]
) -> None:
    case = as_case({"text": "甲", "text_pair": "乙丙", **line}, 1)
    assert (case["gold"], case["predicted"], case["right"], case["kinds"]) == (gold, predicted, right, kinds)
    assert case["texts"] == [["text", "甲"], ["text_pair", "乙丙"]] and case["length"] == 3


def test_a_text_of_digits_is_no_number_of_the_gold() -> None:
    """Records of pairs keep their texts in gold, as any of them may be left out."""
    pair = {"text": "12306", "text_pair": "火车票"}
    case = as_case({**pair, "similarity": 0.25, "gold": {**pair, "score": 0.5}}, 1)
    assert case["gold"] == "score 0.5"
    assert as_case({"text": "甲", "value": 0.5, "gold": {"label": "1"}}, 1)["gold"] == "label 1"


def test_links_are_right_or_wrong_whatever_the_fields_are() -> None:
    key, value, more = entity(0, 2, "问题"), entity(3, 5, "回答"), entity(6, 7, "标题")
    page = {"text": "姓名：王明，表", "entities": [key, value], "links": [{"key": 0, "value": 1}]}
    missed = as_case({**page, "gold": {"entities": [key, value, more], "links": page["links"]}}, 1)
    assert (missed["right"], missed["predicted_right"]) == (False, True)
    none = as_case({**page, "gold": {"entities": [key, value], "links": []}}, 1)
    assert (none["right"], none["predicted_right"], none["kinds"]) == (False, False, ["spurious link"])
    fields = as_case({**page, "gold": {"entities": [key, value]}}, 1)
    assert (fields["right"], fields["predicted_right"]) == (True, None)


def test_errors_come_first_and_the_number_is_bounded() -> None:
    lines = ner_lines() * 10
    chosen = choose(lines, (0, 50), most=25)
    assert (chosen["total"], chosen["errors"]) == (50, 20)
    assert [case["right"] for case in chosen["cases"]] == [False] * 20 + [True] * 5
    numbers = [case["line"] for case in chosen["cases"]]
    assert numbers[:20] == sorted(numbers[:20]) and numbers[20:] == [1, 4, 5, 6, 9]
    assert chosen["cases"][1]["slice"] == "50+" and chosen["slices"] == ["0-50", "50+"]


def test_texts_together_are_bounded_but_one_is_always_shown() -> None:
    line = {"text": "长" * 1000, "entities": [], "gold": {"entities": []}}
    assert len(choose([line] * 10, (0,), characters=3500)["cases"]) == 3
    assert len(choose([line] * 10, (0,), characters=1)["cases"]) == 1


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"text": "甲"}\n{"text": \n')
    with pytest.raises(UserError, match=r"predictions\.jsonl:2"):
        list(read_predictions(path))
