"""Labels by a prompt: how likely a masked language model finds a label's characters in the blanks of a sentence.

Schick and Schütze (2021), "Exploiting cloze questions for few shot text classification"
(https://arxiv.org/abs/2001.07676), without any training. A model finds some words likelier than others whatever the
text, so scores may be taken relative to those of the prompt without a text (Holtzman et al. 2021, "Surface form
competition", https://arxiv.org/abs/2104.08315), or to their mean over unlabelled texts (Zhou et al. 2023, "Batch
calibration", https://arxiv.org/abs/2309.17249).

Shape letters: N texts, L labels, K masks, V vocabulary, B rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenmai.backbones.tokenizer import METASPACE, Encoding, Tokenizer
from wenmai.backbones.written_tokens import MASK, encode_with_masks, mask_token
from wenmai.data.rows import IGNORE, Batch, Row
from wenmai.errors import UserError
from wenmai.heads.masked_lm import ASKED
from wenmai.inference.engine import mean_of_rows
from wenmai.tasks.windows import window_bounds, window_rows

OVERLAP = 32
SLOT = "{}"
"""Where the text goes in a prompt."""


@dataclass(frozen=True)
class Cloze:
    """A masked language model.

    Args:
        logits: a batch of rows and the tokens to guess, booleans (B, T) -> (M, V), row by row.
        max_length: tokens of a row, special tokens included.
    """

    tokenizer: Tokenizer
    logits: Callable[[Batch, Tensor], Tensor]
    max_length: int
    device: str


def with_blanks(prompt: str, tokenizer: Tokenizer) -> str:
    """The prompt with ``[MASK]`` for each mask, also where it has the tokenizer's own.

    Raises:
        UserError: it has none, or not exactly one place for the text.
    """
    if prompt.count(SLOT) != 1:
        raise UserError(
            f"prompt: {prompt!r} has {prompt.count(SLOT)} places for the text: write {SLOT} where it goes, once"
        )
    written = prompt.replace(mask_token(tokenizer), MASK)
    if MASK not in written:
        raise UserError(f"prompt: {prompt!r} has no place for the label: write {MASK} where it goes")
    return written


def cloze_log_probabilities(
    cloze: Cloze, texts: Sequence[str], words: Sequence[str], prompt: str
) -> NDArray[np.float64]:
    """(N, L), the mean log-probability of a word's tokens, each at its own mask with all masks hidden.

    One mask stands for words of any number of tokens: it is repeated, so that words of one length are asked for
    together. Of several masks each stands for one token. A text that is longer than a row is read to its end in
    windows, each inside the whole prompt; their log-probabilities are averaged.

    Args:
        words: what stands for each label at the masks.
        prompt: with :data:`SLOT` for the text and ``[MASK]`` for the label.

    Raises:
        UserError: the prompt lacks one of both, a word is not in the vocabulary, has another number of tokens than
            the prompt has masks, or the prompt leaves no room for the text.
    """
    prompt = with_blanks(prompt, cloze.tokenizer)
    masks = prompt.count(MASK)
    ids = [_ids(word, cloze.tokenizer) for word in words]
    for word, tokens in zip(words, ids, strict=True):
        if masks > 1 and len(tokens) != masks:
            raise UserError(
                f"candidate_labels: {word!r} has {len(tokens)} tokens, but the prompt {prompt!r} has {masks} masks: "
                f"write one {MASK}, which stands for words of any length, or take words of {masks} tokens"
            )
    found_NL = np.zeros((len(texts), len(words)))
    for length in sorted({len(tokens) for tokens in ids}):
        chosen = [i for i, tokens in enumerate(ids) if len(tokens) == length]
        written = prompt if masks > 1 else prompt.replace(MASK, MASK * length)
        rows = [_windows(text, written, cloze) for text in texts]
        if not rows:
            continue
        ids_LK = torch.tensor([ids[i] for i in chosen], device=cloze.device)
        found_NL[:, chosen] = mean_of_rows(
            rows, _word_scores(cloze, ids_LK), cloze.tokenizer.pad_id, cloze.device
        )
    return found_NL


def _word_scores(cloze: Cloze, ids_LK: Tensor) -> Callable[[Batch], Tensor]:
    """A batch of rows with K masks each -> (B, L)."""
    masks = ids_LK.size(1)

    def scores(batch: Batch) -> Tensor:
        asked_BT = batch["original"] == ASKED
        log_MV = cloze.logits(batch, asked_BT).float().log_softmax(dim=-1)
        log_BKV = log_MV.view(-1, masks, log_MV.size(1))
        return log_BKV[:, torch.arange(masks, device=ids_LK.device), ids_LK].mean(dim=-1)

    return scores


def _ids(word: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a word as they are inside a sentence: without the mark of a word's beginning, if there is a choice.

    Raises:
        UserError: a part of it is not in the vocabulary.
    """
    ids = list(tokenizer.encode(word).ids)
    if ids and (piece := tokenizer.tokens(ids[:1])[0]).startswith(METASPACE):
        inside = tokenizer.pretrained.convert_tokens_to_ids(piece.removeprefix(METASPACE))
        ids[0] = ids[0] if inside in (None, tokenizer.unk_id) else int(inside)
    if not ids or tokenizer.special_ids.intersection(ids) or tokenizer.unk_id in ids:
        raise UserError(
            f"candidate_labels: {word!r} can't be written with this model's vocabulary: give the label another word, "
            f"{{{word!r}: 'WORD'}}"
        )
    return ids


def _windows(text: str, prompt: str, cloze: Cloze) -> list[Row]:
    """The prompt around each window of the text, with the target ``original``: ASKED at the prompt's masks."""
    before, after = prompt.split(SLOT)
    encoding, masks = encode_with_masks(before + text + after, cloze.tokenizer)
    starts = [start for start, _ in encoding.offsets]
    first, stop = (bisect_left(starts, place) for place in (len(before), len(before) + len(text)))
    asked = {mask for mask in masks if not first <= mask < stop}  # those in the text are the user's
    template = cloze.tokenizer.single
    room = cloze.max_length - len(template.before) - len(template.after) - len(encoding) + (stop - first)
    if room < 1:
        raise UserError(
            f"prompt: {prompt!r} leaves no room for a text in the {cloze.max_length} tokens of this model: take a "
            "shorter one"
        )
    rows = []
    for begin, end in window_bounds(stop - first, room, min(OVERLAP, room // 4)):
        kept = [*range(first), *range(first + begin, first + end), *range(stop, len(encoding))]
        part = Encoding([encoding.ids[i] for i in kept], [encoding.offsets[i] for i in kept])
        (row,) = window_rows(part, cloze.tokenizer, max_length=cloze.max_length, overlap=0)
        original = [IGNORE] * len(row)
        for at, i in enumerate(kept, row.content[0]):
            if i in asked:
                original[at] = ASKED
        row.targets["original"] = original
        rows.append(row)
    return rows
