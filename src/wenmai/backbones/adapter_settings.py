"""The ``backbone.adapter:`` section: a few weights beside a frozen encoder learn in its place."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

AdapterMethod = Literal["lora", "prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2"]
Reparameterization = Literal["none", "mlp", "lstm"]

READS: dict[str, tuple[AdapterMethod, ...]] = {
    "rank": ("lora",),
    "alpha": ("lora",),
    "dropout": ("lora",),
    "target_modules": ("lora",),
    "virtual_tokens": ("prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2"),
    "initial_text": ("prompt_tuning",),
    "reparameterization": ("p_tuning", "prefix_tuning", "p_tuning_v2"),
    "encoder_hidden_size": ("p_tuning", "prefix_tuning", "p_tuning_v2"),
}
"""Which methods read a key; the others are read by all."""

USUAL: dict[AdapterMethod, Reparameterization] = {"p_tuning": "lstm", "prefix_tuning": "mlp"}
"""How the method's paper makes its vectors; those that are not here learn them as they are."""


class AdapterConfig(BaseModel):
    """The ``backbone.adapter:`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: AdapterMethod = Field(
        description="lora: changes of low rank to weight matrices; prompt_tuning, p_tuning: vectors in front of the "
        "embedded text; prefix_tuning, p_tuning_v2: keys and values in front of the text's, in every layer"
    )
    rank: int = Field(default=8, ge=1, description="lora: of the changes")
    alpha: float = Field(default=16.0, gt=0, description="lora: the changes are multiplied with alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="lora: of what the changes are applied to")
    target_modules: list[str] | None = Field(
        default=None,
        description="lora: the linear layers that are changed, by the end of their names ([query, value]); default: "
        "all of them",
    )
    virtual_tokens: int = Field(
        default=20, ge=1, description="all but lora: how many vectors stand before the text"
    )
    initial_text: str | None = Field(
        default=None,
        description="prompt_tuning: the vectors begin as the embeddings of this text, again and again; "
        "default: of words drawn from the vocabulary",
    )
    reparameterization: Reparameterization | None = Field(
        default=None,
        description="what makes the vectors from others that are learned: p_tuning: lstm (default), mlp or none; "
        "prefix_tuning: mlp (default) or none; p_tuning_v2: none (default) or mlp",
    )
    encoder_hidden_size: int | None = Field(
        default=None, ge=1, description="the width inside the reparameterization; default: the encoder's own"
    )
    train_also: list[str] = Field(
        default=[],
        description="patterns of the encoder's own parameters that learn too: ['*.bias'] is BitFit, ['*'] all",
    )
    save: Literal["whole", "adapter"] = Field(
        default="whole",
        description="whole: the bundle holds the encoder too, lora merged into its weights, and opens anywhere; "
        "adapter: only the adapter and where the encoder is to be had",
    )

    @model_validator(mode="after")
    def _only_what_the_method_reads(self) -> Self:
        for key, methods in READS.items():
            if self.method not in methods and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} is read by {' and '.join(methods)} only, not by {self.method}: remove it"
                )
        if self.reparameterization == "lstm" and self.method != "p_tuning":
            raise ValueError(f"reparameterization: lstm is for p_tuning; {self.method} takes mlp or none")
        if self.encoder_hidden_size is not None and self.encoder == "none":
            raise ValueError("encoder_hidden_size needs reparameterization: mlp or lstm")
        if self.save == "adapter" and self.train_also:
            raise ValueError(
                "save: adapter leaves the encoder out, but train_also changes it: take save: whole"
            )
        return self

    @property
    def encoder(self) -> Reparameterization:
        """The reparameterization that is meant."""
        return self.reparameterization or USUAL.get(self.method, "none")

    @property
    def in_front(self) -> bool:
        """Whether the adapter is vectors before the text rather than changes of weights."""
        return self.method != "lora"
