"""A score for every span of tokens and every label: nested and overlapping spans without tags."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenmai.heads.divergence import sigmoid_divergence
from wenmai.heads.head import IGNORE, RARE, Head, Outputs, linear, widened

MASKED = -1e4
"""Score of what is no span: finite also in half precision, with exp(score) exactly 0."""

ROTARY_BASE = 10000.0

FEWEST_KEPT = 100
"""So many spans, or triples, of a row are kept at least, however short it is."""


class GlobalPointerHead(Head):
    """GlobalPointer and Efficient GlobalPointer (Su et al. 2022, arXiv:2208.03054).

    The score of the span i..j for a label is ``q_i · k_j / √D``, where q and k are linear in the hidden
    states and turned by their positions (RoPE, Su et al. 2021), so that the score knows the length of the
    span. The plain form has a q and a k for every label; the efficient one shares them and adds a score of
    the label for the first and for the last token: about L times fewer weights, and better with many labels
    or little data. Labels begin as rare as they are.

    Outputs:
        ``logits`` (B, L, T, T), from the first to the last token, both inclusive; ``MASKED`` where the last
        comes before the first or either is padding. Above 0 means: a span.

    Targets:
        ``spans`` (B, N, 3) of first token, last token (inclusive) and label id, padded with IGNORE;
        repetitions count once. The loss is the multi-label cross-entropy of Su (2020), ``log(1 + Σ exp(s)) +
        log(1 + Σ exp(-s))`` with the first sum over what is no gold span and the second over the gold spans,
        for every row and label; the count is rows x labels. Special tokens are ordinary negatives.

    There is no label smoothing: the loss compares scores with 0, so there is no target to take a share from,
    and a share for each of T² spans would outweigh the few gold ones. Nor is there a focal loss: the sums
    inside the logarithms already let the worst spans count most.

    The divergence of two passes takes each span for a yes or no of its own, ``¼ (σ(s1) - σ(s2))(s1 - s2)``,
    summed over the spans of every row and label; what is masked is equal in both passes and adds nothing.

    Args:
        hidden_size: H.
        labels: L.
        head_size: D, even.
        rotary: whether positions turn q and k; without it no score knows how far apart i and j are.
        efficient: see above.
        dropout: rate on the hidden states, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"logits": (2, 3)}

    def __init__(
        self,
        hidden_size: int,
        labels: int,
        *,
        head_size: int = 64,
        rotary: bool = True,
        efficient: bool = True,
        dropout: float,
    ):
        super().__init__()
        if head_size % 2:
            raise ValueError(
                f"head_size is {head_size}; it must be even, since positions turn pairs of dimensions"
            )
        self.head_size = head_size
        self.rotary = rotary
        self.pointers = 1 if efficient else labels
        self.dropout = nn.Dropout(dropout)
        self.query_key = linear(hidden_size, self.pointers * 2 * head_size)
        self.ends = linear(2 * head_size, 2 * labels, expected=RARE) if efficient else None

    def factors(self, hidden_BTH: Tensor) -> Tensor:
        """What the scores of the efficient form are made of, (B, T, 2 D + 2 L): see :func:`factors_of`."""
        assert self.ends is not None, "only the efficient form has factors"
        projected = self.query_key(self.dropout(hidden_BTH))
        query, key = projected.chunk(2, dim=-1)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        return torch.cat([query, key, self.ends(projected)], dim=-1)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        projected = self.query_key(self.dropout(hidden_BTH))
        both = projected.unflatten(-1, (self.pointers, 2 * self.head_size)).transpose(1, 2)
        query, key = both.chunk(2, dim=-1)  # (B, L or 1, T, D)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        scores_BLTT = query @ key.transpose(-1, -2) / self.head_size**0.5
        if self.ends is not None:
            first_BLT, last_BLT = self.ends(projected).transpose(1, 2).chunk(2, dim=1)
            scores_BLTT = scores_BLTT + first_BLT[..., :, None] + last_BLT[..., None, :]
        real_BT = mask_BT.bool()
        position_T = torch.arange(mask_BT.size(1), device=mask_BT.device)
        span_BTT = (position_T[:, None] <= position_T) & real_BT[:, :, None] & real_BT[:, None, :]
        return {"logits": scores_BLTT.masked_fill(~span_BTT[:, None], MASKED)}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        logits_BLTT = outputs["logits"]
        return span_loss(logits_BLTT, batch["spans"]), logits_BLTT.size(0) * logits_BLTT.size(1)

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        return sigmoid_divergence(first["logits"], second["logits"]).sum()


