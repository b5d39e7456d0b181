"""Loss, perplexity and accuracy of predicted tokens, over all tokens and not over batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wenmai.metrics.scores import CountScores, ratio

LARGEST_EXPONENT = 700.0
"""Perplexity stops at e^700, just below what a double can hold: infinity is not JSON."""


def language_model_scores(
    loss_sums: ArrayLike,
    token_counts: ArrayLike,
    right_counts: ArrayLike,
    characters: ArrayLike | None = None,
) -> CountScores:
    """``loss``, ``negative_loss``, ``perplexity`` and ``accuracy`` over all predicted tokens.

    loss = sum of losses / number of tokens, in nats; perplexity = e^loss (Jelinek et al. 1977), over masked
    tokens a pseudo-perplexity. ``negative_loss`` = -loss is the same measure with higher being better.
    Without a token the loss and the accuracy are 0.0 and the perplexity is 1.0. A loss that is NaN stays NaN:
    training has diverged.

    Args:
        loss_sums: of each example, the sum of -log p over its predicted tokens.
        token_counts: how many tokens these are.
        right_counts: how many of them got their highest probability.
        characters: of each example, where every token is predicted: then there is ``bits_per_character`` too, the loss
            by character and in bits, which compares models of different vocabularies.
    """
    given = (loss_sums, token_counts, right_counts, *(() if characters is None else (characters,)))
    columns = [np.asarray(column, dtype=np.float64) for column in given]
    return CountScores(np.stack(columns, axis=1), _summary)


def _summary(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    loss = ratio(sums[..., 0], sums[..., 1])
    found = {
        "loss": loss,
        "negative_loss": 0.0 - loss,
        "perplexity": np.exp(np.minimum(loss, LARGEST_EXPONENT)),
        "accuracy": ratio(sums[..., 2], sums[..., 1]),
    }
    if sums.shape[-1] == 4:
        found["bits_per_character"] = ratio(sums[..., 0], sums[..., 3]) / np.log(2)
    return found
