"""What is asked wrongly is answered in words, from Python as from the command line."""

from __future__ import annotations

from typing import Any

import pytest

from wenmai.errors import UserError
from wenmai.inference.asking import asked
from wenmai.tasks import TASKS


@pytest.mark.parametrize(
    ("task", "item", "said"),
    [
        ("question_answering", {"question": 1, "context": "上海"}, "question: a text is expected"),
        ("multiple_choice", {"text": "上海", "choices": "好"}, "choices: a list is expected"),
        ("multiple_choice", {"text": "上海", "choices": []}, "choices: "),
        (
            "dependency_parsing",
            {"text": "上海", "words": [{"start": 0, "end": 3}]},
            "words[0]: end 3 lies outside",
        ),
        (
            "relation_classification",
            {"text": "上海", "subject": "北京", "object": "上"},
            "'北京' does not stand",
        ),
        ("causal_lm", {"prompt": 7}, "causal_lm predicts for"),
        ("ner", 7, "ner predicts for a text"),
    ],
)
def test_wrong_questions_are_user_errors(task: str, item: Any, said: str) -> None:
    kind: Any = TASKS[task]
    with pytest.raises(UserError) as error:
        asked(kind(kind.Config(), []), item)
    assert said in str(error.value)
