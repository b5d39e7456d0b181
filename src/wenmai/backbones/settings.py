"""The ``backbone:`` section: which encoder, and how it is changed before it learns."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

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

    model: str = Field(description="e5-small, a folder, or a name on the Hugging Face hub")
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
    revision: str | None = Field(default=None, description="commit, tag or branch on the hub")
    positions: PositionsConfig | None = Field(
        default=None, description="more positions than the model was trained with; default: as they are"
    )
