"""The ``backbone:`` section: which encoder, and how it is changed before it learns."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.from_scratch import described
from wenmai.backbones.tokenizer import Normalization

PositionMethod = Literal["copy", "random", "hierarchical"]
"""How positions beyond the trained ones get their vectors (:mod:`wenmai.backbones.positions`)."""


class PositionsConfig(BaseModel):
    """The ``backbone.positions:`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: int = Field(ge=2, description="tokens of the longest input then, special tokens included")
    method: PositionMethod = Field(
        default="hierarchical",
        description="copy: the trained vectors again; random: drawn anew; hierarchical: combined, up to n times n "
        "positions of n trained ones",
    )
    alpha: float = Field(
        default=0.4, gt=0, lt=1, description="hierarchical only: weight of the place of the block; not 0.5"
    )

    @field_validator("alpha")
    @classmethod
    def _tells_block_and_place_apart(cls, value: float) -> float:
        if value == 0.5:
            raise ValueError(
                "with 0.5, place 1 of block 2 and place 2 of block 1 would be the same: take 0.4"
            )
        return value


class BackboneConfig(BaseModel):
    """The ``backbone:`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        default=None,
        description="a shipped model, e5-small, a folder, or a name on the Hugging Face hub; "
        "this or architecture must be given",
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="instead of model: a network from scratch, by the keys of transformers' configuration "
        "(model_type, hidden_size, num_hidden_layers ...); its vocabulary is that of backbone.tokenizer",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: only the architecture and the tokenizer are taken"
    )
    layers: int | None = Field(default=None, ge=1, description="keep only the first N layers")
    vocabulary: Literal["full", "chinese"] = Field(
        default="chinese",
        description="e5-small only: all 250,000 pieces, or those Chinese and ASCII text needs",
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="replaces the model's own dropout rates"
    )
    normalize: Normalization = Field(
        default="none",
        description="what the tokenizer reads instead of the text; nfkc: one width, no compatibility forms; "
        "simplified: also traditional to simplified; offsets stay those of the text",
    )
    tokenizer: str | None = Field(
        default=None,
        description="a folder with another tokenizer; the model gets its vocabulary, with rows from the old one; "
        "for architecture: the vocabulary it is to have",
    )
    revision: str | None = Field(default=None, description="commit, tag or branch on the hub")
    positions: PositionsConfig | None = Field(
        default=None, description="more positions than the model was trained with; default: as they are"
    )

    adapter: AdapterConfig | None = Field(
        default=None, description="few weights that learn in the encoder's place; default: the encoder learns"
    )

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.model is None and self.architecture is None:
            raise ValueError(
                "give model (e5-small, a folder, or a name on the Hugging Face hub), or architecture and tokenizer"
            )
        if self.model is not None and self.architecture is not None:
            raise ValueError(
                "model and architecture exclude each other: a network is loaded, or described and begun from nothing"
            )
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture needs tokenizer, the folder of the vocabulary it is to have")
        if self.architecture is not None and self.layers is not None:
            raise ValueError(
                "layers cuts a model; set the number in architecture instead (num_hidden_layers)"
            )
        if self.architecture is not None and self.positions is not None:
            raise ValueError(
                "positions lengthens a trained model; set the number in architecture instead (max_position_embeddings)"
            )
        if self.architecture is not None:
            # not a validator of this key alone: a key that is taken out for being wrong would then look missing
            described(self.architecture)
        if self.adapter is not None and self.adapter.save == "adapter" and self._drawn:
            raise ValueError(
                "adapter.save: adapter leaves the encoder out, but parts of it are drawn and nowhere to be had: "
                "take save: whole"
            )
        return self

    @property
    def _drawn(self) -> bool:
        """Whether parts of the encoder are random."""
        positions = self.positions is not None and self.positions.method == "random"
        return self.model is None or self.weights == "random" or self.tokenizer is not None or positions

    @property
    def title(self) -> str:
        """What people call it: the model's name, or its kind if it is from scratch."""
        return self.model or f"a new {(self.architecture or {})['model_type']}"
