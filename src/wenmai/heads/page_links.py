"""Which entity of a page belongs to which: a score for every ordered pair, from what they say and where they stand.

Shape letters beside those of all heads: N entities of a page, D width of an entity's vectors, P steps of distance,
C labels of entities.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wenmai.heads.head import linear, widened

STEPS = (-400, -200, -100, -50, -25, -10, -3, 4, 11, 26, 51, 101, 201, 401)
"""Where the steps of a distance begin, in thousandths of the page: fine where things touch, coarse across the page."""
DISTANCES = len(STEPS) + 1
SCALE = 10.0
"""Of what the tables hold. An optimizer moves a number by its learning rate a step at most, whatever the gradient; so
these, which no product makes larger, would need thousands of steps to say anything."""
IMPOSSIBLE = -1e4
"""Score of a pair that is no candidate: finite also in half precision, with exp(score) exactly 0."""


class LinkFactors(NamedTuple):
    """What scores are made of.

    ``score(k, v) = q_k · k_v / √D + place(box_k, box_v) + type(label_k, label_v)``

    Args:
        keys, values: (..., D) of an entity's first token, as a key and as a value.
        places: (2, P, P): by the gap between two boxes across and down, and by how far apart their upper left corners
            are.
        types: (C, C): of a key's label and a value's.
    """

    keys: Tensor
    values: Tensor
    places: Tensor
    types: Tensor


class LinkScorer(nn.Module):
    """The parameters behind :class:`LinkFactors`.

    The dot product is GlobalPointer's (Su et al. 2022, arXiv:2208.03054) without positions in the text; the tables of
    places are LayoutLMv2's biases of attention (Xu et al. 2021, arXiv:2012.14740), in two dimensions at once: "right
    of it on the same line, next to it" is one cell. They start at 0.

    Args:
        hidden_size: H.
        size: D.
        labels: C.
        possible: (C, C), True where a key of the one label ever had a value of the other.
    """

    possible: Tensor

    def __init__(self, hidden_size: int, size: int, labels: int, possible: Tensor):
        super().__init__()
        self.keys = linear(hidden_size, size)
        self.values = linear(hidden_size, size)
        self.types = nn.Parameter(torch.zeros(labels, labels))
        self.places = nn.Parameter(torch.zeros(2, DISTANCES, DISTANCES))
        self.register_buffer("possible", possible, persistent=False)

    def forward(self, hidden_BTH: Tensor) -> LinkFactors:
        types_CC = (SCALE * self.types).masked_fill(~self.possible, IMPOSSIBLE)
        return LinkFactors(self.keys(hidden_BTH), self.values(hidden_BTH), SCALE * self.places, types_CC)


def link_scores(factors: LinkFactors, label_N: Tensor, box_N4: Tensor) -> Tensor:
    """(..., N, N): of each entity as the key of each other, ``IMPOSSIBLE`` on the diagonal and between labels that
    never had a link.

    Args:
        factors: keys and values (..., N, D).
        label_N: (..., N).
        box_N4: (..., N, 4), in thousandths of the page.
    """
    keys_ND, values_ND, places, types_CC = (widened(part) for part in factors)
    scores_NN = keys_ND @ values_ND.transpose(-1, -2) / keys_ND.size(-1) ** 0.5
    types_NN = types_CC[label_N[..., :, None], label_N[..., None, :]]
    steps = _distances(box_N4)
    of_places_NN = places[0][steps[0], steps[1]] + places[1][steps[2], steps[3]]
    same_NN = torch.eye(label_N.size(-1), dtype=torch.bool, device=label_N.device)
    impossible_NN = same_NN | (types_NN <= IMPOSSIBLE / 2)
    found_NN: Tensor = (scores_NN + types_NN + of_places_NN).masked_fill(impossible_NN, IMPOSSIBLE)
    return found_NN


def _distances(box_N4: Tensor) -> list[Tensor]:
    """Steps (..., N, N) of the gaps across and down, 0 where two boxes overlap, and of the distances of the upper left
    corners, from the key to the value."""
    key, value = box_N4[..., :, None, :], box_N4[..., None, :, :]
    edges = torch.tensor(STEPS, device=box_N4.device)
    found = []
    for low, high in ((0, 2), (1, 3)):
        behind = (value[..., low] - key[..., high]).clamp(min=0)
        before = (key[..., low] - value[..., high]).clamp(min=0)
        found.append(behind - before)
    found += [value[..., low] - key[..., low] for low in (0, 1)]
    return [torch.bucketize(distance.contiguous(), edges, right=True) for distance in found]


def link_loss(scores_BNN: Tensor, gold_BNN: Tensor, entity_BN: Tensor) -> Tensor:
    """The multi-label cross-entropy of Su (2020, https://kexue.fm/archives/7359) over the keys of each value, summed.

    ``log(1 + Σ exp(s)) + log(1 + Σ exp(-s))``, the first sum over keys that are none of the value, the second over
    those that are: any number of them, and the border at 0. Pairs that are no candidates count nowhere.

    Args:
        gold_BNN: True where the first entity is a key of the second.
        entity_BN: False where an entity is padding.
    """
    possible_BNN = (scores_BNN > IMPOSSIBLE / 2) & entity_BN[:, :, None] & entity_BN[:, None, :]
    gold_BNN = gold_BNN & possible_BNN
    wrong_BN = scores_BNN.masked_fill(gold_BNN | ~possible_BNN, -torch.inf)
    missed_BN = (-scores_BNN).masked_fill(~gold_BNN, -torch.inf)
    zero = scores_BNN.new_zeros(1, 1, 1).expand(len(scores_BNN), 1, scores_BNN.size(2))
    return sum(
        (torch.cat([part, zero], dim=1).logsumexp(dim=1).sum() for part in (wrong_BN, missed_BN)),
        scores_BNN.new_zeros(()),
    )
