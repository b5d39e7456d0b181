"""The ``backbone:`` section: which encoder, and how it is changed before it learns."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wenmai.backbones.tokenizer import Normalization


class BackboneConfig(BaseModel):
    """The ``backbone:`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="a shipped model, e5-small, a folder, or a name on the Hugging Face hub")
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
