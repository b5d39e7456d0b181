"""Masked language modelling (Devlin et al. 2019) with masks drawn anew each epoch (Liu et al. 2019).

Of the chosen tokens 80 % become the mask token, 10 % a random token, 10 % stay. With ``whole_words`` all tokens of a
word are chosen together (Cui et al. 2021), the words coming from a segmenter and not from touching offsets, because
Chinese words always touch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.metrics.language_model import language_model_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.fill_mask import TOP_K, fillings, is_asked, prompt_rows
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.windows import window_rows
from wenmai.text.words import segment_words

MASKED, RANDOM = 0.8, 0.1


class MaskedLMExample(Example):
    """``{"text"}``."""

    text: str

    @property
    def length(self) -> int:
        return len(self.text)


class Prompt(MaskedLMExample):
    """A text that a user asks about: with masks, what belongs there; without, how likely it is."""

    top_k: int = Field(default=TOP_K, ge=1)
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)

    @property
    def labelled(self) -> bool:
        return False


class MaskedLMConfig(TaskConfig):
    name: Literal["masked_lm"] = "masked_lm"
    mask_share: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens to predict")
    whole_words: bool = Field(default=False, description="choose all tokens of a word together")
    segmenter: Literal["rjieba", "script"] = Field(
        default="rjieba",
        description="whose words; script: a Chinese character is a word, Latin runs are words",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the target that is spread evenly over the vocabulary, in training only",
    )


class MaskedLM(Task[MaskedLMExample, MaskedLMConfig]):
    name = "masked_lm"
    primary_metric = "negative_loss"
    Example = MaskedLMExample
    Config = MaskedLMConfig

    def as_example(self, item: Any) -> MaskedLMExample:
        options = ("top_k", "targets") if isinstance(item, Mapping) else ()
        return Prompt(
            **text_record(item, self.name), **{key: item[key] for key in options if item.get(key) is not None}
        )

    def featurize(self, example: MaskedLMExample, tokenizer: Tokenizer) -> list[Row]:
        if isinstance(example, Prompt):
            return prompt_rows(
                example.text,
                tokenizer,
                max_length=self.config.max_length,
                mask_share=self.config.mask_share,
            )
        rows = window_rows(
            tokenizer.encode(example.text), tokenizer, max_length=self.config.max_length, overlap=0
        )
        for row in rows:
            row.targets["original"] = [IGNORE] * len(row)
        if self.config.whole_words:
            words = np.zeros(len(example.text) + 1, dtype=np.int64)
            for number, (start, end) in enumerate(
                segment_words(example.text, segmenter=self.config.segmenter)
            ):
                words[start:end] = number
            for row in rows:
                first, stop = row.content
                inside = range(first, stop)
                row.words = [int(words[row.offsets[i][0]]) if i in inside else -1 for i in range(len(row))]
        return rows

    def augment(self, row: Row, rng: np.random.Generator, tokenizer: Tokenizer) -> Row:
        first, _ = row.content
        chosen = first + self._choose(row, rng)
        ids = np.array(row.inputs["input_ids"])
        original = np.full(len(row), IGNORE)
        original[chosen] = ids[chosen]
        fate = rng.random(len(chosen))
        if tokenizer.mask_id is None:
            raise UserError("masked_lm needs a tokenizer with a mask token, this backbone's has none")
        ids[chosen[fate < MASKED]] = tokenizer.mask_id
        random = chosen[(fate >= MASKED) & (fate < MASKED + RANDOM)]
        ids[random] = tokenizer.random_ids(rng, len(random))
        return Row(
            inputs={**row.inputs, "input_ids": ids.tolist()},
            targets={"original": original.tolist()},
            offsets=row.offsets,
            content=row.content,
            window=row.window,
        )

    def _choose(self, row: Row, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions, from the first content token, of ``mask_share`` of the content tokens on average.

        Words are taken in a drawn order. The one that would exceed the share is taken with the probability that makes
        the expected number right, so that neither short rows nor long words move the share.
        """
        first, stop = row.content
        wanted = (stop - first) * self.config.mask_share
        if not row.words:
            return np.sort(rng.permutation(stop - first)[: int(wanted + rng.random())])
        _, word_T = np.unique(row.words[first:stop], return_inverse=True)
        place_T = rng.permutation(len(np.bincount(word_T)))[word_T]
        sizes = np.bincount(place_T)
        ends = np.cumsum(sizes)
        taken = int(np.searchsorted(ends, wanted, side="right"))
        if taken < len(sizes):
            taken += int(rng.random() < (wanted - (ends[taken] - sizes[taken])) / sizes[taken])
        return np.flatnonzero(place_T < taken)

    def evaluation_rows(self, example: MaskedLMExample, tokenizer: Tokenizer) -> list[Row]:
        rng = np.random.default_rng(zlib.crc32(example.text.encode()))
        return [self.augment(row, rng, tokenizer) for row in self.featurize(example, tokenizer)]

    def build_head(self, backbone: Backbone) -> Head:
        return MaskedLMHead(
            backbone.hidden_size,
            backbone.word_embeddings,
            label_smoothing=self.config.label_smoothing,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: MaskedLMExample
    ) -> Prediction:
        return {
            "text": example.text,
            "loss": round(float(sum(out["loss"].sum() for out in outputs)), 6),
            "tokens": int(sum(out["counted"].sum() for out in outputs)),
            "right": int(sum(out["right"].sum() for out in outputs)),
        }

    def answer(
        self,
        outputs: Sequence[RowOutputs],
        rows: Sequence[Row],
        example: MaskedLMExample,
        tokenizer: Tokenizer,
    ) -> Prediction:
        if not isinstance(example, Prompt):
            return self.decode(outputs, rows, example)
        if is_asked(rows[0]):
            return fillings(
                outputs, rows, example.text, tokenizer, top_k=example.top_k, targets=example.targets
            )
        scored = self.decode(outputs, rows, example)
        return {
            **scored,
            "perplexity": round(float(self.score([example], [scored]).values()["perplexity"]), 4),
        }

    def score(self, examples: Sequence[MaskedLMExample], predictions: Sequence[Prediction]) -> Scores:
        return language_model_scores(
            [p["loss"] for p in predictions],
            [p["tokens"] for p in predictions],
            [p["right"] for p in predictions],
        )
