"""Triples as a cascade: first the subjects, then for each subject the objects of every predicate."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, layer_norm

from wenmai.heads.divergence import sigmoid_divergence
from wenmai.heads.global_pointer import FEWEST_KEPT
from wenmai.heads.gplinker import (
    OBJECT_FIRST,
    OBJECT_LAST,
    OBJECT_TYPE,
    PREDICATE,
    SUBJECT_FIRST,
    SUBJECT_LAST,
    SUBJECT_TYPE,
    Floats,
    FoundTriple,
)
from wenmai.heads.head import IGNORE, RARE, Head, Outputs, linear, widened

Conditioning = Literal["layer_norm", "addition"]


class CasRelHead(Head):
    """CasRel (Wei et al. 2020, https://aclanthology.org/2020.acl-main.136).

    Each token scores whether a subject begins or ends there, ``W_s h_t``; and for a given subject, whether an object
    of it begins or ends there, for every predicate. With the subject's vector v, the mean of its two ends:

    * ``addition``, as published: ``W (h_t + v) + b``. A token's score and the subject's add up, so with
      two subjects of one predicate that have different objects, no weights give all four answers right; the encoder
      can't help, as it does not know the subject.
    * ``layer_norm``: the token is normalised and then scaled and shifted by the subject (conditional layer
      normalisation, Su Jianlin 2020, https://kexue.fm/archives/7124): ``W (x_t (1 + U v) + V v) + b`` with
      ``x = layer_norm(P h)`` of 2 D numbers and v in the same space.

    Spans are read off by the nearest end at or behind a beginning, so of subjects that begin together, and of objects
    of one subject and predicate, only the shortest is found. :class:`wenmai.heads.gplinker.GPLinkerHead` finds all.

    Outputs:
        ``subjects`` (B, T, 2 S): beginnings, then ends, of each subject type; ``objects`` (B, T, 2 P): what the token
        adds to the scores of beginnings and ends; and ``types`` (B, T, 2 O), the same for objects of any subject, if
        objects have types. With ``layer_norm`` also ``states`` x and ``gain`` U x (B, T, 2 D), ``shift`` (B, T, 2 P)
        and ``weight`` W (B, 2 P, 2 D). :func:`object_scores` puts them together. In training ``objects`` are the
        scores for the target ``subject``.

    Targets:
        ``triples`` (B, N, 7) as in :class:`wenmai.heads.gplinker.GPLinkerHead`, and ``subject`` (B, 1, 2), first and
        last token of the one among them that this pass learns the objects of, or IGNORE in a row without triples.
        The loss is binary cross-entropy, summed over the real tokens and all their scores; the count is real tokens.
        Rows without triples have no term for objects.

    Args:
        hidden_size: H.
        predicates: P.
        subject_types: S, 1 where subjects have no types.
        object_types: O, 0 where objects have none.
        conditioning: see above.
        head_size: D.
        dropout: rate on the hidden states, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = dict.fromkeys(("subjects", "types", "objects", "states", "gain", "shift"), (1,))

    def __init__(
        self,
        hidden_size: int,
        predicates: int,
        *,
        subject_types: int = 1,
        object_types: int = 0,
        conditioning: Conditioning = "layer_norm",
        head_size: int = 64,
        dropout: float,
    ):
        super().__init__()
        self.gated = conditioning == "layer_norm"
        self.dropout = nn.Dropout(dropout)
        self.subjects = linear(hidden_size, 2 * subject_types, expected=RARE)
        self.types = linear(hidden_size, 2 * object_types, expected=RARE) if object_types else None
        width = hidden_size
        if self.gated:
            width = 2 * head_size
            self.project = linear(hidden_size, width)
            self.scale_by, self.shift_by = linear(width, width), linear(width, width)
        self.objects = linear(width, 2 * predicates, expected=RARE)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        hidden_BTH = self.dropout(hidden_BTH)
        outputs = {"subjects": self.subjects(hidden_BTH)}
        if self.types is not None:
            outputs["types"] = self.types(hidden_BTH)
        weight, bias = self.objects.weight, self.objects.bias
        if not self.gated:
            # half of the bias from the token and half from the subject make one
            return {**outputs, "objects": hidden_BTH @ weight.T + bias / 2}
        states_BTD = layer_norm(self.project(hidden_BTH), self.project.weight.shape[:1])
        return {
            **outputs,
            "objects": states_BTD @ weight.T,
            "states": states_BTD,
            "gain": self.scale_by(states_BTD),
            "shift": self.objects(self.shift_by(states_BTD)),
            "weight": weight.expand(hidden_BTH.size(0), *weight.shape),
        }

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        outputs = self.forward(hidden_BTH, mask_BT)
        kept: Outputs = {name: outputs[name] for name in outputs if name in ("subjects", "types")}
        return {**kept, "objects": object_scores(outputs, batch["subject"][:, 0].clamp(min=0))}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Takes the outputs of :meth:`training_outputs`."""
        gold = self._gold(outputs, batch)
        counted = self._counted(outputs, batch)
        losses = [
            binary_cross_entropy_with_logits(widened(outputs[name]), gold[name], reduction="none")
            .masked_fill(~counted[name], 0.0)
            .sum()
            for name in outputs
        ]
        return torch.stack(losses).sum(), int(batch["attention_mask"].sum())

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        counted = self._counted(first, batch)
        parts = [
            sigmoid_divergence(first[name], second[name]).masked_fill(~counted[name], 0.0).sum()
            for name in first
        ]
        return torch.stack(parts).sum()

    def _counted(self, outputs: Outputs, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        real_BT1 = batch["attention_mask"].bool()[..., None]
        given_B11 = batch["subject"][:, :1, :1] != IGNORE
        return {name: real_BT1 & given_B11 if name == "objects" else real_BT1 for name in outputs}

    def _gold(self, outputs: Outputs, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """1 where a subject, or an object of the given subject, begins or ends; in the shape of the outputs."""
        triples_BN7, subject_B12 = batch["triples"], batch["subject"][:, :1]
        real_BN = triples_BN7[..., PREDICATE] != IGNORE
        its_BN = real_BN & (triples_BN7[..., [SUBJECT_FIRST, SUBJECT_LAST]] == subject_B12).all(dim=-1)
        columns = {
            "subjects": (SUBJECT_FIRST, SUBJECT_LAST, SUBJECT_TYPE, real_BN),
            "types": (OBJECT_FIRST, OBJECT_LAST, OBJECT_TYPE, real_BN),
            "objects": (OBJECT_FIRST, OBJECT_LAST, PREDICATE, its_BN),
        }
        gold = {}
        for name, scores_BTL in outputs.items():
            first, last, label, counted_BN = columns[name]
            target_BTL = torch.zeros_like(widened(scores_BTL))
            row_M = counted_BN.nonzero(as_tuple=True)[0]
            label_M = triples_BN7[..., label][counted_BN]
            target_BTL[row_M, triples_BN7[..., first][counted_BN], label_M] = 1.0
            target_BTL[row_M, triples_BN7[..., last][counted_BN], label_M + scores_BTL.size(-1) // 2] = 1.0
            gold[name] = target_BTL
        return gold


def object_scores(outputs: Outputs, subject_B2: Tensor) -> Tensor:
    """Scores (B, T, 2 P) of beginnings and ends of the objects of one subject a row.

    Args:
        outputs: of :meth:`CasRelHead.forward`.
        subject_B2: its first and last token.
    """
    row_B = torch.arange(len(subject_B2), device=subject_B2.device)

    def of_subject(tensor_BTX: Tensor) -> Tensor:
        first_B, last_B = subject_B2.unbind(dim=1)
        return ((tensor_BTX[row_B, first_B] + tensor_BTX[row_B, last_B]) / 2)[:, None]

    if "weight" not in outputs:
        return outputs["objects"] + of_subject(outputs["objects"])
    scaled_BTD = outputs["states"] * of_subject(outputs["gain"])
    return outputs["objects"] + of_subject(outputs["shift"]) + scaled_BTD @ outputs["weight"].transpose(1, 2)


def decode_casrel(
    outputs: dict[str, Floats], first: int, stop: int, *, above: float = 0.0
) -> list[FoundTriple]:
    """The triples of a row: every subject found, and for each the objects of all predicates.

    Scores are in logits, that of a triple the least of its four ends'. As in
    :func:`wenmai.heads.gplinker.decode_gplinker` a row of T tokens keeps its T best triples, or ``FEWEST_KEPT``.

    Args:
        outputs: one row's, without padding.
        first, stop: the tokens that are text.
        above: what every score must be above, in logits; 0 is a probability of a half.
    """
    most = max(FEWEST_KEPT, stop - first)
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array if name == "weight" else array[first:stop]))[None]
        for name, array in outputs.items()
    }
    best_type: dict[tuple[int, int], tuple[float, int]] = {}
    for begin, end, label, score in zip(*nearest_spans(outputs["subjects"][first:stop], above), strict=True):
        subject, found = (int(begin), int(end)), (float(score), int(label))
        best_type[subject] = max(best_type.get(subject, found), found)
    held: list[NDArray[np.int64]] = []
    scores: list[Floats] = []
    for (begin, end), (sure, label) in sorted(best_type.items()):
        scores_TL = object_scores(tensors, torch.tensor([[begin, end]]))[0].numpy()
        o_begin, o_end, predicate, score = nearest_spans(scores_TL, above)
        chosen = np.argsort(-score, kind="stable")[:most]
        columns = np.broadcast_arrays(begin, end, predicate[chosen], o_begin[chosen], o_end[chosen], label)
        held.append(np.stack(columns, axis=1))
        scores.append(np.minimum(sure, score[chosen]))
    if not held:
        return []
    held_N6, score_N = np.concatenate(held), np.concatenate(scores)
    shift = np.array([first, first, 0, first, first, 0])
    triples = []
    for at in np.argsort(-score_N, kind="stable")[:most]:
        begin, end, predicate, o_begin, o_end, label = (held_N6[at] + shift).tolist()
        kind = _type(outputs["types"], o_begin, o_end) if "types" in outputs else 0
        triples.append(FoundTriple(begin, end, predicate, o_begin, o_end, label, kind, float(score_N[at])))
    return sorted(triples)


def nearest_spans(
    scores_TL: Floats, above: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats]:
    """Spans of each label from scores of beginnings (the first half of the columns) and ends (the second) beyond
    ``above``.

    Every beginning takes the nearest end at or behind it.

    Returns:
        first token, last token, label and the lesser of the two scores of each span.
    """
    tokens, labels = scores_TL.shape[0], scores_TL.shape[1] // 2
    begins_TL, ends_TL = scores_TL[:, :labels], scores_TL[:, labels:]
    at_TL = np.where(ends_TL > above, np.arange(tokens)[:, None], tokens)
    nearest_TL = np.minimum.accumulate(at_TL[::-1], axis=0)[::-1]
    begin, label = np.nonzero((begins_TL > above) & (nearest_TL < tokens))
    end = nearest_TL[begin, label]
    return begin, end, label, np.minimum(begins_TL[begin, label], ends_TL[end, label])


def _type(scores_TL: Floats, begin: int, end: int) -> int:
    types = scores_TL.shape[1] // 2
    return int((scores_TL[begin, :types] + scores_TL[end, types:]).argmax())
