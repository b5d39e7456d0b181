"""Questions to windows and back: where answers are learned, what is lost, when none is given, long contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tiny import tiny_backbone_folder
from toy import toy_config
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import save_bundle
from wenmai.check.doctor import check
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.evaluation.cases import as_case
from wenmai.inference.pipeline import pipeline
from wenmai.inference.predictor import Predictor, load
from wenmai.tasks.model import Model
from wenmai.tasks.question_answering import QuestionAnswering, QuestionAnsweringExample

CONTEXT = "王小明昨天去了北京开会，然后从北京回家。"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=[CONTEXT])


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_folder(folder)[1]


def task_of(**config: Any) -> QuestionAnswering:
    return QuestionAnswering(QuestionAnswering.Config(**config), [])


def example_of(*answers: tuple[str, int | None], context: str = CONTEXT) -> QuestionAnsweringExample:
    found = [{"text": text, "start": start} for text, start in answers]
    return QuestionAnsweringExample(context=context, question="去了哪里？", answers=found)


def learned(rows: list[Row], context: str) -> list[list[str]]:
    """The surfaces that each window's targets point to; ``[CLS]`` for its first token."""
    found = []
    for row in rows:
        places = np.asarray(row.targets["answers"])
        assert np.asarray(row.targets["content"]).tolist() == [list(row.content)]
        found.append(
            [
                "[CLS]" if not first else context[row.offsets[first][0] : row.offsets[last][1]]
                for first, last in places.tolist()
            ]
        )
    return found


def test_every_window_points_to_the_answers_that_it_holds_or_to_its_first_token(tokenizer: Tokenizer) -> None:
    task = task_of(max_length=20, window_overlap=3)
    rows = task.featurize(example_of(("北京", 7), ("北京开会", 7)), tokenizer)
    assert [row.inputs["input_ids"][:6] for row in rows] == [rows[0].inputs["input_ids"][:6]] * len(rows)
    assert all(len(row) <= 20 for row in rows)
    covered = {at for row in rows for at in range(row.window, row.window + row.content[1] - row.content[0])}
    assert covered == set(range(len(CONTEXT)))
    found = learned(rows, CONTEXT)
    assert ["北京", "北京开会"] in found and ["[CLS]"] in found
    assert {tuple(places) for places in found} <= {("北京", "北京开会"), ("北京",), ("[CLS]",)}


def test_an_answer_without_a_place_is_learned_wherever_it_stands(tokenizer: Tokenizer) -> None:
    (row,) = task_of().featurize(example_of(("北京", None)), tokenizer)
    assert learned([row], CONTEXT) == [["北京", "北京"]]
    assert len({tuple(place) for place in np.asarray(row.targets["answers"]).tolist()}) == 2


def test_an_answer_that_does_not_stand_there_teaches_nothing_and_none_teaches_the_first_token(
    tokenizer: Tokenizer,
) -> None:
    assert learned(task_of().featurize(example_of(("广州", None)), tokenizer), CONTEXT) == [[]]
    assert learned(task_of(no_answer=True).featurize(example_of(), tokenizer), CONTEXT) == [["[CLS]"]]


def test_windows_without_the_answer_can_be_left_out_of_training_only(tokenizer: Tokenizer) -> None:
    task = task_of(max_length=20, window_overlap=3, empty_windows="leave_out", no_answer=True)
    example = example_of(("王小明", 0))
    trained = task.featurize(example, tokenizer)
    assert learned(trained, CONTEXT) == [["王小明"]]
    assert len(task.evaluation_rows(example, tokenizer)) > 1
    unlabelled = QuestionAnsweringExample(context=CONTEXT, question="去了哪里？")
    assert len(task.featurize(unlabelled, tokenizer)) == len(task.evaluation_rows(example, tokenizer))
    # of a question without an answer every window says so
    assert len(task.featurize(example_of(), tokenizer)) > 1


