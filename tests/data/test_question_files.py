"""SQuAD's JSON and CMRC 2018's list: places mended where the text tells them, and told where it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wenmai.data.examples import read_examples
from wenmai.data.readers import read_records
from wenmai.data.sources import Source
from wenmai.errors import DataError
from wenmai.tasks.question_answering import QuestionAnsweringExample

CONTEXT = "北京是首都，上海不是首都。"


def squad(path: Path, *asked: dict[str, Any], context: str = CONTEXT, indent: int | None = None) -> Source:
    tree = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": asked}]}]}
    path.write_text(json.dumps(tree, ensure_ascii=False, indent=indent), encoding="utf-8")
    return Source(path=str(path), format="squad")


def answers_of(source: Source) -> list[list[dict[str, Any]] | None]:
    return [record.data.get("answers") for record in read_records(source)]


def asked(*answers: tuple[str, int | None], **more: Any) -> dict[str, Any]:
    found = [{"text": t} if at is None else {"text": t, "answer_start": at} for t, at in answers]
    return {"id": "q", "question": "哪里？", "answers": found, **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("首都", 3), {"text": "首都", "start": 3}),
        (("首都", 10), {"text": "首都", "start": 10}),
        (("首都", 9), {"text": "首都", "start": 10}),  # the nearest
        (("首都", 4), {"text": "首都", "start": 3}),
        (("上海", 0), {"text": "上海", "start": 6}),  # the only one
        (("上海", -1), {"text": "上海", "start": 6}),
        (("上海", None), {"text": "上海", "start": 6}),
        (("首都", -1), {"text": "首都"}),  # nothing tells which
        (("首都", None), {"text": "首都"}),
    ],
)
def test_places_are_mended(given: tuple[str, int | None], expected: dict[str, Any], tmp_path: Path) -> None:
    assert answers_of(squad(tmp_path / "a.json", asked(given))) == [[expected]]


def test_an_answer_that_stands_nowhere_is_kept_for_scores_beside_one_that_does(tmp_path: Path) -> None:
    source = squad(tmp_path / "a.json", asked(("广州", -1), ("北京", 0)))
    assert answers_of(source) == [[{"text": "广州"}, {"text": "北京", "start": 0}]]


def test_without_any_answer_in_the_context_the_question_is_rejected_with_its_place(tmp_path: Path) -> None:
    source = squad(tmp_path / "a.json", asked(("北京", 0)), {**asked(("广州", 2)), "id": "DEV_7"})
    with pytest.raises(DataError) as error:
        read_examples(source, QuestionAnsweringExample)
    (problem,) = error.value.problems
    assert problem.place.endswith("a.json#DEV_7")
    assert problem.field == "paragraphs[0].qas[1].answers"
    assert "none of the answers stands in the context: '广州'" in problem.message
    kept = read_examples(source, QuestionAnsweringExample, on_error="skip")
    assert len(kept) == 1 and kept.place(0).endswith("a.json#q")


def test_no_answer_and_unknown_answers_are_told_apart(tmp_path: Path) -> None:
    unknown = {"id": 3, "question": "哪里？"}
    impossible = {**asked(("北京", 0)), "is_impossible": True, "plausible_answers": []}
    source = squad(tmp_path / "a.json", asked(), impossible, unknown, asked(("北京", 0), is_impossible=False))
    assert answers_of(source) == [[], [], None, [{"text": "北京", "start": 0}]]
    read = list(read_examples(source, QuestionAnsweringExample))
    assert [example.labelled for example in read] == [True, True, False, True]
    assert read[2].id == 3


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        ({"question": "哪里？", "answers": {}}, "paragraphs[0].qas[0].answers", "list of objects"),
        ({"answers": []}, "paragraphs[0].qas[0].question", "missing"),
        ({"question": "哪里？", "answers": [{"text": 5}]}, "paragraphs[0].qas[0].answers[0].text", "a text"),
    ],
)
def test_another_shape_is_told_with_its_field(
    record: dict[str, Any], field: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        answers_of(squad(tmp_path / "a.json", record, indent=1))
    (problem,) = error.value.problems
    assert problem.field == field and said in problem.message
    assert problem.place.endswith("a.json:4")  # where the article begins


def cmrc(path: Path, *answers: str) -> Path:
    qas = [{"query_id": "TRIAL_1", "query_text": "哪里？", "answers": answers}]
    tree = [{"context_id": "TRIAL", "context_text": CONTEXT, "title": "t", "qas": qas}]
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return path


def test_the_list_of_cmrc(tmp_path: Path) -> None:
    source = Source(path=str(cmrc(tmp_path / "c.json", "上海", "首都", "广州")), format="cmrc")
    (record,) = read_records(source)
    assert record.place.endswith("c.json#TRIAL_1")
    assert record.data == {
        "id": "TRIAL_1",
        "context": CONTEXT,
        "question": "哪里？",
        "answers": [{"text": "上海", "start": 6}, {"text": "首都"}, {"text": "广州"}],
    }
    with pytest.raises(DataError, match="none of the answers stands in the context"):
        list(read_records(Source(path=str(cmrc(tmp_path / "d.json", "广州")), format="cmrc")))


def test_both_are_recognised_and_named(tmp_path: Path) -> None:
    squad(tmp_path / "a.json", asked(("北京", 0)))
    for path, name in ((tmp_path / "a.json", "squad"), (cmrc(tmp_path / "c.json", "上海"), "cmrc")):
        with pytest.raises(DataError, match=f"set data.format: {name}"):
            list(read_records(Source(path=str(path))))


def test_both_forms_of_cmrc_2018_hold_the_same_answers(shared_data: Path) -> None:
    """But for spaces around questions, and for the place of answers that stand in several."""
    folder = shared_data / "cmrc2018"
    native = Source(path=str(folder / "native" / "cmrc2018_trial.json"), format="cmrc")
    styled = Source(path=str(folder / "squad-style" / "cmrc2018_trial.json"), format="squad")
    left, right = (list(read_examples(source, QuestionAnsweringExample)) for source in (native, styled))
    assert len(left) == len(right) == 1002
    ambiguous = 0
    for one, other in zip(left, right, strict=True):
        assert one.question.strip() == other.question.strip()
        assert (one.context, one.texts) == (other.context, other.texts)
        assert set(other.places) <= set(one.places)
        ambiguous += any(answer.start is None for answer in one.answers or ())
        assert all(answer.start is not None for answer in other.answers or ())
    assert ambiguous == 77


def test_the_dev_set_of_cmrc_2018_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "cmrc2018" / "squad-style" / "cmrc2018_dev.json"
    examples = list(read_examples(Source(path=str(path), format="squad"), QuestionAnsweringExample))
    answers = [answer for example in examples for answer in example.answers or ()]
    assert (len(examples), len(answers)) == (3219, 9657)
    assert sum(answer.start is None for answer in answers) == 193
    assert all(example.places for example in examples)
