"""Words, their parts of speech and the tree above them, from the tokens of one sentence.

Shape letters beside those of all heads: D width of a word's vector, P parts of speech, R relations, Q relations of
roots, N words. A word is represented by its last token; a tree is an array of (dependent, head) whose DIAGONAL is the
root: a word can't be its own head, so ``[i, i]`` is the score, or the answer, of i being the root of the sentence.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from wenmai.heads.cross_entropy import one_of_labels
from wenmai.heads.divergence import sigmoid_divergence, softmax_divergence
from wenmai.heads.global_pointer import MASKED
from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened

SLOPE = 0.1
"""Of the leaky ReLU below 0, as in the paper's own code."""


class ArcScorer(nn.Module):
    """How well a word fits as the head of another: the biaffine scorer of Dozat and Manning (2017), equation 4.

    ``s(i, j) = d_iᵀ U h_j + u · h_j`` for the dependent i and the head j, with ``d = MLP(x)`` and ``h = MLP(x)`` two
    views of the hidden states; ``s(i, i) = w · d_i + b``, the score of i as the root.

    Args:
        hidden_size: H.
        size: D.
        dropout: rate behind both MLPs.
    """

    def __init__(self, hidden_size: int, size: int, dropout: float):
        super().__init__()
        self.dependent = _view(hidden_size, size, dropout)
        self.head = _view(hidden_size, size, dropout)
        self.pair = nn.Parameter(torch.zeros(size, size))
        self.prior = nn.Parameter(torch.zeros(size))
        self.root = linear(size, 1)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """(B, T, T): of every token as a dependent and every token as a head."""
        dependent_BTD, head_BTD = self.dependent(hidden_BTH), self.head(hidden_BTH)
        scores_BTT = dependent_BTD @ self.pair @ head_BTD.transpose(1, 2) + (head_BTD @ self.prior)[:, None]
        return torch.where(_diagonal(hidden_BTH), self.root(dependent_BTD), scores_BTT)


