"""Triples as pairs of pairs of tokens: entities, their first tokens and their last tokens, linked by predicates."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenmai.heads.divergence import sigmoid_divergence
from wenmai.heads.global_pointer import FEWEST_KEPT, GlobalPointerHead
from wenmai.heads.head import IGNORE, Head, Outputs
from wenmai.heads.pair_loss import Factors, dense, factors_of, pair_loss

SUBJECT_FIRST, SUBJECT_LAST, PREDICATE, OBJECT_FIRST, OBJECT_LAST, SUBJECT_TYPE, OBJECT_TYPE = range(7)
"""Columns of the target ``triples``."""

Floats = NDArray[np.floating]


class FoundTriple(NamedTuple):
    """A triple in tokens of a row: tokens inclusive, ids of predicate and types, score of its weakest part."""

    subject_first: int
    subject_last: int
    predicate: int
    object_first: int
    object_last: int
    subject_type: int
    object_type: int
    score: float


class GPLinkerHead(Head):
    """GPLinker (Su Jianlin 2022, https://kexue.fm/archives/8888): three efficient GlobalPointers.

    A triple (s, p, o) holds if four scores are above 0::

        entities(s.first, s.last, subject)   entities(o.first, o.last, object)
        heads(s.first, o.first, p)           tails(s.last, o.last, p)

    so triples may share tokens, entities and pairs (EPO, SEO, SOO) in any way, and entities may lie inside each other.
    What can't be told apart are triples of one predicate whose entities have first and last tokens in common crosswise:
    (AB, p, C) and (B, p, CD) also score (AB, p, CD) if that is a pair of entities. Against
    :class:`wenmai.heads.casrel.CasRelHead` every triple of a row is learned in every pass.

    Outputs:
        ``entities``, ``heads``, ``tails`` (B, T, 2 D + 2 L): what the scores are made of, see
        :mod:`wenmai.heads.pair_loss`; of L = S + O types, P and P predicates. Positions turn query and key of the
        entities only (RoPE): the distance of the two ends of a relation says little.

    Targets:
        ``triples`` (B, N, 7): first and last token of the subject, predicate, first and last token of the object, type
        of the subject and of the object (0 where there is one type), padded with IGNORE. The loss is that of
        GlobalPointer for all three; the count is rows x (S + O + 2 P).

    The divergence of two passes is GlobalPointer's. It goes over the scores of all T² (S + O + 2 P) pairs, label by
    label, and takes as much memory: R-Drop is dear with many predicates.

    Args:
        hidden_size: H.
        predicates: P.
        subject_types, object_types: S and O; 1 where entities have no types.
        head_size: D, even.
        dropout: rate on the hidden states, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"entities": (1,), "heads": (1,), "tails": (1,)}

    def __init__(
        self,
        hidden_size: int,
        predicates: int,
        *,
        subject_types: int = 1,
        object_types: int = 1,
        head_size: int = 64,
        dropout: float,
    ):
        super().__init__()
        self.subject_types = subject_types
        self.labels = {"entities": subject_types + object_types, "heads": predicates, "tails": predicates}
        self.entities, self.heads, self.tails = (
            GlobalPointerHead(
                hidden_size, labels, head_size=head_size, rotary=name == "entities", dropout=dropout
            )
            for name, labels in self.labels.items()
        )

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {
            "entities": self.entities.factors(hidden_BTH),
            "heads": self.heads.factors(hidden_BTH),
            "tails": self.tails.factors(hidden_BTH),
        }

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        gold = self.gold_pairs(batch["triples"])
        parts = self._factors(outputs, batch)
        losses = [pair_loss(factors, gold[name]) for name, factors in parts.items()]
        return torch.stack(losses).sum(), len(batch["triples"]) * sum(self.labels.values())

    def gold_pairs(self, triples_BN7: Tensor) -> dict[str, Tensor]:
        """Of each part the gold pairs (B, N, 3): first token, second token, label."""

        def pairs(*columns: int) -> Tensor:
            return triples_BN7[..., list(columns)]

        objects_BN3 = pairs(OBJECT_FIRST, OBJECT_LAST, OBJECT_TYPE)
        real_BN = objects_BN3[..., 2] != IGNORE
        types_BN = torch.where(real_BN, objects_BN3[..., 2] + self.subject_types, IGNORE)
        objects_BN3 = torch.cat([objects_BN3[..., :2], types_BN[..., None]], dim=-1)
        subjects_BN3 = pairs(SUBJECT_FIRST, SUBJECT_LAST, SUBJECT_TYPE)
        return {
            "entities": torch.cat([subjects_BN3, objects_BN3], dim=1),
            "heads": pairs(SUBJECT_FIRST, OBJECT_FIRST, PREDICATE),
            "tails": pairs(SUBJECT_LAST, OBJECT_LAST, PREDICATE),
        }

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        one, other = self._factors(first, batch), self._factors(second, batch)
        row_B = torch.arange(len(batch["attention_mask"]), device=batch["attention_mask"].device)
        parts = [
            sigmoid_divergence(
                dense(one[name], row_B, torch.full_like(row_B, label)),
                dense(other[name], row_B, torch.full_like(row_B, label)),
            ).sum()
            for name, labels in self.labels.items()
            for label in range(labels)
        ]
        return torch.stack(parts).sum()

    def _factors(self, outputs: Outputs, batch: dict[str, Tensor]) -> dict[str, Factors]:
        real_BT = batch["attention_mask"].bool()
        return {
            name: factors_of(outputs[name], labels, real_BT, ordered=name == "entities")
            for name, labels in self.labels.items()
        }