def test_what_can_not_be_learned_is_told(tokenizer: Tokenizer) -> None:
    task = task_of(max_length=16, window_overlap=3, max_question_length=3, max_answer_length=9)
    lost = task.lost_labels(
        example_of(("广州", None), ("昨天去了北京开会", 3), ("王小明昨天去了北京开会", 0), ("北京", 7)),
        tokenizer,
    )
    assert lost == [
        "2 of 5 tokens of the question are cut off: raise task.max_question_length",
        "answers[0] '广州' does not stand in the context, so it is scored but not learned",
        "answers[1] '昨天去了北京开会' is cut by every window: raise task.window_overlap",
        "answers[2] '王小明昨天去了北京开会' has 11 characters: raise task.max_answer_length",
    ]
    assert task_of().lost_labels(example_of(("北京", 7)), tokenizer) == []


def test_an_answer_inside_a_token_is_covered_and_told(tmp_path: Path) -> None:
    context = "他在中国人民银行工作。"
    tokenizer = load_folder(tiny_backbone_folder(tmp_path, texts=[context], vocabulary="unigram"))[1]
    example = example_of(("国人", 3), context=context)
    pieces, characters = task_of(tokens="pieces"), task_of()
    assert learned(pieces.featurize(example, tokenizer), context) == [["中国人民银行"]]
    assert "begins or ends inside a token" in pieces.lost_labels(example, tokenizer)[0]
    assert learned(characters.featurize(example, tokenizer), context) == [["国人"]]
    assert characters.lost_labels(example, tokenizer) == []


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"answers": [{"text": "北京", "start": 6}]},
            r"answers\[0\]: the context has '了北' at 6, not '北京'",
        ),
        ({"answers": [{"text": "北京", "start": -1}]}, "greater than or equal to 0"),
        ({"answers": [{"text": "", "start": 0}]}, "at least 1 character"),
    ],
)
def test_wrong_places_are_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        QuestionAnsweringExample(context=CONTEXT, question="？", **record)


def test_questions_without_answer_need_the_key() -> None:
    assert "set task.no_answer: true" in task_of().label_problems(example_of())[0]
    assert task_of(no_answer=True).label_problems(example_of()) == []
    with pytest.raises(ValidationError, match="null_threshold needs no_answer"):
        task_of(null_threshold=1.0)
    with pytest.raises(UserError, match="the training set has none"):
        QuestionAnswering.collect_labels(QuestionAnswering.Config(), [example_of()])


def predicted(text: str, null_odds: float) -> dict[str, Any]:
    best = {"text": text, "start": CONTEXT.index(text), "end": CONTEXT.index(text) + len(text), "score": 0.4}
    odds = {"null_odds": null_odds, "null_score": 0.3}
    return {"context": CONTEXT, "question": "？", "answer": "", **best, **odds, "n_best": [best], "id": 1}


def test_the_threshold_is_chosen_on_dev_and_kept_in_the_bundle(folder: Path, tmp_path: Path) -> None:
    task = task_of(no_answer=True)
    examples = [example_of(("北京", 7)), example_of(("北京", 7)), example_of()]
    settled = task.settle(examples, [predicted("北京", 1.0), predicted("北京", 2.0), predicted("回家", 4.0)])
    assert [prediction["answer"] for prediction in settled] == ["北京", "北京", ""]
    assert settled[2]["start"] is None and settled[2]["score"] == 0.3 and settled[0]["id"] == 1
    assert task.score(examples, settled).values()["f1"] == 1.0
    assert task.null_threshold == 3.0
    backbone, tokenizer = load_folder(folder)
    save_bundle(tmp_path / "bundle", task, Model(backbone, task.build_head(backbone)), tokenizer)
    assert load(tmp_path / "bundle").task.null_threshold == 3.0
    fixed = task_of(no_answer=True, null_threshold=0.5)
    assert fixed.settle(examples, settled) == settled and fixed.null_threshold == 0.5


