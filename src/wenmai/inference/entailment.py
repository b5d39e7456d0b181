"""Labels by natural language inference: how far a text entails a sentence that says that a label fits it.

Yin et al. (2019), "Benchmarking zero-shot text classification" (https://arxiv.org/abs/1909.00161): the text is the
premise, a template with the label in it the hypothesis. Shape letters: N texts, L labels, C classes of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import Batch, Row
from wenmai.errors import UserError
from wenmai.inference.engine import mean_of_rows
from wenmai.tasks.text_matching import pair_row
from wenmai.tasks.windows import window_bounds

OVERLAP = 32
SLOT = "{}"
"""Where the label goes in a template."""

ENTAILS = ("entail", "蕴含", "蕴涵")
CONTRADICTS = ("contradict", "not_entail", "non_entail", "not entail", "矛盾")
"""Beginnings of the names that such classes have."""


@dataclass(frozen=True)
class PairJudge:
    """A model that takes a pair of texts to the logits of its classes.

    Args:
        classes: their names, in the order of the logits.
        logits: a batch of rows -> (B, C).
        max_length: tokens of a row, special tokens included.
    """

    tokenizer: Tokenizer
    classes: Sequence[str]
    logits: Callable[[Batch], Tensor]
    max_length: int
    device: str


def entails_and_contradicts(classes: Sequence[str]) -> tuple[int, int] | None:
    """Which class says that the second text follows from the first, and which that it does not; None: there is no such
    pair of classes.

    Where no name says contradiction, the other of two classes is it.
    """
    entails = _index(classes, ENTAILS)
    contradicts = _index(classes, CONTRADICTS)
    if entails is None or (contradicts is None and len(classes) != 2):
        return None
    return entails, 1 - entails if contradicts is None else contradicts


def _index(classes: Sequence[str], beginnings: tuple[str, ...]) -> int | None:
    found = [i for i, name in enumerate(classes) if name.strip().lower().startswith(beginnings)]
    return found[0] if len(found) == 1 else None


def entailment_logits(
    judge: PairJudge, texts: Sequence[str], words: Sequence[str], template: str
) -> NDArray[np.float64]:
    """(N, L, 2), the logits of contradiction and entailment.

    A text that is longer than a row is read to its end in windows, each beside the whole hypothesis; their logits are
    averaged.

    Args:
        words: what stands for each label in the hypothesis.
        template: the hypothesis, with :data:`SLOT` for the word.

    Raises:
        UserError: a hypothesis leaves no room for the text.
    """
    found = entails_and_contradicts(judge.classes)
    assert found is not None, "the model was opened as one for inference"
    entails, contradicts = found
    premises = judge.tokenizer.encode_batch(texts)
    hypotheses = judge.tokenizer.encode_batch([template.replace(SLOT, word) for word in words])
    rows = [
        _windows(premise, hypothesis, judge, word)
        for premise in premises
        for hypothesis, word in zip(hypotheses, words, strict=True)
    ]
    logits = mean_of_rows(rows, judge.logits, judge.tokenizer.pad_id, judge.device)
    return logits[:, [contradicts, entails]].reshape(len(texts), len(words), 2)


def _windows(premise: Encoding, hypothesis: Encoding, judge: PairJudge, word: str) -> list[Row]:
    alone = len(pair_row(Encoding([], []), hypothesis, judge.tokenizer, max_length=len(hypothesis) + 8))
    room = judge.max_length - alone
    if room < 1:
        raise UserError(
            f"candidate_labels: the hypothesis with {word!r} has {len(hypothesis)} tokens, which leaves no room for a "
            f"text in the {judge.max_length} tokens of this model: take a shorter word or hypothesis_template"
        )
    return [
        pair_row(premise.slice(start, stop), hypothesis, judge.tokenizer, max_length=judge.max_length)
        for start, stop in window_bounds(len(premise), room, min(OVERLAP, room // 4))
    ]
