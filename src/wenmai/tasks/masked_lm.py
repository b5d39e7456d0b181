"""Masked language modelling (Devlin et al. 2019) with masks drawn anew each epoch (Liu et al. 2019).

What is hidden: tokens, whole words (Cui et al. 2021), runs of up to four words with MacBERT's probabilities (Cui et al.
2020), or runs of up to ten with SpanBERT's (Joshi et al. 2020). Words come from a segmenter and not from touching
offsets, because Chinese words always touch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.draws import row_keys, uniform
from wenmai.data.rows import IGNORE, Arrays, Row, stack
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.metrics.language_model import language_model_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.fill_mask import TOP_K, fillings, is_asked, prompt_rows
from wenmai.tasks.masking import chosen, numbered, runs
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.windows import window_rows
from wenmai.text.words import segment_words

FATE, REPLACEMENT = 11, 12
"""Streams of draws; those of :mod:`wenmai.tasks.masking` are others."""

NGRAMS = (0.4, 0.3, 0.2, 0.1)
SPANS = tuple(0.2 * 0.8**n / (1 - 0.8**10) for n in range(10))
"""Probabilities of runs of 1, 2 ... words: of MacBERT; geometric with p = 0.2, cut at ten words, of SpanBERT."""


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
    masking: Literal["token", "whole_word", "ngram", "span"] = Field(
        default="token",
        description="what is hidden together: a token, a word, one to four words, or one to ten",
    )
    segmenter: Literal["rjieba", "script"] = Field(
        default="rjieba",
        description="whose words; script: a Chinese character is a word, Latin runs are words",
    )
    mask_probability: float = Field(
        default=0.8, ge=0, le=1, description="share of the hidden tokens that become the mask token"
    )
    random_probability: float = Field(
        default=0.1, ge=0, le=1, description="share that become a random token; the rest stay as they are"
    )
    pack: bool = Field(
        default=False,
        description="train on rows of max_length, joined from consecutive texts; dev and test stay text by text",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the target that is spread evenly over the vocabulary, in training only",
    )

    @model_validator(mode="after")
    def _probabilities_leave_no_less_than_nothing(self) -> Self:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError(
                f"mask_probability {self.mask_probability} and random_probability {self.random_probability} "
                "are more than 1 together: lower one of them"
            )
        return self


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

    @property
    def packed(self) -> bool:
        return self.config.pack

    def featurize(self, example: MaskedLMExample, tokenizer: Tokenizer) -> list[Row]:
        """Rows whose target ``words`` is 1 where a word begins, 0 inside it, IGNORE at special tokens."""
        if isinstance(example, Prompt):
            return prompt_rows(
                example.text,
                tokenizer,
                max_length=self.config.max_length,
                mask_share=self.config.mask_share,
            )
        encoding = tokenizer.encode(example.text)
        rows = window_rows(encoding, tokenizer, max_length=self.config.max_length, overlap=0)
        begins_L = self._word_begins(example.text, encoding.offsets)
        for row in rows:
            first, stop = row.content
            words_T = np.full(len(row), IGNORE)
            words_T[first:stop] = begins_L[row.window : row.window + stop - first]
            row.targets["words"] = words_T
        return rows

    def _word_begins(self, text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
        """(L,), at which tokens of the text a word begins."""
        if self.config.masking == "token":
            return np.ones(len(offsets), dtype=np.bool_)
        borders_C = np.zeros(len(text) + 1, dtype=np.int64)
        # what lies between two words, if anything does, is a unit of its own
        borders_C[[at for word in segment_words(text, segmenter=self.config.segmenter) for at in word]] = 1
        word_L = np.cumsum(borders_C)[[start for start, _ in offsets]]
        begins_L: NDArray[np.bool_] = np.diff(word_L, prepend=-1) != 0
        return begins_L

    def augment(self, batch: Arrays, tokenizer: Tokenizer) -> Arrays:
        if tokenizer.mask_id is None:
            raise UserError("masked_lm needs a tokenizer with a mask token, this backbone's has none")
        words_BT, key_B, ids_BT = batch["words"], batch["key"], batch["input_ids"]
        hidden_BT = self._hidden(words_BT, key_B)
        fate_BT = uniform(key_B, FATE, words_BT.shape[1])
        mask, random = self.config.mask_probability, self.config.random_probability
        seen_BT = np.where(hidden_BT & (fate_BT < mask), tokenizer.mask_id, ids_BT)
        random_BT = hidden_BT & (fate_BT >= mask) & (fate_BT < mask + random)
        ordinary = tokenizer.ordinary_ids
        drawn_BT = uniform(key_B, REPLACEMENT, words_BT.shape[1])
        seen_BT[random_BT] = ordinary[(drawn_BT[random_BT] * len(ordinary)).astype(np.int64)]
        return {
            **{name: array for name, array in batch.items() if name != "words"},
            "input_ids": seen_BT,
            "original": np.where(hidden_BT, ids_BT, IGNORE),
        }

    def _hidden(self, words_BT: NDArray[np.int64], key_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        content_BT = words_BT != IGNORE
        unit_BT = numbered(words_BT == 1, content_BT)
        if self.config.masking in ("ngram", "span"):
            lengths = NGRAMS if self.config.masking == "ngram" else SPANS
            unit_BT = runs(unit_BT, content_BT, lengths, key_B)
        return chosen(unit_BT, content_BT, self.config.mask_share, key_B)

    def evaluation_rows(self, example: MaskedLMExample, tokenizer: Tokenizer) -> list[Row]:
        """Hidden as in training, by draws that are a function of the text."""
        rows = self.featurize(example, tokenizer)
        batch = stack(rows, tokenizer.pad_id)
        numbers_B = np.arange(len(rows))
        batch["key"] = row_keys(
            zlib.crc32(example.text.encode("utf-8", "surrogatepass")), 0, numbers_B, numbers_B
        )
        batch = self.augment(batch, tokenizer)
        return [
            Row(
                inputs={**row.inputs, "input_ids": batch["input_ids"][i, : len(row)].tolist()},
                targets={"original": batch["original"][i, : len(row)].tolist()},
                offsets=row.offsets,
                content=row.content,
                window=row.window,
            )
            for i, row in enumerate(rows)
        ]

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
