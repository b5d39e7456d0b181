"""Single pieces of a vocabulary as people write and read them: masks in a text, a word to its id, an id to its text."""

from __future__ import annotations

import re

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.errors import UserError

MASK = "[MASK]"
"""What may be written for a mask whatever the tokenizer calls it."""


def encode_with_masks(text: str, tokenizer: Tokenizer) -> tuple[Encoding, list[int]]:
    """The tokens of a text in which someone wrote masks, and which of them are masks.

    A mask is the tokenizer's own mask token (``<mask>`` in XLM-R) or ``[MASK]``.

    Returns:
        the encoding, with offsets into ``text``, and the indices of the masks in it.

    Raises:
        UserError: the tokenizer has no mask token.
    """
    own = mask_token(tokenizer)
    renamed = own != MASK and MASK in text
    encoding = _encode_replaced(text, own, tokenizer) if renamed else tokenizer.encode(text)
    return encoding, [i for i, token in enumerate(encoding.ids) if token == tokenizer.mask_id]


def mask_token(tokenizer: Tokenizer) -> str:
    """How the tokenizer writes its mask.

    Raises:
        UserError: it has none.
    """
    if tokenizer.mask_id is None:
        raise UserError("masked_lm needs a tokenizer with a mask token, this backbone's has none")
    return str(tokenizer.pretrained.mask_token)


def _encode_replaced(text: str, own: str, tokenizer: Tokenizer) -> Encoding:
    """The text with the tokenizer's own mask for each ``[MASK]``; ranges are those of ``text``."""
    place: list[int] = []  # character of the new text -> character of the old one
    parts: list[str] = []
    at = 0
    for found in re.finditer(re.escape(MASK), text):
        parts += [text[at : found.start()], own]
        place += [*range(at, found.start()), *[found.start()] * len(own)]
        at = found.end()
    place += range(at, len(text) + 1)
    encoding = tokenizer.encode("".join([*parts, text[at:]]))
    # a mask is a token of its own, so no range begins or ends inside one
    return Encoding(encoding.ids, [(place[start], place[end]) for start, end in encoding.offsets])


def single_piece(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is one piece of the vocabulary; the vocabulary's own spelling (``##ing``) is taken too.

    Raises:
        UserError: it is several pieces, none, or a special token.
    """
    exact = tokenizer.pretrained.convert_tokens_to_ids(text)
    ids = [exact] if exact not in (None, tokenizer.unk_id) else tokenizer.encode(text).ids
    if len(ids) == 1 and ids[0] not in tokenizer.special_ids:
        return int(ids[0])
    reason = (
        f"is {len(ids)} tokens of this model ({', '.join(tokenizer.tokens(ids))}), and a mask stands for one"
        if len(ids) > 1
        else "is no token of this model's vocabulary"
    )
    raise UserError(f"targets: {text!r} {reason}: give single tokens (for Chinese, single characters)")


def piece_text(token: int, tokenizer: Tokenizer) -> str:
    """What a piece adds to a text: without word marks (``▁``, ``Ġ``) and the mark of a continued word (``##``)."""
    written: str = tokenizer.pretrained.decode([token], clean_up_tokenization_spaces=False)
    return written.strip().removeprefix("##") or written
