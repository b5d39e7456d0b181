"""Texts continued token by token, keys and values of past tokens kept.

Prompts of equal length go together, so there is no padding on the left for which positions and masks would have to be
put right; a text's draws depend on its own ids and the seed only, so its batch changes nothing.

Shape letters: B texts, T tokens, V pieces of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.tasks.generation import Generation
from wenmai.tasks.model import Model


@torch.inference_mode()
def continuations(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Generation,
    *,
    tokens_per_batch: int,
) -> list[list[int]]:
    """The ids that follow each prompt, without the end of the text.

    A prompt that leaves no room for ``max_new_tokens`` among the model's positions loses its beginning.

    Args:
        model: a decoder with a :class:`wenmai.heads.causal_lm.CausalLMHead`.
        prompts: their ids, at least one each.
        tokens_per_batch: budget of a batch, what is to be written counted.
    """
    new = min(settings.max_new_tokens, tokenizer.max_length - 1)
    kept = [list(prompt[-(tokenizer.max_length - new) :]) for prompt in prompts]
    order = sorted(range(len(kept)), key=lambda i: len(kept[i]))
    found: list[list[int]] = [[] for _ in prompts]
    for length, same in groupby(order, key=lambda i: len(kept[i])):
        places = list(same)
        size = max(1, tokens_per_batch // (length + new))
        for first in range(0, len(places), size):
            batch = places[first : first + size]
            draws = [np.random.default_rng([settings.seed, *prompts[i]]) for i in batch]
            written = _write(model, tokenizer, [kept[i] for i in batch], draws, new, settings)
            for i, ids in zip(batch, written, strict=True):
                found[i] = ids
    return found


def _write(
    model: Model,
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    draws: list[np.random.Generator],
    new: int,
    settings: Generation,
) -> list[list[int]]:
    assert isinstance(model.head, CausalLMHead)
    ends = set(tokenizer.document_ends[1][:1])
    ids_BT = torch.tensor(prompts, device=next(model.parameters()).device)
    written: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    past: Any = None
    for _ in range(new):
        hidden_BTH, past = model.backbone.step(ids_BT, past)
        chosen_B = _choose(model.head.logits(hidden_BTH[:, -1]), draws, settings)
        for i in list(going):
            if chosen_B[i] in ends:
                going.remove(i)
            else:
                written[i].append(int(chosen_B[i]))
        if not going:
            break
        ids_BT = torch.tensor(chosen_B, device=ids_BT.device)[:, None]
    return written


def _choose(
    logits_BV: Tensor, draws: Sequence[np.random.Generator], settings: Generation
) -> NDArray[np.int64]:
    """One id a row."""
    if settings.temperature == 0:
        likeliest: NDArray[np.int64] = logits_BV.argmax(dim=-1).cpu().numpy()
        return likeliest
    p_BV = (logits_BV.double() / settings.temperature).softmax(dim=-1).cpu().numpy()
    order_BV = np.argsort(-p_BV, axis=1, kind="stable")
    sums_BV = np.take_along_axis(p_BV, order_BV, axis=1).cumsum(axis=1)
    # the first pieces that reach top_p together, at least one
    count_B = np.minimum((sums_BV < settings.top_p).sum(axis=1) + 1, p_BV.shape[1])
    at = np.arange(len(p_BV))
    mass_B = sums_BV[at, count_B - 1]
    wanted_B = np.array([rng.random() for rng in draws]) * mass_B
    place_B = np.minimum((sums_BV <= wanted_B[:, None]).sum(axis=1), count_B - 1)
    chosen_B: NDArray[np.int64] = order_BV[at, place_B]
    return chosen_B
