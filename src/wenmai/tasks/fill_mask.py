"""Texts that a masked language model is asked about: what belongs where the user wrote masks, or how likely it is.

A text with masks is read around them only: each is judged in the window where it stands farthest from a cut. A text
without masks is scored: every token is hidden once, in turns of ``mask_share`` of the tokens, as many at a time as the
model was trained to guess. That is a pseudo-likelihood like that of Salazar et al. (2020), who hide one token at a time
and so need a pass for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.backbones.written_tokens import encode_with_masks, piece_text, single_piece
from wenmai.data.rows import IGNORE, Row
from wenmai.heads.masked_lm import ASKED
from wenmai.tasks.task import Prediction, RowOutputs
from wenmai.tasks.windows import window_rows

TOP_K = 5


def prompt_rows(text: str, tokenizer: Tokenizer, *, max_length: int, mask_share: float) -> list[Row]:
    """Rows for the head's evaluation outputs, with the target ``original``: ASKED at the user's masks, or without
    any the id of every token in one of the rows.

    Args:
        max_length: most tokens in a row.
        mask_share: share of the tokens that are hidden at a time in a text without masks.

    Raises:
        UserError: the tokenizer has no mask token.
    """
    encoding, masks = encode_with_masks(text, tokenizer)
    if masks:
        return _rows_around(encoding, masks, tokenizer, max_length)
    turns = max(1, round(1 / mask_share))
    return [
        _hidden(row, turn, turns, tokenizer)
        for row in window_rows(encoding, tokenizer, max_length=max_length, overlap=0)
        for turn in range(max(1, min(turns, row.content[1] - row.content[0])))
    ]


def _rows_around(
    encoding: Encoding, masks: Sequence[int], tokenizer: Tokenizer, max_length: int
) -> list[Row]:
    rows = window_rows(encoding, tokenizer, max_length=max_length, overlap=max_length // 2)
    total = len(encoding)
    for row in rows:
        row.targets["original"] = [IGNORE] * len(row)

    def freedom(row: Row, mask: int) -> int:
        first, stop = row.window, row.window + row.content[1] - row.content[0]
        if not first <= mask < stop:
            return -1
        return min(mask - first if first > 0 else total, stop - 1 - mask if stop < total else total)

    for mask in masks:
        row = max(rows, key=lambda row: freedom(row, mask))
        original = row.targets["original"]
        assert isinstance(original, list)
        original[row.content[0] + mask - row.window] = ASKED
    return [row for row in rows if is_asked(row)]


def _hidden(row: Row, turn: int, turns: int, tokenizer: Tokenizer) -> Row:
    """The row with every ``turns``-th token hidden, from number ``turn`` on."""
    assert tokenizer.mask_id is not None, "encode_with_masks refuses tokenizers without a mask"
    ids, original = list(row.inputs["input_ids"]), [IGNORE] * len(row)
    first, stop = row.content
    for i in range(first + turn, stop, turns):
        original[i], ids[i] = ids[i], tokenizer.mask_id
    return Row(
        inputs={**row.inputs, "input_ids": ids},
        targets={"original": original},
        offsets=row.offsets,
        content=row.content,
        window=row.window,
    )


def is_asked(row: Row) -> bool:
    """Whether the row holds masks of the user."""
    original = row.targets["original"]
    return isinstance(original, list) and ASKED in original


def fillings(
    outputs: Sequence[RowOutputs],
    rows: Sequence[Row],
    text: str,
    tokenizer: Tokenizer,
    *,
    top_k: int,
    targets: Sequence[str] | None,
) -> Prediction:
    """What belongs where the masks are; each is judged by itself, with the others hidden.

    Args:
        outputs: per row ``asked_logits`` (N, V), of its masks in their order.
        rows: of :func:`prompt_rows`.
        text: the user's, with its masks.
        top_k: guesses a mask.
        targets: only these, each a single token; None: all tokens but the special ones.

    Returns:
        ``text``; ``filled``, with the best guess at every mask; ``masks``, for each ``start`` and ``end`` in the text
        and ``guesses``, the best first: ``token`` as the vocabulary spells it, its ``text``, ``score`` (probability
        among ALL tokens), and ``filled``, the text with this one mask replaced.

    Raises:
        UserError: a target is no single token.
    """
    if targets is None:
        candidates = np.setdiff1d(np.arange(tokenizer.vocab_size), np.array(sorted(tokenizer.special_ids)))
    else:
        candidates = np.unique([single_piece(target, tokenizer) for target in targets])
    masks: list[dict[str, Any]] = []
    for out, row in zip(outputs, rows, strict=True):
        original = row.targets["original"]
        assert isinstance(original, list)
        asked = [i for i, target in enumerate(original) if target == ASKED]
        for place, logits_V in zip(
            asked, out["asked_logits"], strict=False
        ):  # padded to the batch's most masks
            start, end = row.offsets[place]
            guesses = _guesses(logits_V, candidates, tokenizer, top_k)
            for guess in guesses:
                guess["filled"] = text[:start] + guess["text"] + text[end:]
            masks.append({"start": start, "end": end, "guesses": guesses})
    filled = text
    for mask in reversed(masks):
        filled = filled[: mask["start"]] + mask["guesses"][0]["text"] + filled[mask["end"] :]
    return {"text": text, "filled": filled, "masks": masks}


def _guesses(
    logits_V: NDArray[np.float32], candidates: NDArray[np.int64], tokenizer: Tokenizer, top_k: int
) -> list[dict[str, Any]]:
    exact_V = logits_V.astype(np.float64)
    probability_V = np.exp(exact_V - np.logaddexp.reduce(exact_V))
    best = candidates[np.argsort(-probability_V[candidates], kind="stable")[:top_k]]
    return [
        {"token": token, "text": piece_text(int(i), tokenizer), "score": round(float(probability_V[i]), 6)}
        for i, token in zip(best, tokenizer.tokens(best.tolist()), strict=True)
    ]
