"""The ``data:`` section: which files, in which format, with which columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt

Format = Literal[
    "auto", "jsonl", "json", "csv", "tsv", "conll", "conllu", "text", "parquet", "dataset",
    "label_studio", "doccano", "brat", "cluener", "parallel", "hidden_pair", "squad", "cmrc",
    "spo_list", "triple_list", "funsd", "xfund",
]  # fmt: skip


class Reading(BaseModel):
    """How to read a file. Set once for all splits in ``data:``, or for one split beside its ``path``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Field(default="auto", description="auto: by the file's ending")
    columns: dict[str, str | int] | None = Field(
        default=None,
        description="our field -> column of the file, by name or by number from 0; others are dropped",
    )
    delimiter: str | None = Field(default=None, description="csv, tsv, conll: what stands between columns")
    header: bool | None = Field(default=None, description="csv, tsv: whether line 1 names the columns")
    label_names: str | None = Field(
        default=None, description="file with one label name a line, for data that holds their numbers from 0"
    )
    label_map: dict[str, str] | None = Field(default=None, description="label in the file -> label to use")
    rows: tuple[NonNegativeInt, NonNegativeInt | None] | None = Field(
        default=None, description="only records [first, stop), from 0"
    )
    where: dict[str, str | int | list[str | int]] | None = Field(
        default=None, description="only records whose column has this value (or one of these)"
    )
    end_inclusive: bool = Field(default=False, description="spans in the file end ON their last character")
    text_unit: Literal["line", "document"] = Field(
        default="line", description="text: a record is a line, or all lines up to an empty one"
    )
    discontinuous: Literal["refuse", "cover", "drop"] = Field(
        default="refuse",
        description="brat: entities of several pieces; cover: from the first to the last character",
    )
    encoding: str = "utf-8"


class Source(Reading):
    """One split: a file, a folder (brat, a saved dataset), or ``sample:NAME/SPLIT``."""

    path: str


def _as_source(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


SourceField = Annotated[Source, BeforeValidator(_as_source)]


class Split(BaseModel):
    """Parts of the training file to hold out, where no file of their own is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dev: float = Field(default=0.0, ge=0, lt=1)
    test: float = Field(default=0.0, ge=0, lt=1)
    stratify: bool = Field(
        default=True, description="keep the shares of the labels, where an example has one label"
    )
    group: str | None = Field(default=None, description="field whose equal values must stay in one part")
    seed: int = 42


class DataConfig(Reading):
    """The ``data:`` section of a run."""

    root: str = Field(default=".", description="folder that relative paths start from")
    train: SourceField
    dev: SourceField | None = None
    test: SourceField | None = None
    split: Split = Split()
    on_error: Literal["raise", "skip"] = Field(
        default="raise", description="skip: write bad rows out and go on"
    )
    cache: str | None = Field(
        default=None,
        description="folder that keeps what was tokenised, for the next run on the same data; "
        "default: `features` in WENMAI_CACHE or ~/.cache/wenmai; off: nothing is kept",
    )

    def source(self, name: Literal["train", "dev", "test"]) -> Source | None:
        """A split's source with the section's defaults filled in and its paths joined to ``root``."""
        own: Source | None = getattr(self, name)
        if own is None:
            return None
        shared = {key: getattr(self, key) for key in Reading.model_fields}
        given = own.model_dump(exclude_unset=True)
        merged = {**shared, **given}
        merged["path"] = own.path if own.path.startswith("sample:") else str(Path(self.root) / own.path)
        if merged["label_names"] is not None:
            merged["label_names"] = str(Path(self.root) / merged["label_names"])
        return Source(**merged)