def test_scores_of_answers_and_of_none_add_up(folder: Path, tmp_path: Path) -> None:
    task = task_of(no_answer=True, n_best=10_000, max_answer_length=4)
    backbone, tokenizer = load_folder(folder)
    save_bundle(tmp_path / "bundle", task, Model(backbone, task.build_head(backbone)), tokenizer)
    answer = pipeline("question-answering", tmp_path / "bundle")
    found = answer({"question": "去了哪里？", "context": CONTEXT})
    assert len(found["n_best"]) == 4 * len(CONTEXT) - 6
    assert sum(a["score"] for a in found["n_best"]) + found["null_score"] == pytest.approx(1, abs=1e-3)
    assert found["null_odds"] == pytest.approx(
        np.log(found["null_score"] / found["n_best"][0]["score"]), abs=1e-2
    )
    assert answer(("去了哪里？", CONTEXT)) == found
    empty = answer(("去了哪里？", ""))
    assert (empty["answer"], empty["start"], empty["score"]) == ("", None, 1.0)
    two = answer(("去了哪里？", CONTEXT), top_k=2)
    assert two["n_best"] == found["n_best"][:2] and two["answer"] == found["answer"]
    with pytest.raises(UserError, match="predicts for"):
        answer("去了哪里？")


def test_a_context_of_twenty_thousand_characters(folder: Path, tmp_path: Path) -> None:
    """Of 400 windows the one that tells of somebody is found, and the answer is in the context's own characters."""
    from wenmai.training.trainer import train

    config = toy_config(tmp_path / "run", "question-answering", folder, epochs=20, eval_steps=0.5)
    answer = Predictor(train(config), tokens_per_batch=2048)
    filler = "今天天气很好。" * 1450
    sentence = "王小明昨天去开会，然后回家。"
    context = filler + sentence + filler
    found = answer({"question": "谁去开会了？", "context": context})
    assert len(context) > 20_000
    assert len(filler) <= found["start"] < found["end"] <= len(filler) + len(sentence)
    assert context[found["start"] : found["end"]] == found["answer"] in sentence
    assert all(context[a["start"] : a["end"]] == a["text"] for a in found["n_best"])


def test_the_doctor_tells_of_answers_in_several_places(folder: Path, tmp_path: Path) -> None:
    config = toy_config(tmp_path, "question-answering", folder)
    record = {"context": CONTEXT, "question": "去了哪里？", "answers": [{"text": "北京"}]}
    lost = {"context": CONTEXT, "question": "谁？", "answers": [{"text": "广州"}, {"text": "王小明"}]}
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (record, lost))
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    findings = {finding.code: finding for finding in check(config).findings}
    assert "'北京' in 2 places" in findings["answer_in_several_places"].places[0]
    assert "'广州' does not stand in the context" in findings["lost_labels"].places[0]


@pytest.mark.parametrize(
    ("answer", "gold", "right", "kinds", "statuses"),
    [
        ("北京", [("北京", 7)], True, [], ["correct"]),
        ("了北京", [("北京", 7)], False, ["partly right"], ["spurious", "missed"]),
        ("回家", [("北京", 7)], False, ["elsewhere"], ["missed", "spurious"]),
        ("", [("北京", 7)], False, ["missed"], ["missed"]),
        ("回家", [], False, ["spurious"], ["spurious"]),
        ("", [], True, [], []),
    ],
)
def test_errors_are_of_a_kind(
    answer: str, gold: list[tuple[str, int]], right: bool, kinds: list[str], statuses: list[str]
) -> None:
    place = CONTEXT.find(answer) if answer else None
    line = {
        "context": CONTEXT,
        "question": "去了哪里？",
        "answer": answer,
        "start": place,
        "end": None if place is None else place + len(answer),
        "score": 0.5,
        "gold": {"answers": [{"text": text, "start": start} for text, start in gold]},
    }
    case = as_case(line, 1)
    assert (case["right"], case["kinds"]) == (right, kinds)
    assert [span["status"] for span in case["spans"]] == statuses
    assert [name for name, _ in case["texts"]] == ["context", "question"]