class RelationScorer(nn.Module):
    """Which relation a word has to its head (Dozat and Manning 2017, equation 6).

    ``s(i, j) = d_iᵀ U_r h_j + w_r · d_i + v_r · h_j + b_r`` for every relation r. Roots have relations of their own,
    linear in ``d_i``, so that no other word is ever called a root, nor a root anything else.

    Args:
        hidden_size: H.
        size: D.
        relations, root_relations: R and Q.
        dropout: rate behind both MLPs.
    """

    def __init__(self, hidden_size: int, size: int, relations: int, root_relations: int, dropout: float):
        super().__init__()
        self.dependent = _view(hidden_size, size, dropout)
        self.head = _view(hidden_size, size, dropout)
        self.pair = nn.Parameter(torch.zeros(relations, size, size))
        self.of_dependent = linear(size, relations)
        self.of_head = nn.Parameter(torch.zeros(relations, size))
        self.root = linear(size, root_relations)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """(B, T, T) of ids: the best relation of each pair, on the diagonal the best one of a root.

        One relation after the other: the scores of all together would be R times as large as the arcs'.
        """
        dependent_BTD, head_BTD = self.dependent(hidden_BTH), self.head(hidden_BTH)
        of_dependent_BTR, of_head_BTR = self.of_dependent(dependent_BTD), head_BTD @ self.of_head.T
        rows, tokens = hidden_BTH.shape[:2]
        best_BTT = dependent_BTD.new_full((rows, tokens, tokens), -torch.inf)
        which_BTT = torch.zeros_like(best_BTT)
        for relation, pair in enumerate(self.pair):
            scores_BTT = dependent_BTD @ pair @ head_BTD.transpose(1, 2)
            scores_BTT = scores_BTT + of_dependent_BTR[..., relation, None]
            scores_BTT = scores_BTT + of_head_BTR[..., relation][:, None]
            which_BTT = torch.where(scores_BTT > best_BTT, float(relation), which_BTT)
            best_BTT = torch.maximum(best_BTT, scores_BTT)
        root_BT = self.root(dependent_BTD).argmax(dim=-1).to(which_BTT.dtype)
        return torch.where(_diagonal(hidden_BTH), root_BT[..., None], which_BTT)

    def of_arcs(self, hidden_BTH: Tensor, head_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, R) and (B, T, Q): the scores of arcs that are known, and of the same words as roots.

        Args:
            head_BT: position of each word's head; where it is IGNORE the scores are 0.
        """
        known_BT = head_BT != IGNORE
        row_N = known_BT.nonzero()[:, 0]
        dependent_ND = self.dependent(hidden_BTH)[known_BT]
        head_ND = self.head(hidden_BTH)[row_N, head_BT[known_BT]]
        pair_NR = torch.einsum("nd,rde,ne->nr", dependent_ND, self.pair, head_ND)
        scores_NR = pair_NR + self.of_dependent(dependent_ND) + head_ND @ self.of_head.T
        root_NQ = self.root(dependent_ND)
        return _spread(scores_NR, known_BT), _spread(root_NQ, known_BT)


class DependencyHead(Head):
    """Word segmentation, parts of speech and biaffine dependencies on one encoder (Dozat and Manning 2017,
    arXiv:1611.01734; jointly from characters as Yan, Qiu and Huang 2020, arXiv:1904.04697, but with borders of words
    instead of arcs inside of them: sentences of words are shorter than those of characters, which the decoders of
    trees pay for with the third power, and each part can be left out).

    Every score is one of tokens; which of them are words is decided outside: by the gold words in training, by the
    borders found in prediction. So a row's scores do not depend on anything but the row.

    Outputs:
        ``begins`` (B, T): above 0, a word begins at the token. ``upos`` (B, T, P), to be read at a word's last token.
        ``arcs`` (B, T, T): the score of (dependent, head), both last tokens of words, see above for the diagonal.
        ``relations`` (B, T, T): the id of the best relation of each such pair. Parts that are left out give nothing.

    Targets:
        ``ends`` (B, T): 1 at the last token of each word that counts, else IGNORE. ``begins`` (B, T): 1 and 0 where
        it is open whether a word begins. ``upos``, ``heads`` (position of the head's last token, its own for the root)
        and ``relations`` (ids; a root's among the relations of roots), all (B, T) at last tokens, IGNORE where unknown.

    The loss is the negative log probability of the words' whole analysis: of a word's borders, its part of speech, its
    head among the words of the sentence, and its relation given the head. One sum over all four, and one count for all
    of them, the words: the mean is that of the words' analyses, however a step is cut. The divergence of two passes is
    summed over the same decisions.

    Args:
        hidden_size: H.
        words: whether borders are found.
        upos: P; 0 leaves parts of speech out.
        relations, root_relations: R and Q; 0 and 0 leave trees out.
        arc_size, relation_size: D of the two scorers.
        dropout: rate on the hidden states and behind the MLPs, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"begins": (1,), "upos": (1,), "arcs": (1, 2), "relations": (1, 2)}

    def __init__(
        self,
        hidden_size: int,
        *,
        words: bool,
        upos: int,
        relations: int,
        root_relations: int,
        arc_size: int,
        relation_size: int,
        dropout: float,
    ):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.begins = linear(hidden_size, 1) if words else None
        self.upos = linear(hidden_size, upos) if upos else None
        trees = relations + root_relations > 0
        self.arcs = ArcScorer(hidden_size, arc_size, dropout) if trees else None
        self.relations = (
            RelationScorer(hidden_size, relation_size, relations, root_relations, dropout) if trees else None
        )

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        hidden_BTH = self.dropout(hidden_BTH)
        outputs = self._of_tokens(hidden_BTH)
        if self.relations is not None:
            outputs["relations"] = self.relations(hidden_BTH)
        return outputs

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        """As :meth:`forward`, with the scores of the gold arcs' relations: ``relations`` (B, T, R) and
        ``root_relations`` (B, T, Q)."""
        hidden_BTH = self.dropout(hidden_BTH)
        outputs = self._of_tokens(hidden_BTH)
        if self.relations is not None:
            of_words, of_roots = self.relations.of_arcs(hidden_BTH, batch["heads"])
            outputs |= {"relations": of_words, "root_relations": of_roots}
        return outputs

    def _of_tokens(self, hidden_BTH: Tensor) -> Outputs:
        outputs: Outputs = {}
        if self.begins is not None:
            outputs["begins"] = self.begins(hidden_BTH).squeeze(-1)
        if self.upos is not None:
            outputs["upos"] = self.upos(hidden_BTH)
        if self.arcs is not None:
            outputs["arcs"] = self.arcs(hidden_BTH)
        return outputs

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        terms = []
        if "begins" in outputs:
            open_BT = batch["begins"] != IGNORE
            logits_N, target_N = widened(outputs["begins"])[open_BT], batch["begins"][open_BT]
            terms.append(
                binary_cross_entropy_with_logits(logits_N, target_N.to(logits_N.dtype), reduction="sum")
            )
        terms += [one_of_labels(logits, target)[0] for logits, target in _choices(outputs, batch)]
        return torch.stack(terms).sum(), int((batch["ends"] != IGNORE).sum())

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        terms = []
        if "begins" in first:
            open_BT = batch["begins"] != IGNORE
            terms.append(sigmoid_divergence(first["begins"][open_BT], second["begins"][open_BT]).sum())
        pairs = zip(_choices(first, batch), _choices(second, batch), strict=True)
        terms += [softmax_divergence(one, other).sum() for (one, _), (other, _) in pairs]
        return torch.stack(terms).sum()


def _choices(outputs: Outputs, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Logits (N, choices) and targets (N,) of every decision between several answers."""
    found = []
    if "upos" in outputs:
        known_BT = batch["upos"] != IGNORE
        found.append((outputs["upos"][known_BT], batch["upos"][known_BT]))
    if "arcs" in outputs:
        head_BT, relation_BT = batch["heads"], batch["relations"]
        known_BT = head_BT != IGNORE
        row_N = known_BT.nonzero()[:, 0]
        no_word_NT = (batch["ends"] == IGNORE)[row_N]
        arcs_NT = widened(outputs["arcs"])[known_BT].masked_fill(no_word_NT, MASKED)
        found.append((arcs_NT, head_BT[known_BT]))
        place_T = torch.arange(head_BT.size(1), device=head_BT.device)
        root_BT, known_BT = head_BT == place_T, relation_BT != IGNORE
        for name, chosen_BT in (
            ("relations", known_BT & ~root_BT),
            ("root_relations", known_BT & root_BT),
        ):
            found.append((outputs[name][chosen_BT], relation_BT[chosen_BT]))
    return found


def _view(hidden_size: int, size: int, dropout: float) -> nn.Sequential:
    """An MLP of one layer. It begins orthogonal, and the products of two views at 0, as in the paper's own code: views
    as small as other fresh layers would learn slowly, since a score is a product of three small things."""
    layer = linear(hidden_size, size)
    nn.init.orthogonal_(layer.weight)
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE), nn.Dropout(dropout))


def _diagonal(hidden_BTH: Tensor) -> Tensor:
    """(T, T), true where the two tokens are the same."""
    place_T = torch.arange(hidden_BTH.size(1), device=hidden_BTH.device)
    return place_T[:, None] == place_T


def _spread(values_NL: Tensor, at_BT: Tensor) -> Tensor:
    """(B, T, L) with the values where ``at_BT`` holds, 0 elsewhere."""
    spread_BTL = values_NL.new_zeros(*at_BT.shape, values_NL.size(-1))
    return spread_BTL.index_put(at_BT.nonzero(as_tuple=True), values_NL)
