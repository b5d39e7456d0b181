"""What a token is to a task that answers with places: a piece of the vocabulary, or one character."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wenmai.backbones.tokenizer import Tokenizer

TokenChoice = Annotated[
    Literal["auto", "characters", "pieces"],
    Field(description="auto: characters where the tokenizer's pieces span several of them"),
]
"""A key of the configuration."""


def by_character(choice: TokenChoice, tokenizer: Tokenizer) -> bool:
    """Whether each character is a token; see :meth:`Tokenizer.encode`."""
    return choice == "characters" or (choice == "auto" and tokenizer.pieces_span_characters)
