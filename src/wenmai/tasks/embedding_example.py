"""What a record of text embeddings looks like, and which record serves which end."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from wenmai.heads.contrastive import Objective
from wenmai.heads.pooling import Pooling
from wenmai.tasks.task import Example, TaskConfig

EvaluateOn = Literal["retrieval", "similarity", "pairs"]


class TextEmbeddingExample(Example):
    """``{"anchor", "positive", "negatives"}``, ``{"text", "text_pair", "score"}``, or to embed: ``{"text"}``."""

    anchor: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    text: str | None = None
    text_pair: str | None = None
    score: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = self.anchor is not None and self.positive is not None
        triple = given and self.text is None and self.text_pair is None
        pair = self.text is not None and self.anchor is None and self.positive is None and not self.negatives
        if not triple and not pair:
            raise ValueError(
                "needs either 'anchor' and 'positive' (and 'negatives'), or 'text' (and 'text_pair', 'score')"
            )
        return self

    @property
    def texts(self) -> list[str]:
        given = [self.anchor, self.positive, *self.negatives, self.text, self.text_pair]
        return [text for text in given if text is not None]

    @property
    def scored(self) -> bool:
        """Whether it is a pair with a score."""
        return self.text_pair is not None and self.score is not None

    @property
    def labelled(self) -> bool:
        return self.anchor is not None or self.scored

    @property
    def learnable(self) -> bool:
        return True  # by simcse; the other objectives refuse what they can't use

    @property
    def length(self) -> int:
        return max(len(text) for text in self.texts)


class UnlabelledTexts(TextEmbeddingExample):
    """The texts of a record of whatever task, for what does not look at labels: other fields are passed over."""

    model_config = ConfigDict(extra="ignore")


class TextEmbeddingConfig(TaskConfig):
    name: Literal["text_embedding"] = "text_embedding"
    max_length: int = Field(default=128, ge=8)
    objective: Objective = Field(
        default="infonce",
        description="infonce: the positive among all texts of the step; simcse: the text itself with other dropout; "
        "cosent: pairs in the order of their scores; cosine: a pair's cosine is its score; triplet: the positive "
        "nearer than the record's negatives",
    )
    temperature: float = Field(default=0.05, gt=0, description="of infonce, simcse and cosent")
    margin: float = Field(default=0.2, gt=0, le=2, description="triplet: by how much of cosine")
    positive_score: float = Field(
        default=1.0,
        description="pairs with a score of at least this belong together: infonce's positives, and gold of "
        "evaluate_on: pairs",
    )
    score_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="cosine: the scores that mean cosines of 0 and 1"
    )
    pooling: Pooling = "mean"
    prefix: str = Field(
        default="", description="put before every text, as the backbone was trained ('query: ')"
    )
    widths: list[int] = Field(
        default=[],
        description="Matryoshka: the loss is that of the first so many numbers of every vector, for each of these",
    )
    width_weights: list[float] = Field(default=[], description="of the widths' losses; default: 1 each")
    width: int | None = Field(
        default=None,
        ge=1,
        description="numbers of a vector in evaluation and prediction, the first ones; default: the largest of widths, "
        "else all",
    )
    evaluate_on: Literal["auto", EvaluateOn] = Field(
        default="auto",
        description="retrieval: anchors find their positives; similarity: in the order of scores; pairs: which belong "
        "together; auto: retrieval for infonce and triplet, else similarity",
    )
    threshold: float | None = Field(
        default=None,
        description="evaluate_on: pairs: a pair belongs together if its cosine is above it; default: chosen on dev",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if any(width < 1 for width in self.widths) or len(set(self.widths)) < len(self.widths):
            raise ValueError(f"widths {self.widths}: expected different whole numbers from 1")
        if self.width_weights and len(self.width_weights) != len(self.widths):
            raise ValueError(
                f"width_weights has {len(self.width_weights)} numbers for {len(self.widths)} widths: give one each"
            )
        if any(weight <= 0 for weight in self.width_weights):
            raise ValueError(f"width_weights {self.width_weights}: expected numbers above 0")
        low, high = self.score_range
        if not low < high:
            raise ValueError(f"score_range [{low:g}, {high:g}]: expected the lower score first")
        if self.threshold is not None and self.evaluate_on != "pairs":
            raise ValueError("threshold needs evaluate_on: pairs")
        return self

    @property
    def kept_width(self) -> int | None:
        """How many numbers of a vector are kept; None: all."""
        return self.width or max(self.widths, default=None)

    @property
    def scored_by(self) -> EvaluateOn:
        if self.evaluate_on != "auto":
            return self.evaluate_on
        return "retrieval" if self.objective in ("infonce", "triplet") else "similarity"
