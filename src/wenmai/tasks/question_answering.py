"""Extractive question answering: the part of a context that answers a question, or that there is none.

The question and a window of the context share a row; long contexts take several. Answers come in and go out as
characters of the context. A window that does not hold the answer points to its first token, ``[CLS]``, and spans score
against that, so that the answers of all windows compare (:mod:`wenmai.tasks.answer_decoding`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.question_files import occurrences
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.answer_span import AnswerSpanHead
from wenmai.heads.head import Head
from wenmai.metrics.answers import AnswerScorer, answer_score, answer_scores, scorer_for
from wenmai.metrics.scores import Scores
from wenmai.metrics.thresholds import best_threshold
from wenmai.tasks.answer_decoding import Answers, best_answers
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig
from wenmai.tasks.text_matching import specials_of_pair
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.windows import pair_window_rows

ANSWER_LENGTHS = (1, 3, 5, 9, 17, 33)
ANSWER_STARTS = (0, 128, 256, 512, 1024)


class Answer(BaseModel):
    """``start``: the first of its characters in the context; without it, every place where its text stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)
    start: int | None = Field(default=None, ge=0)


class QuestionAnsweringExample(Example):
    """``{"context", "question", "answers": [{"text", "start"}]}``; no answer is ``[]``, unlabelled is no field."""

    context: str
    question: str
    answers: tuple[Answer, ...] | None = None

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for index, answer in enumerate(self.answers or ()):
            if answer.start is None or self.context.startswith(answer.text, answer.start):
                continue
            found = self.context[answer.start : answer.start + len(answer.text)]
            raise ValueError(
                f"answers[{index}]: the context has {found!r} at {answer.start}, not {answer.text!r}: correct the "
                "start, which counts characters from 0, or leave it out if the text stands there only once"
            )
        return self

    @property
    def labelled(self) -> bool:
        return self.answers is not None

    @property
    def length(self) -> int:
        return len(self.context) + len(self.question)

    @property
    def texts(self) -> list[str]:
        """The gold answers, what scores compare with."""
        return [answer.text for answer in self.answers or ()]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where the gold answers stand: characters ``[start, end)``."""
        return sorted(
            {
                (start, start + len(answer.text))
                for answer in self.answers or ()
                for start in (
                    occurrences(self.context, answer.text) if answer.start is None else (answer.start,)
                )
            }
        )


class QuestionAnsweringConfig(TaskConfig):
    name: Literal["question_answering"] = "question_answering"
    max_length: int = Field(
        default=384, ge=8, description="tokens of one row: the question, a window and special tokens"
    )
    max_question_length: int = Field(
        default=64,
        ge=1,
        description="tokens; longer questions are cut at their end, also to half of what a row holds",
    )
    window_overlap: int = Field(default=128, ge=0, description="tokens that neighbouring windows share")
    tokens: TokenChoice = "auto"
    empty_windows: Literal["none", "leave_out"] = Field(
        default="none",
        description="windows without the answer: learn that it is not there, or leave them out of training",
    )
    no_answer: bool = Field(default=False, description="questions may have no answer in the context")
    null_threshold: float | None = Field(
        default=None,
        description="no_answer: how much likelier (natural logarithm) none must be than the best answer; "
        "default: the best on dev, kept in the bundle",
    )
    n_best: int = Field(default=5, ge=1, description="answers that a prediction lists")
    max_answer_length: int = Field(default=128, ge=1, description="characters of the longest answer")
    scorer: Literal["auto", "squad", "cmrc"] = Field(
        default="auto",
        description="exact match and F1 by words as SQuAD, or by Chinese characters as CMRC 2018; auto: cmrc where "
        "most questions have Chinese characters",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _threshold_of_none(self) -> Self:
        if self.null_threshold is not None and not self.no_answer:
            raise ValueError("null_threshold needs no_answer: true")
        return self


class QuestionAnswering(Task[QuestionAnsweringExample, QuestionAnsweringConfig]):
    name = "question_answering"
    primary_metric = "f1"
    Example = QuestionAnsweringExample
    Config = QuestionAnsweringConfig

    def __init__(self, config: QuestionAnsweringConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.null_threshold = config.null_threshold or 0.0

    @classmethod
    def collect_labels(
        cls, config: QuestionAnsweringConfig, examples: Iterable[QuestionAnsweringExample]
    ) -> list[str]:
        if not any(example.answers for example in examples):
            raise UserError(
                "question_answering needs answers, the training set has none: check the data's format and columns"
            )
        return []

    def label_problems(self, example: QuestionAnsweringExample) -> list[str]:
        if example.answers == () and not self.config.no_answer:
            return ["answers: there is none; set task.no_answer: true for questions without an answer"]
        return []

    def as_example(self, item: Any) -> QuestionAnsweringExample:
        if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            return QuestionAnsweringExample(question=item[0], context=item[1])
        if isinstance(item, Mapping) and {"question", "context"} <= item.keys():
            return QuestionAnsweringExample(
                question=item["question"], context=item["context"], id=item.get("id")
            )
        raise UserError(
            "question_answering predicts for {'question': ..., 'context': ...} or a pair of question and context, "
            f"not for {item!r}"
        )

    def encode(self, text: str, tokenizer: Tokenizer) -> Encoding:
        return tokenizer.encode(text, characters=by_character(self.config.tokens, tokenizer))

    def featurize(self, example: QuestionAnsweringExample, tokenizer: Tokenizer) -> list[Row]:
        rows = self.evaluation_rows(example, tokenizer)
        if example.answers and self.config.empty_windows == "leave_out":
            return [row for row in rows if _holds_answer(row)] or rows[:1]
        return rows

    def evaluation_rows(self, example: QuestionAnsweringExample, tokenizer: Tokenizer) -> list[Row]:
        """All windows, also those that are left out of training."""
        question = self.encode(example.question, tokenizer).slice(0, self._question_room(tokenizer))
        context = self.encode(example.context, tokenizer)
        rows = pair_window_rows(
            question,
            context,
            tokenizer,
            max_length=self.config.max_length,
            overlap=self.config.window_overlap,
        )
        if example.labelled:
            spans = [span for place in example.places if (span := _covered(context, *place))]
            for row in rows:
                row.targets["answers"] = self._places(row, spans, example)
                row.targets["content"] = np.array([row.content], dtype=np.int64)
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        return AnswerSpanHead(backbone.hidden_size, dropout=self.config.dropout)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: QuestionAnsweringExample
    ) -> Prediction:
        found = best_answers(
            outputs,
            rows,
            count=self.config.n_best,
            longest=self.config.max_answer_length,
            against_null=self.config.no_answer or self.config.empty_windows == "none",
        )
        prediction: Prediction = {"context": example.context, "question": example.question}
        return self._decided({**prediction, **self._shown(found, example.context)})

    def settle(
        self, examples: Sequence[QuestionAnsweringExample], predictions: Sequence[Prediction]
    ) -> list[Prediction]:
        """Chooses the threshold of no answer that makes F1 on the dev set highest, as the script of SQuAD 2.0 does."""
        if not self.config.no_answer or self.config.null_threshold is not None:
            return list(predictions)
        scorer = self.scorer(examples)
        odds, none, some = [], [], []
        for example, prediction in zip(examples, predictions, strict=True):
            if example.labelled and prediction["n_best"]:
                odds.append(prediction["null_odds"])
                none.append(answer_score(example.texts, "", scorer)[1])
                some.append(answer_score(example.texts, prediction["n_best"][0]["text"], scorer)[1])
        self.null_threshold = best_threshold(odds, none, some)
        return [self._decided(prediction) for prediction in predictions]

    def score(
        self, examples: Sequence[QuestionAnsweringExample], predictions: Sequence[Prediction]
    ) -> Scores:
        return answer_scores(
            [example.texts for example in examples],
            [prediction["answer"] for prediction in predictions],
            self.scorer(examples),
            no_answer=self.config.no_answer,
        )

    def scorer(self, examples: Sequence[QuestionAnsweringExample]) -> AnswerScorer:
        if self.config.scorer != "auto":
            return self.config.scorer
        return scorer_for([example.question for example in examples])

    def breakdowns(
        self,
        examples: Sequence[QuestionAnsweringExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        scores = self.score(examples, predictions)
        cuts: dict[str, Callable[[QuestionAnsweringExample], str]] = {
            "answer_length": lambda example: _group(len(example.texts[0]), ANSWER_LENGTHS),
            "answer_start": lambda example: _group(example.places[0][0], ANSWER_STARTS),
        }
        found: dict[str, dict[str, Scores]] = {}
        for name, group in cuts.items():
            members: dict[str, list[int]] = {}
            for index, example in enumerate(examples):
                if example.places:
                    members.setdefault(group(example), []).append(index)
            found[name] = {value: scores.subset(indices) for value, indices in members.items()}
        return found

    def confidences(
        self, examples: Sequence[QuestionAnsweringExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Right is an exact match."""
        scorer = self.scorer(examples)
        right = [
            answer_score(example.texts, prediction["answer"], scorer)[0] == 1
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        return np.array([p["score"] for p in predictions], dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: QuestionAnsweringExample, tokenizer: Tokenizer) -> list[str]:
        lost = []
        tokens, room = len(self.encode(example.question, tokenizer)), self._question_room(tokenizer)
        if tokens > room:
            lost.append(
                f"{tokens - room} of {tokens} tokens of the question are cut off: raise task.max_question_length"
            )
        context, rows = self.encode(example.context, tokenizer), self.evaluation_rows(example, tokenizer)
        windows = [(row.window, row.window + row.content[1] - row.content[0]) for row in rows]
        for index, answer in enumerate(example.answers or ()):
            trouble = self._trouble(answer, example, context, windows)
            if trouble:
                lost.append(f"answers[{index}] {answer.text!r} {trouble}")
        return lost

    def _trouble(
        self,
        answer: Answer,
        example: QuestionAnsweringExample,
        context: Encoding,
        windows: Sequence[tuple[int, int]],
    ) -> str | None:
        """Why an answer can't be learned or given as it is."""
        if len(answer.text) > self.config.max_answer_length:
            return f"has {len(answer.text)} characters: raise task.max_answer_length"
        places = example.model_copy(update={"answers": (answer,)}).places
        spans = {span: place for place in places if (span := _covered(context, *place))}
        if not spans:
            return "does not stand in the context, so it is scored but not learned"
        if not any(begin <= first and last < end for first, last in spans for begin, end in windows):
            return "is cut by every window: raise task.window_overlap"
        if not any(
            (context.offsets[first][0], context.offsets[last][1]) == place
            for (first, last), place in spans.items()
        ):
            return "begins or ends inside a token, all of which is learned: set task.tokens: characters"
        return None

    def meta(self) -> Mapping[str, Any]:
        """With the threshold that was chosen."""
        if not self.config.no_answer:
            return super().meta()
        settled = self.config.model_copy(update={"null_threshold": self.null_threshold})
        return {**super().meta(), "config": settled.model_dump(mode="json")}

    def _question_room(self, tokenizer: Tokenizer) -> int:
        """Tokens of the question that a row holds."""
        room = self.config.max_length - specials_of_pair(tokenizer)
        return min(self.config.max_question_length, max(1, room // 2))

    def _places(
        self, row: Row, spans: Sequence[tuple[int, int]], example: QuestionAnsweringExample
    ) -> NDArray[np.int64]:
        """First and last token in the row of every answer that is wholly there; the first token if there is none."""
        first, stop = row.content
        shift = first - row.window
        inside = sorted({(a + shift, b + shift) for a, b in spans if a + shift >= first and b + shift < stop})
        if not inside and (spans or not example.answers):
            inside = [(0, 0)]
        return np.array(inside, dtype=np.int64).reshape(-1, 2)

    def _shown(self, found: Answers, context: str) -> Prediction:
        total = np.logaddexp(0.0, found.log_total) if self.config.no_answer else found.log_total
        n_best = [
            {
                "text": context[start:end],
                "start": start,
                "end": end,
                "score": round(float(np.exp(score - total)), 6),
            }
            for start, end, score in found.best
        ]
        if not self.config.no_answer:
            return {"n_best": n_best}
        return {
            "null_odds": round(-found.best[0].score, 6) if found.best else None,
            "null_score": round(float(np.exp(-total)), 6),
            "n_best": n_best,
        }

    def _decided(self, prediction: Prediction) -> Prediction:
        """The prediction with its answer: the best span, or none where that is likely enough."""
        head = {key: prediction[key] for key in ("context", "question")}
        rest = {
            key: value for key, value in prediction.items() if key in ("null_odds", "null_score", "n_best")
        }
        kept = {"id": prediction["id"]} if "id" in prediction else {}
        n_best = prediction["n_best"]
        if n_best and not (self.config.no_answer and prediction["null_odds"] > self.null_threshold):
            best = n_best[0]
            chosen = {"answer": best["text"], **{key: best[key] for key in ("start", "end", "score")}}
        else:
            score = prediction.get("null_score", 1.0)
            chosen = {"answer": "", "start": None, "end": None, "score": score}
        return {**kept, **head, **chosen, **rest}


def _covered(context: Encoding, start: int, end: int) -> tuple[int, int] | None:
    """First and last token (inclusive) that share a character with ``[start, end)``."""
    first = bisect_right(context.offsets, start, key=lambda offset: offset[1])
    last = bisect_left(context.offsets, end, key=lambda offset: offset[0]) - 1
    return (first, last) if first <= last else None


def _holds_answer(row: Row) -> bool:
    answers = row.targets["answers"]
    assert isinstance(answers, np.ndarray)
    return bool(answers.any())


def _group(value: int, edges: Sequence[int]) -> str:
    """``(1, 3, 5)`` and 4 to ``3-4``, 7 to ``5+``."""
    for low, high in pairwise(edges):
        if value < high:
            return str(low) if high == low + 1 else f"{low}-{high - 1}"
    return f"{edges[-1]}+"
