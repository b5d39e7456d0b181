"""Multiple choice: which of an example's own texts answers a question, or fills a blank.

Every choice is a row of its own, the rows of an example are trained together, and their scores compete. Where the text
has a blank, a row holds the choice and the text with the choice in the blank's place; otherwise text and choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.choice import ChoiceHead
from wenmai.heads.head import Head
from wenmai.metrics.scores import CountScores, Scores, ratio
from wenmai.tasks.labels import softmax
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig
from wenmai.tasks.text_matching import pair_row, specials_of_pair


class MultipleChoiceExample(Example):
    """``{"text", "choices": [...], "label"}``; the label is the number of the right choice, from 0."""

    text: str
    choices: tuple[str, ...] = Field(min_length=1)
    label: int | None = None

    @model_validator(mode="after")
    def _one_of_the_choices(self) -> Self:
        if self.label is not None and not 0 <= self.label < len(self.choices):
            raise ValueError(
                f"label {self.label} is none of the {len(self.choices)} choices: it counts them from 0"
            )
        return self

    @property
    def labelled(self) -> bool:
        return self.label is not None

    @property
    def length(self) -> int:
        return len(self.text)


class MultipleChoiceConfig(TaskConfig):
    name: Literal["multiple_choice"] = "multiple_choice"
    blank: str | None = Field(
        default=None, description="what stands in the text where a choice belongs, such as #idiom#"
    )
    pooling: Literal["mean", "cls", "max", "last"] = Field(
        default="mean", description="tokens to one vector; last is for decoders"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)


class MultipleChoice(Task[MultipleChoiceExample, MultipleChoiceConfig]):
    name = "multiple_choice"
    primary_metric = "accuracy"
    Example = MultipleChoiceExample
    Config = MultipleChoiceConfig
    rows_stay_together = True

    @classmethod
    def collect_labels(
        cls, config: MultipleChoiceConfig, examples: Iterable[MultipleChoiceExample]
    ) -> list[str]:
        if not any(len(example.choices) > 1 for example in examples):
            raise UserError(
                "multiple_choice needs examples with at least two choices, the training set has none"
            )
        return []

    def label_problems(self, example: MultipleChoiceExample) -> list[str]:
        blank = self.config.blank
        if blank and blank not in example.text:
            return [f"text: there is no {blank!r}, which task.blank says is where the choice belongs"]
        return []

    def as_example(self, item: Any) -> MultipleChoiceExample:
        if isinstance(item, Mapping) and {"text", "choices"} <= item.keys():
            return MultipleChoiceExample(text=item["text"], choices=item["choices"], id=item.get("id"))
        raise UserError(f"multiple_choice predicts for {{'text': ..., 'choices': [...]}}, not for {item!r}")

    def featurize(self, example: MultipleChoiceExample, tokenizer: Tokenizer) -> list[Row]:
        rows = []
        for index, choice in enumerate(example.choices):
            row = self._row(example.text, choice, tokenizer)
            if example.label is not None:
                row.targets["chosen"] = int(index == example.label)
            rows.append(row)
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        return ChoiceHead(backbone.hidden_size, pooling=self.config.pooling, dropout=self.config.dropout)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: MultipleChoiceExample
    ) -> Prediction:
        share_C = softmax(np.array([float(out["score"]) for out in outputs], dtype=np.float64))
        best = int(share_C.argmax())
        return {
            "text": example.text,
            "choices": list(example.choices),
            "label": best,
            "choice": example.choices[best],
            "score": round(float(share_C[best]), 6),
            "scores": [round(float(share), 6) for share in share_C],
        }

    def score(self, examples: Sequence[MultipleChoiceExample], predictions: Sequence[Prediction]) -> Scores:
        counts = [
            (1, prediction["label"] == example.label)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        return CountScores(np.array(counts, dtype=np.float64).reshape(-1, 2), _accuracy)

    def breakdowns(
        self,
        examples: Sequence[MultipleChoiceExample],
        predictions: Sequence[Prediction],
        known: frozenset[str],
    ) -> dict[str, dict[str, Scores]]:
        members: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            members.setdefault(str(len(example.choices)), []).append(index)
        scores = self.score(examples, predictions)
        return {"choices": {number: scores.subset(indices) for number, indices in members.items()}}

    def confidences(
        self, examples: Sequence[MultipleChoiceExample], predictions: Sequence[Prediction]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        right = [p["label"] == example.label for example, p in zip(examples, predictions, strict=True)]
        return np.array([p["score"] for p in predictions], dtype=np.float64), np.array(right, dtype=bool)

    def lost_labels(self, example: MultipleChoiceExample, tokenizer: Tokenizer) -> list[str]:
        lost = []
        for index, choice in enumerate(example.choices):
            parts = sum(map(len, self._parts(example.text, choice, tokenizer)))
            kept = len(self._row(example.text, choice, tokenizer)) - specials_of_pair(tokenizer)
            if kept < parts:
                lost.append(f"{parts - kept} of {parts} tokens of choices[{index}] and the text are cut off")
        return lost

    def _parts(self, text: str, choice: str, tokenizer: Tokenizer) -> tuple[Encoding, Encoding, Encoding]:
        """The choice, and the text up to the end of its blank and behind it; without a blank nothing is behind."""
        blank = self.config.blank
        if not blank or blank not in text:
            before, behind = text, ""
        else:
            before, _, rest = text.partition(blank)
            before, behind = before + choice, rest.replace(blank, choice)
        first, second, third = tokenizer.encode_batch([choice, before, behind])
        return first, second, third

    def _row(self, text: str, choice: str, tokenizer: Tokenizer) -> Row:
        """A pair; of a long text the parts farthest from the blank are cut, without a blank its end."""
        chosen, before, behind = self._parts(text, choice, tokenizer)
        if not self.config.blank or self.config.blank not in text:
            return pair_row(before, chosen, tokenizer, max_length=self.config.max_length)
        room = max(0, self.config.max_length - specials_of_pair(tokenizer) - len(chosen))
        right = min(len(behind), max(room // 2, room - len(before)))
        left = min(len(before), room - right)
        whole = Encoding(
            before.ids[len(before) - left :] + behind.ids[:right],
            before.offsets[len(before) - left :] + behind.offsets[:right],
        )
        return pair_row(chosen, whole, tokenizer, max_length=self.config.max_length)


def _accuracy(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"accuracy": ratio(sums[..., 1], sums[..., 0])}