def decode_gplinker(
    outputs: dict[str, Floats],
    first: int,
    stop: int,
    *,
    subject_types: int,
    object_types: int,
    above: float = 0.0,
) -> list[FoundTriple]:
    """The triples of a row whose four scores are above a bound; those of predicates are computed between entities only.

    Of the types of a subject or object the best is taken. A row of T tokens keeps its T best subjects, its T best
    objects and its T best triples, ``FEWEST_KEPT`` if that is more: a trained model finds fewer, an untrained one would
    fill the memory.

    Args:
        outputs: one row's, without padding.
        first, stop: the tokens that are text.
        above: in logits; 0 is a probability of a half.
    """
    most = max(FEWEST_KEPT, stop - first)
    types = subject_types + object_types
    pairs_TT, first_TL, last_TL = _split(outputs["entities"][first:stop], types)
    subjects = _entities(pairs_TT, first_TL[:, :subject_types], last_TL[:, :subject_types], most, above)
    objects = _entities(pairs_TT, first_TL[:, subject_types:], last_TL[:, subject_types:], most, above)
    if not subjects or not objects:
        return []
    s_first, s_last, s_type, s_score = (np.array(column) for column in zip(*subjects, strict=True))
    o_first, o_last, o_type, o_score = (np.array(column) for column in zip(*objects, strict=True))
    predicates = (outputs["heads"].shape[-1] - (outputs["entities"].shape[-1] - 2 * types)) // 2
    heads_SOP = _between(outputs["heads"][first:stop], predicates, s_first, o_first)
    tails_SOP = _between(outputs["tails"][first:stop], predicates, s_last, o_last)
    score_SOP = np.minimum(heads_SOP, tails_SOP)
    s_at, o_at, predicate = np.nonzero(score_SOP > above)
    scores = np.minimum(score_SOP[s_at, o_at, predicate], np.minimum(s_score[s_at], o_score[o_at]))
    best = np.argsort(-scores, kind="stable")[:most]
    return sorted(
        FoundTriple(
            first + int(s_first[s]),
            first + int(s_last[s]),
            int(p),
            first + int(o_first[o]),
            first + int(o_last[o]),
            int(s_type[s]),
            int(o_type[o]),
            float(score),
        )
        for s, o, p, score in zip(s_at[best], o_at[best], predicate[best], scores[best], strict=True)
    )


def _split(factors_TF: Floats, labels: int) -> tuple[Floats, Floats, Floats]:
    """Scores of the pairs (T, T), of the first and of the last tokens (T, L)."""
    factors_TF = factors_TF.astype(np.float64)
    width = (factors_TF.shape[-1] - 2 * labels) // 2
    query, key, first_TL, last_TL = np.split(factors_TF, [width, 2 * width, 2 * width + labels], axis=-1)
    return query @ key.T / width**0.5, first_TL, last_TL


def _entities(
    pairs_TT: Floats, first_TL: Floats, last_TL: Floats, most: int, above: float
) -> list[tuple[int, int, int, float]]:
    """First token, last token, best type and score of the spans that score above a bound, at most so many."""
    best_TT = np.full(pairs_TT.shape, -np.inf)
    type_TT = np.zeros(pairs_TT.shape, dtype=np.int64)
    for label in range(first_TL.shape[1]):
        scores_TT = pairs_TT + first_TL[:, label, None] + last_TL[None, :, label]
        type_TT[scores_TT > best_TT] = label
        best_TT = np.maximum(best_TT, scores_TT)
    begin, end = np.nonzero(np.triu(best_TT > above))
    chosen = np.argsort(-best_TT[begin, end], kind="stable")[:most]
    return [
        (int(i), int(j), int(type_TT[i, j]), float(best_TT[i, j]))
        for i, j in zip(begin[chosen], end[chosen], strict=True)
    ]


def _between(factors_TF: Floats, labels: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
    """The scores (S, O, L) of pairs of some tokens with some others."""
    pairs_TT, first_TL, last_TL = _split(factors_TF, labels)
    return np.asarray(
        pairs_TT[np.ix_(one, other)][:, :, None] + first_TL[one][:, None] + last_TL[other][None]
    )