def rotate(vectors: Tensor) -> Tensor:
    """Turns pairs of dimensions of (..., T, D) by their position: dot products then know distances (RoPE)."""
    tokens, width = vectors.shape[-2:]
    wide = widened(vectors)
    pair = torch.arange(width // 2, device=wide.device, dtype=wide.dtype)
    position = torch.arange(tokens, device=wide.device, dtype=wide.dtype)
    angle = position[:, None] * ROTARY_BASE ** (-2 * pair / width)
    cosine, sine = angle.cos(), angle.sin()
    left, right = wide.chunk(2, dim=-1)
    turned = torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)
    return turned.to(vectors.dtype)


def span_loss(logits_BLTT: Tensor, spans_BN3: Tensor) -> Tensor:
    """The multi-label cross-entropy of :class:`GlobalPointerHead`, summed over rows and labels.

    The gold spans are gathered and overwritten in one copy of the logits: no dense targets.
    """
    logits_BLTT = widened(logits_BLTT)
    first_BN, last_BN, label_BN = spans_BN3.clamp(min=0).unbind(dim=-1)
    gold_BN = spans_BN3[..., 2] != IGNORE
    same_BNN = (spans_BN3[:, :, None] == spans_BN3[:, None]).all(dim=-1)
    gold_BN = gold_BN & ~same_BNN.tril(diagonal=-1).any(dim=-1)
    row_BN = torch.arange(gold_BN.size(0), device=gold_BN.device)[:, None].expand_as(gold_BN)
    at_M = (row_BN[gold_BN], label_BN[gold_BN], first_BN[gold_BN], last_BN[gold_BN])

    masked = logits_BLTT.new_tensor(MASKED)
    wrong_BL = logits_BLTT.index_put(at_M, masked).flatten(2).logsumexp(dim=-1)
    labels_L = torch.arange(logits_BLTT.size(1), device=gold_BN.device)
    mine_BLN = gold_BN[:, None] & (label_BN[:, None] == labels_L[:, None])
    missed_BN = -logits_BLTT[row_BN, label_BN, first_BN, last_BN]
    missed_BL = torch.where(mine_BLN, missed_BN[:, None], masked).logsumexp(dim=-1)
    zero = torch.zeros_like(wrong_BL)
    return (torch.logaddexp(wrong_BL, zero) + torch.logaddexp(missed_BL, zero)).sum()


def decode_spans(
    logits_LTT: NDArray[np.floating], threshold: float = 0.0
) -> list[tuple[int, int, int, float]]:
    """The spans that score above the threshold, in order of first token, last token, label.

    A row of T tokens keeps its T best, ``FEWEST_KEPT`` if that is more: a trained model finds fewer, an untrained one
    half of all L T² / 2.

    Args:
        logits_LTT: one row of :class:`GlobalPointerHead`'s output.
        threshold: 0 is where training puts the border; higher gives fewer and surer spans.

    Returns:
        (first token, last token inclusive, label id, score).
    """
    at_M3 = np.argwhere(logits_LTT > threshold)
    most = max(FEWEST_KEPT, logits_LTT.shape[-1])
    if len(at_M3) > most:
        at_M3 = at_M3[np.argsort(-logits_LTT[tuple(at_M3.T)], kind="stable")[:most]]
    spans = [
        (int(first), int(last), int(label), float(logits_LTT[label, first, last]))
        for label, first, last in at_M3
    ]
    return sorted(spans)
