"""New tokens for a model that has learned without them; what it says of texts without them stays as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import AddedToken
from torch import Tensor

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.vocabulary import set_word_embeddings
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress

if TYPE_CHECKING:
    from wenmai.backbones.load import Backbone

CHECKED = 32
"""How many texts of its own a check makes from the vocabulary."""
AT_ONCE = 16
"""Texts of a check that go through the model together."""
TOKENIZED_AT_ONCE = 256


@dataclass(frozen=True)
class NewToken:
    """A token to add.

    Args:
        text: as it stands in texts; found there before all else, exactly so.
        like: words that mean about the same; its row is the mean of theirs. None: of its own old pieces.
        special: transformers leaves it out where it decodes without special tokens. Read in texts all the same.
        whole_word: only where no letter, digit or Chinese character touches it.
    """

    text: str
    like: tuple[str, ...] = ()
    special: bool = False
    whole_word: bool = False


@dataclass(frozen=True)
class Added:
    """What became of a new token.

    Args:
        id: its number.
        sources: old ids whose mean its row is.
        pieces: these as tokens; none if the old vocabulary knows nothing of it, and its row is the mean of all.
    """

    text: str
    id: int
    sources: list[int]
    pieces: list[str]


def extend_vocabulary(
    backbone: Backbone, tokenizer: Tokenizer, tokens: Sequence[NewToken]
) -> tuple[Tokenizer, list[Added]]:
    """Makes the model one of a larger vocabulary, in place; the tokenizer that was given stays as it is.

    Returns:
        the larger tokenizer, and the tokens that the old one did not have.

    Raises:
        UserError: a token is empty or there twice, none of them is new, or what it is to start from is unknown.
    """
    known: dict[str, int] = tokenizer.pretrained.get_vocab()
    texts = [token.text for token in tokens]
    for text, count in Counter(texts).items():
        if not text or text != text.strip():
            raise UserError(f"new token {text!r}: is blank, or begins or ends with a blank; write it without")
        if count > 1:
            raise UserError(f"new token {text!r}: is given {count} times; name it once")
    fresh = [token for token in tokens if token.text not in known]
    if not fresh:
        raise UserError(
            f"all of {', '.join(texts[:10])} are in the vocabulary already; there is nothing to add"
        )
    sources = [_sources(tokenizer, token) for token in fresh]
    pretrained = deepcopy(tokenizer.pretrained)
    for token in fresh:
        pretrained.add_tokens(
            [AddedToken(token.text, special=token.special, single_word=token.whole_word, normalized=False)],
            special_tokens=token.special,
        )
    larger = Tokenizer(pretrained, max_length=tokenizer.max_length, normalize=tokenizer.normalize)
    added = [
        Added(
            text=token.text,
            id=int(pretrained.convert_tokens_to_ids(token.text)),
            sources=ids or _ordinary(tokenizer),
            pieces=tokenizer.tokens(ids),
        )
        for token, ids in zip(fresh, sources, strict=True)
    ]
    set_word_embeddings(backbone, extended(backbone.word_embeddings.weight.detach(), added), larger)
    return larger, added


def extended(values_V: Tensor, added: Sequence[Added]) -> Tensor:
    """(V, ...) -> (V', ...): a row for each new token, the mean of its sources; the old ones as they were."""
    needed = max(one.id for one in added) + 1
    more = values_V.new_zeros((max(needed - len(values_V), 0), *values_V.shape[1:]))
    result = torch.cat([values_V, more])
    for one in added:
        result[one.id] = values_V[one.sources].float().mean(0).to(values_V.dtype)
    return result


def _sources(tokenizer: Tokenizer, token: NewToken) -> list[int]:
    nothing = tokenizer.special_ids | {tokenizer.unk_id}
    found = [
        i for text in token.like or (token.text,) for i in tokenizer.encode(text).ids if i not in nothing
    ]
    if not found and token.like:
        raise UserError(
            f"new token {token.text!r}: the vocabulary knows nothing of {', '.join(token.like)}; "
            "name other words that mean about the same"
        )
    return found


def _ordinary(tokenizer: Tokenizer) -> list[int]:
    return [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]


@dataclass(frozen=True)
class Checked:
    """What a check saw, as numbers of texts.

    Args:
        texts: that were compared.
        same: have the same ids.
        run: of these, went through both models, with the same hidden states to the last bit.
        changed: hold a new token, and so have other ids.
    """

    texts: int
    same: int
    run: int
    changed: int


@torch.no_grad()
def check_unchanged(
    before: tuple[Backbone, Tokenizer],
    after: tuple[Backbone, Tokenizer],
    added: Sequence[Added],
    texts: Iterable[str] = (),
    *,
    run: int = 64,
    progress: Progress = SILENT,
) -> Checked:
    """Compares ids and hidden states of texts without new tokens.

    Args:
        texts: beside those that are made from the vocabulary; gone through once.
        run: so many of them, the first ones, go through the models as well.

    Raises:
        UserError: a text without new tokens has other ids or other hidden states; names it.
    """
    made = _texts_of(before[1], added)
    left = len(made) + run
    seen = same = through = 0
    rest = chain([made], _parts(texts))
    with progress.task("comparing with the model before", None, "texts") as step:
        for part in rest:
            seen += len(part)
            unchanged = _unchanged(part, before[1], after[1], added)
            same += len(unchanged)
            for first in range(0, min(left, len(unchanged)), AT_ONCE):
                rows = unchanged[first : min(first + AT_ONCE, left)]
                _compare_states(rows, before, after[0])
                through += len(rows)
            left -= min(left, len(unchanged))
            step.advance(len(part))
    return Checked(seen, same, through, seen - same)


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while part := list(islice(rest, TOKENIZED_AT_ONCE)):
        yield part


def _unchanged(
    texts: Sequence[str], before: Tokenizer, after: Tokenizer, added: Sequence[Added]
) -> list[tuple[str, list[int]]]:
    """The texts with the same ids and offsets, and these ids.

    Raises:
        UserError: others hold no new token.
    """
    found = []
    for text, old, new in zip(texts, before.encode_batch(texts), after.encode_batch(texts), strict=True):
        if old == new:
            found.append((text, old.ids))
        elif not any(one.text in text for one in added):
            raise _differs(text, "has other tokens")
    return found


def _compare_states(
    rows: Sequence[tuple[str, list[int]]], before: tuple[Backbone, Tokenizer], after: Backbone
) -> None:
    backbone, tokenizer = before
    single = tokenizer.single
    ids = [
        (single.before + ids + single.after)[: tokenizer.max_length] or [tokenizer.pad_id] for _, ids in rows
    ]
    batch = _batch(ids, tokenizer.pad_id)
    for (text, _), old_TH, new_TH in zip(rows, backbone(batch), after(batch), strict=True):
        if not torch.equal(old_TH, new_TH):
            raise _differs(text, "has other hidden states")


def _batch(rows: Sequence[list[int]], pad_id: int) -> dict[str, Tensor]:
    length = max(map(len, rows))
    ids_BT = torch.full((len(rows), length), pad_id)
    mask_BT = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = torch.tensor(row)
        mask_BT[i, : len(row)] = 1
    return {"input_ids": ids_BT, "attention_mask": mask_BT}


def _texts_of(tokenizer: Tokenizer, added: Sequence[Added]) -> list[str]:
    """Texts of tokens drawn from the vocabulary, without new tokens."""
    rng = np.random.default_rng(0)
    drawn = [
        str(tokenizer.pretrained.decode(rng.choice(tokenizer.ordinary_ids, 30).tolist()))
        for _ in range(CHECKED)
    ]
    return [text for text in drawn if not any(one.text in text for one in added)]


def _differs(text: str, how: str) -> UserError:
    return UserError(
        f"the text {text!r} holds none of the new tokens, but {how} than before; nothing is written. "
        "The tokenizer changes texts before it looks for tokens: choose other new tokens"
    )
