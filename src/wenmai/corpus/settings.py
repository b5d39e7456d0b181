"""The sections of a corpus configuration (``recipes/corpus.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadingConfig(Section):
    """How files become documents."""

    unit: Literal["line", "document"] = Field(
        default="line", description="text files: a document is a line, or all lines up to an empty one"
    )
    text_field: str = Field(default="text", description="jsonl: the field that holds the text")
    encoding: Literal["auto", "utf-8", "gb18030", "big5"] = Field(
        default="auto", description="auto: found out for each file"
    )
    largest_document: int = Field(default=16 << 20, ge=1, description="bytes; a larger document is left out")


class RepetitionConfig(Section):
    """Largest shares of a document that may repeat itself; 1 turns a rule off."""

    duplicate_lines: Share = Field(default=0.3, description="lines that stood before, among all lines")
    duplicate_line_characters: Share = Field(default=0.2, description="characters in such lines")
    top_ngrams: dict[int, Share] = Field(
        default={3: 0.3, 5: 0.25},
        description="n -> characters covered by the most frequent run of n characters, if it comes five times",
    )
    repeated_ngrams: dict[int, Share] = Field(
        default={8: 0.25, 16: 0.15}, description="n -> characters in runs of n that stood before"
    )


class QualityConfig(Section):
    """A classifier of good text against the raw text itself."""

    good: list[str] = Field(min_length=1, description="files or folders of text as it should be")
    alpha: float = Field(
        default=9.0, gt=0, description="keep if Pareto(alpha) > 1 - score: larger keeps less of the bad"
    )
    documents: int = Field(default=20_000, ge=10, description="most documents of each side to learn from")
    buckets: int = Field(default=1 << 18, ge=16, description="of the hashed runs of 1 to 3 characters")
    regularization: float = Field(default=1.0, gt=0, description="C of scikit-learn's LogisticRegression")


class CleanConfig(Section):
    """What ``wenmai corpus clean`` mends and what it leaves out."""

    repair: bool = Field(default=True, description="undo mojibake (ftfy)")
    compatibility: bool = Field(
        default=False, description="Unicode NFKC: full width to half width, also ，：？！"
    )
    simplify: bool = Field(default=False, description="traditional to simplified Chinese (OpenCC)")
    markup: bool = Field(default=True, description="remove HTML tags, resolve entities such as &nbsp;")
    boilerplate: bool = Field(
        default=True, description="remove lines of navigation, copyright, page numbers, bare addresses"
    )
    min_characters: int = Field(default=10, ge=0)
    max_characters: int = Field(default=1_000_000, ge=1)
    min_chinese: Share = Field(default=0.5, description="Chinese characters among letters")
    max_symbols: Share = Field(default=0.4, description="punctuation and symbols among all but spaces")
    max_digits: Share = Field(default=0.3, description="digits among all but spaces")
    repetition: RepetitionConfig = RepetitionConfig()
    quality: QualityConfig | None = Field(default=None, description="off unless it is given")

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"clean.min_characters: {self.min_characters} is more than clean.max_characters, "
                f"{self.max_characters}: nothing would be kept"
            )
        return self


class DedupConfig(Section):
    """What counts as the same document."""

    near: bool = Field(default=True, description="also documents that are nearly the same")
    ngram: int = Field(default=3, ge=1, description="characters in a shingle; punctuation is passed over")
    permutations: int = Field(
        default=128, ge=16, le=1024, description="values of a signature; more estimate better"
    )
    threshold: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Jaccard similarity of the shingles from which on one of two goes",
    )


class DecontaminateConfig(Section):
    """What counts as a sentence of a test set."""

    test_sets: list[str] = Field(default=[], description="files or folders; every text in them is kept out")
    ngram: int = Field(
        default=13, ge=4, description="so many characters in a row of a test text are too many"
    )
    min_characters: int = Field(
        default=8, ge=2, description="shorter test sentences are said too often by chance, and passed over"
    )
    remove: Literal["document", "sentence"] = Field(
        default="document", description="the whole document, or its sentences that were met"
    )

    @model_validator(mode="after")
    def _short_below_ngram(self) -> Self:
        if self.min_characters > self.ngram:
            raise ValueError(
                f"decontaminate.min_characters: {self.min_characters} is more than decontaminate.ngram, {self.ngram}"
            )
        return self


class MixSource(Section):
    """A source of a mixture."""

    path: str
    weight: float | None = Field(
        default=None, gt=0, description="share of the mixture beside the others; default: by size"
    )


def _as_source(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class MixConfig(Section):
    """How much of what."""

    sources: dict[str, Annotated[MixSource, BeforeValidator(_as_source)]] = Field(
        default={}, description="name -> path, or a section with path and weight"
    )
    temperature: float = Field(
        default=1.0, gt=0, description="weights by size: characters ** (1 / temperature); more evens them out"
    )
    characters: int | None = Field(default=None, ge=1, description="length of the mixture; default: as it is")
    documents: int | None = Field(default=None, ge=1, description="or so many documents, about")
    max_epochs: float = Field(default=4.0, gt=0, description="no document comes more often")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.characters is not None and self.documents is not None:
            raise ValueError("mix.characters and mix.documents exclude each other: remove one of them")
        paths = [source.path for source in self.sources.values()]
        if len(set(paths)) < len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise ValueError(
                f"mix.sources: {twice} is there twice; name it once, with the sum of the weights"
            )
        weights = [source.weight is not None for source in self.sources.values()]
        if any(weights) and not all(weights):
            missing = [name for name, source in self.sources.items() if source.weight is None]
            raise ValueError(f"mix.sources: no weight for {', '.join(missing)}; give one to all or to none")
        return self


class CorpusConfig(Section):
    """All steps of a corpus."""

    reading: ReadingConfig = ReadingConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    mix: MixConfig = MixConfig()
    seed: int = Field(default=42, ge=0, description="of everything that is drawn")
