"""Causal language modelling (Radford et al. 2018): every token is said by what stands before it, and the text is
continued.

The tokens of a text and its end count, its beginning doesn't. A text longer than ``max_length`` is read in windows that
follow each other, so each token counts once; in evaluation a window may look at some tokens before it again, which say
nothing twice but are known (a sliding window with a stride).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.head import Head
from wenmai.metrics.language_model import language_model_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.generation import Generation
from wenmai.tasks.language_modelling import Pack, VocabularySmoothing, foretold
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task, TaskConfig, text_record


class CausalLMExample(Example):
    """``{"text"}``, or ``{"prompt"}`` to be continued."""

    text: str | None = None
    prompt: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.prompt is None):
            raise ValueError(
                "needs 'text', to learn and to be scored by, or 'prompt', to be continued: one of both"
            )
        return self

    @property
    def labelled(self) -> bool:
        return self.text is not None

    @property
    def length(self) -> int:
        return len(self.text or self.prompt or "")


class CausalLMConfig(TaskConfig):
    name: Literal["causal_lm"] = "causal_lm"
    context: int = Field(
        default=0,
        ge=0,
        description="evaluation: tokens before a window of a long text that it knows too; below max_length",
    )
    pack: Pack = False
    label_smoothing: VocabularySmoothing = 0.0
    max_new_tokens: int = Field(default=64, ge=1, description="prediction: most tokens that continue a text")
    temperature: float = Field(
        default=0.0,
        ge=0,
        description="prediction: 0 takes the likeliest token; above, drawn from p^(1/temperature)",
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="prediction: drawn from the likeliest tokens of this probability"
    )
    sampling_seed: int = Field(
        default=0, ge=0, description="prediction: of the draws, together with the text"
    )

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if self.context >= self.max_length:
            raise ValueError(f"context {self.context} must be below max_length {self.max_length}")
        return self


class CausalLM(Task[CausalLMExample, CausalLMConfig]):
    name = "causal_lm"
    primary_metric = "negative_loss"
    Example = CausalLMExample
    Config = CausalLMConfig

    def as_example(self, item: Any) -> CausalLMExample:
        if isinstance(item, Mapping) and isinstance(item.get("prompt"), str):
            return CausalLMExample(prompt=item["prompt"], id=item.get("id"))
        record = text_record(item, self.name)
        return CausalLMExample(prompt=record.pop("text"), **record)

    @property
    def packed(self) -> bool:
        return self.config.pack

    def featurize(self, example: CausalLMExample, tokenizer: Tokenizer) -> list[Row]:
        if example.text is None:
            return [self._prompt(example.prompt or "", tokenizer)]
        rows = self._windows(example.text, tokenizer, context=0)
        if self.config.pack:
            # the tokens around a text go with it: its first token is said by what begins a text
            rows = [replace(row, content=(0, len(row))) for row in rows]
        return rows

    def evaluation_rows(self, example: CausalLMExample, tokenizer: Tokenizer) -> list[Row]:
        assert example.text is not None
        return self._windows(example.text, tokenizer, context=self.config.context)

    def _windows(self, text: str, tokenizer: Tokenizer, *, context: int) -> list[Row]:
        before, after = tokenizer.document_ends
        encoding = tokenizer.encode(text)
        ids = [*before, *encoding.ids, *after]
        offsets = [(0, 0)] * len(before) + encoding.offsets + [(0, 0)] * len(after)
        following = [IGNORE] * (len(before) - 1) + ids[len(before) :]
        first_text, last_text = len(before), len(before) + len(encoding)
        rows: list[Row] = []
        scored = 0  # inputs up to here have said what follows them
        while scored < len(following):
            start = max(0, scored - context)
            stop = min(len(following), start + self.config.max_length)
            content = max(first_text, start) - start, max(first_text, min(last_text, stop)) - start
            rows.append(
                Row(
                    inputs={"input_ids": ids[start:stop]},
                    targets={"next": [IGNORE] * (scored - start) + following[scored:stop]},
                    offsets=offsets[start:stop],
                    content=content,
                    window=max(0, start - first_text),
                )
            )
            scored = stop
        return rows

    def _prompt(self, text: str, tokenizer: Tokenizer) -> Row:
        before, _ = tokenizer.document_ends
        encoding = tokenizer.encode(text)
        return Row(
            inputs={"input_ids": [*before, *encoding.ids]},
            offsets=[(0, 0)] * len(before) + encoding.offsets,
            content=(len(before), len(before) + len(encoding)),
        )

    def build_head(self, backbone: Backbone) -> Head:
        if not backbone.causal:
            raise UserError(
                f"task.name: causal_lm needs a decoder (gpt2, llama, qwen3 ...), but a {backbone.config.model_type} "
                "sees what follows; take another backbone, or masked_lm"
            )
        return CausalLMHead(
            backbone.hidden_size,
            backbone.word_embeddings,
            tied=backbone.ties_embeddings,
            label_smoothing=self.config.label_smoothing,
        )

    def generation(self) -> Generation:
        config = self.config
        return Generation(config.max_new_tokens, config.temperature, config.top_p, config.sampling_seed)

    def written(self, text: str, example: CausalLMExample) -> Prediction:
        return {"text": example.prompt, "continuation": text}

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: CausalLMExample
    ) -> Prediction:
        return foretold(outputs, example.text)

    def score(self, examples: Sequence[CausalLMExample], predictions: Sequence[Prediction]) -> Scores:
        return language_model_scores(
            [p["loss"] for p in predictions],
            [p["tokens"] for p in predictions],
            [p["right"] for p in predictions],
            characters=[example.length for example in examples],
        )
