"""Masked language modelling (Devlin et al. 2019) with masks drawn anew each epoch (Liu et al. 2019).

What is hidden: tokens, whole words (Cui et al. 2021), runs of up to four words with MacBERT's probabilities (Cui et al.
2020), or runs of up to ten with SpanBERT's (Joshi et al. 2020). Words come from a
segmenter and not from touching offsets, because Chinese words always touch. What is seen in their place is the mask
token, or similar words, so that the model corrects instead of filling gaps (MacBERT).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.lm_head import pretrained_lm_head
from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.draws import drawn_at, row_keys
from wenmai.data.rows import IGNORE, Arrays, Row, stack
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.metrics.language_model import language_model_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.fill_mask import TOP_K, fillings, is_asked, prompt_rows
from wenmai.tasks.language_modelling import Pack, VocabularySmoothing, foretold
from wenmai.tasks.masking import Units, hidden, runs, tokens, words
from wenmai.tasks.similar_words import SimilarWords
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.windows import window_rows
from wenmai.text.words import segment_words

FATE = 11
"""A stream of draws; those of :mod:`wenmai.tasks.masking` are others. Its upper halves are fates, its lower ones draw
what replaces a token."""
LOW_BITS = 0xFFFFFFFF

NO_SIMILAR = SimilarWords(None, {})

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
        default=0.8, ge=0, le=1, description="share of the hidden tokens that become what correction says"
    )
    random_probability: float = Field(
        default=0.1, ge=0, le=1, description="share that become a random token; the rest stay as they are"
    )
    correction: Literal["mask", "similar"] = Field(
        default="mask",
        description="what stands in for a hidden token: the mask token, or a similar one (MacBERT)",
    )
    similar_words: str | None = Field(
        default=None,
        description="correction: similar: file of lines WORD<tab>SIMILAR SIMILAR ...; other words: token by token",
    )
    pack: Pack = False
    label_smoothing: VocabularySmoothing = 0.0

    @model_validator(mode="after")
    def _similar_words_are_asked_for(self) -> Self:
        if self.similar_words is not None and self.correction == "mask":
            raise ValueError("similar_words is read for correction: similar only: set that, or remove it")
        return self

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

    def __init__(self, config: MaskedLMConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self._similar = NO_SIMILAR

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

    def prepare_draws(self, tokenizer: Tokenizer, vectors_VH: NDArray[np.float32] | None) -> None:
        if self.config.correction == "mask":
            return
        if vectors_VH is None and self.config.similar_words is None:
            raise UserError(
                "task.correction: similar takes similar words from the backbone's word embeddings, and random weights "
                "know none: start from a pretrained backbone, or give a file of them (task.similar_words)"
            )
        self._similar = SimilarWords.of(tokenizer, vectors_VH, self._file_of_similar_words)

    @property
    def draw_files(self) -> list[Path]:
        return [] if self._file_of_similar_words is None else [self._file_of_similar_words]

    @property
    def _file_of_similar_words(self) -> Path | None:
        file = self.config.similar_words
        return None if file is None else Path(file).expanduser()

    def augment(self, batch: Arrays, tokenizer: Tokenizer) -> Arrays:
        return self._hide(batch, tokenizer, self._similar)

    def _hide(self, batch: Arrays, tokenizer: Tokenizer, similar: SimilarWords) -> Arrays:
        if tokenizer.mask_id is None and self.config.correction == "mask":
            raise UserError("masked_lm needs a tokenizer with a mask token, this backbone's has none")
        words_BT, key_B, ids_BT = batch["words"], batch["key"], batch["input_ids"]
        at_M = hidden(self._units(words_BT, key_B), self.config.mask_share, key_B)
        seen, original = ids_BT.reshape(-1), np.full(ids_BT.size, IGNORE)
        ids_M = seen[at_M]
        original[at_M] = ids_M
        row_M, place_M = np.divmod(at_M, ids_BT.shape[1])
        drawn_M = drawn_at(key_B, FATE, row_M, place_M)
        number_M, fate_M = drawn_M & np.uint64(LOW_BITS), (drawn_M >> np.uint64(32)) * 2.0**-32
        mask, random = self.config.mask_probability, self.config.random_probability
        ordinary = tokenizer.ordinary_ids
        random_M = ordinary[((number_M * np.uint64(len(ordinary))) >> np.uint64(32)).astype(np.int64)]
        if self.config.correction == "mask":
            replaced_M: int | NDArray[np.int64] = tokenizer.mask_id or 0
        else:
            begins_M = (words_BT.reshape(-1)[at_M] == 1) | (place_M == 0) | (np.diff(at_M, prepend=-2) != 1)
            first_W = np.flatnonzero(begins_M)
            fate_M = np.repeat(fate_M[first_W], np.diff(first_W, append=len(at_M)))
            replaced_M = similar.replaced(ids_M, first_W, number_M, random_M)
        random_M = np.where(fate_M < mask + random, random_M, ids_M)
        seen[at_M] = np.where(fate_M < mask, replaced_M, random_M)
        return {
            **{name: array for name, array in batch.items() if name != "words"},
            "input_ids": seen.reshape(ids_BT.shape),
            "original": original.reshape(ids_BT.shape),
        }

    def _units(self, words_BT: NDArray[np.int64], key_B: NDArray[np.int64]) -> Units:
        content_BT = words_BT != IGNORE
        if self.config.masking == "token":
            return tokens(content_BT)
        found = words(words_BT == 1, content_BT)
        if self.config.masking == "whole_word":
            return found
        return runs(found, NGRAMS if self.config.masking == "ngram" else SPANS, key_B)

    def evaluation_rows(self, example: MaskedLMExample, tokenizer: Tokenizer) -> list[Row]:
        """Hidden as in training, by draws that are a function of the text; similar words are random ones here.

        Similar words are those of the backbone that training began with, which an evaluation has not at hand.
        """
        rows = self.featurize(example, tokenizer)
        batch = stack(rows, tokenizer.pad_id)
        numbers_B = np.arange(len(rows))
        batch["key"] = row_keys(
            zlib.crc32(example.text.encode("utf-8", "surrogatepass")), 0, numbers_B, numbers_B
        )
        batch = self._hide(batch, tokenizer, NO_SIMILAR)
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

    def start_head(self, head: Head, backbone: Backbone) -> None:
        """With the head that the model was pre-trained with, if it was: training goes on where that ended."""
        state = pretrained_lm_head(backbone, required=False)
        if state is not None:
            head.load_state_dict(state)

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: MaskedLMExample
    ) -> Prediction:
        return foretold(outputs, example.text)

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
