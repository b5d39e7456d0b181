"""What a tokenizer does not know of a record: how many tokens, and which characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row


def unknown_tokens(rows: Sequence[Row], text: str, tokenizer: Tokenizer) -> int:
    """How many tokens of the rows are unknown.

    Blanks do not count: where each character is a token, a vocabulary without a blank has them all unknown, and is none
    the worse for it.

    Args:
        rows: those without offsets, as pairs have, have their blanks counted too.
        text: what the rows' offsets count in.
    """
    return sum(
        token == tokenizer.unk_id and not text[start:end].isspace()
        for row in rows
        for token, (start, end) in zip_longest(row.inputs["input_ids"], row.offsets, fillvalue=(0, 0))
    )


def unknown_characters(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    """How often each character comes that is unknown by itself; blanks aside."""
    found = Counter("".join(texts))
    return Counter(
        {
            character: count
            for character, count in found.items()
            if not character.isspace()
            and tokenizer.encode(character, characters=True).ids == [tokenizer.unk_id]
        }
    )
