"""The ``train:`` section: how long, how fast, how exactly and on how many machines a model learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Steps = Annotated[int | float, Field(gt=0)]
"""A number of optimizer steps, or below 1 a share of all steps."""

Schedule = Literal[
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]


AWP_SHARE = 0.005
"""How far AWP moves a matrix, as a share of its norm, unless told otherwise (Wu et al. 2020)."""


class AdversarialConfig(BaseModel):
    """The ``train.adversarial:`` section: learn from inputs or weights moved where the loss is higher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["fgm", "pgd", "freelb", "awp"] = Field(
        description="fgm, pgd: move the word embeddings, in one step or several; freelb: move each text's embedded "
        "words; awp: move weight matrices"
    )
    epsilon: float = Field(
        default=1.0,
        gt=0,
        description="how far: the L2 norm of the whole perturbation; awp: share of each matrix's norm, default 0.005",
    )
    step_size: float = Field(
        default=0.3,
        gt=0,
        description="pgd, freelb, awp: how far one step goes, in the unit of epsilon; awp: default 0.005",
    )
    steps: int = Field(default=3, ge=1, description="pgd, freelb, awp: how many steps uphill")
    parameters: list[str] | None = Field(
        default=None,
        description="patterns of the names of the weights that move; default: the word embeddings, awp: all matrices",
    )
    start: Steps | None = Field(
        default=None, description="begin after so many steps (below 1: a share of all); default: at once"
    )

    @model_validator(mode="before")
    @classmethod
    def _small_for_awp(cls, given: object) -> object:
        if isinstance(given, Mapping) and given.get("method") == "awp":
            return {"epsilon": AWP_SHARE, "step_size": AWP_SHARE, **given}
        return given


class TrainConfig(BaseModel):
    """The ``train:`` section; named as in Hugging Face ``TrainingArguments`` where it has the same thing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(default=3.0, gt=0, description="how often every example is seen; may be a fraction")
    max_steps: int | None = Field(default=None, ge=1, description="stop after so many optimizer steps")
    max_tokens: int | None = Field(default=None, ge=1, description="stop after about so many real tokens")
    tokens_per_step: int | None = Field(default=None, ge=8, description="token budget of one optimizer step")
    examples_per_step: int | None = Field(default=None, ge=1, description="fixed number of examples instead")
    tokens_per_micro_batch: int | None = Field(
        default=None,
        ge=8,
        description="what goes through the model at once; changes memory, never the result",
    )
    examples_per_micro_batch: int | None = Field(
        default=None, ge=1, description="the same, in examples instead of tokens"
    )

    learning_rate: float = Field(default=3e-5, gt=0, description="highest rate, reached after the warm-up")
    head_learning_rate: float | None = Field(default=None, gt=0, description="default: learning_rate")
    learning_rates: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="rates of single parts by pattern of the parameter's name, as '*.embeddings.*'; first match counts",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="every layer learns at this share of the rate of the layer above it, the embeddings below all",
    )
    schedule: Schedule = Field(
        default="linear", description="how the rate falls after the warm-up; constant has none"
    )
    warmup_steps: int | float = Field(default=0.1, ge=0, description="below 1: share of all steps")
    min_learning_rate: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the highest rate that linear, cosine*, polynomial and warmup_stable_decay fall to",
    )
    num_cycles: int = Field(
        default=2, ge=1, description="cosine_with_restarts: how many times the rate falls"
    )
    power: float = Field(default=2.0, gt=0, description="polynomial: 1 is linear")
    decay_steps: Steps = Field(
        default=0.2, description="warmup_stable_decay: the steps of the fall at the end"
    )

    optimizer: Literal["adamw", "adafactor", "lion"] = Field(
        default="adamw",
        description="adamw is the fused one of PyTorch; adafactor wants rates about 25 times as high; "
        "lion needs the extra optimizers",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="not for biases and norms")
    l1: float = Field(
        default=0.0, ge=0, description="weight of the sum of absolute weights, biases and norms left out"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="also lion's first beta")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="also lion's second beta")
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="longer gradients are shortened to it; null: never"
    )
    freeze: list[str] = Field(
        default=[], description="patterns of the names of parameters that do not learn, as 'backbone.*'"
    )
    unfreeze_every: Steps | None = Field(
        default=None,
        description="the head learns first; after every so many steps the next layer from the top joins, "
        "the embeddings last",
    )

    adversarial: AdversarialConfig | None = Field(default=None, description="see below; default: off")
    r_drop: float | None = Field(
        default=None,
        gt=0,
        description="weight of the divergence between two passes with different dropout (R-Drop)",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="score and keep a moving average of the weights, with this share of the old one a step",
    )
    swa_start: Steps | None = Field(
        default=None, description="score and keep the plain average of the weights after so many steps"
    )

    gradient_checkpointing: bool = Field(
        default=False, description="compute activations again instead of keeping them: less memory, slower"
    )
    padding_free: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="leave padding out of the encoder; auto: where the architecture can; changes speed, not results",
    )
    parallel: Literal["ddp", "fsdp", "deepspeed"] = Field(
        default="ddp",
        description="what several processes share out: the examples; deepspeed: also gradients and optimizer states; "
        "fsdp: also the weights",
    )
    num_workers: int | Literal["auto"] = Field(
        default=0, description="processes that prepare batches; 0: in the trainer; auto: as many as help"
    )

    eval_steps: Steps | None = Field(default=None, description="default: after every epoch")
    save_steps: Steps | None = Field(default=None, description="default: after every evaluation")
    logging_steps: int = Field(default=10, ge=1, description="steps between two lines of log.jsonl")
    eval_examples: int | None = Field(
        default=None, ge=1, description="score only so many dev examples, evenly spread; default: all"
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="evaluations without a better metric before training stops"
    )
    metric_for_best_model: str | None = Field(default=None, description="default: the task's primary metric")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], description="train once a seed, in folders of their own, and report mean and deviation"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        for one, other in (
            ("tokens_per_step", "examples_per_step"),
            ("tokens_per_micro_batch", "examples_per_micro_batch"),
            ("ema_decay", "swa_start"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"{one} and {other} exclude each other: remove one of them")
        if self.min_learning_rate and self.schedule in ("constant", "constant_with_warmup", "inverse_sqrt"):
            raise ValueError(f"min_learning_rate means nothing with schedule {self.schedule}: remove it")
        if isinstance(self.num_workers, int) and self.num_workers < 0:
            raise ValueError(f"num_workers is {self.num_workers}: expected auto, or 0 or more processes")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat: give each seed once")
        return self
