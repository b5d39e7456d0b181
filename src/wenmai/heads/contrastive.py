"""Embeddings of whole rows, learned by comparing rows with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize as to_unit_length

from wenmai.heads.embedding_losses import (
    ANCHOR,
    HARD_NEGATIVE,
    POSITIVE,
    cosent_loss,
    cosine_loss,
    info_nce_loss,
    triplet_loss,
)
from wenmai.heads.head import Head, Outputs, linear, widened
from wenmai.heads.pooling import Pooling, pool, tokens_pooled

__all__ = ["ANCHOR", "HARD_NEGATIVE", "POSITIVE", "ContrastiveHead", "Objective"]

Objective = Literal["infonce", "simcse", "cosent", "cosine", "triplet"]


class ContrastiveHead(Head):
    """Texts that belong together come near to each other, others move apart.

    Outputs:
        ``embedding`` (B, D).

    Targets:
        ``group`` (B,), an id of the row's example, unique in the whole optimizer step; ``role`` (B,), ANCHOR,
        POSITIVE or HARD_NEGATIVE; for ``simcse`` ``part`` (B,), the number of the row's text among those of its
        example; for ``cosent`` and ``cosine`` ``score`` (B,), the same on both rows of a pair. The losses and their
        counts are in :mod:`wenmai.heads.embedding_losses`:

        * ``infonce``: the positive among all texts of the step, and ``simcse``: the same, where the positive is the
          text itself with other dropout
        * ``cosent``: pairs in the order of their scores
        * ``cosine``: a pair's cosine is its score
        * ``triplet``: the positive nearer than the record's own negatives, by a margin

    With ``widths`` the loss is the weighted sum of those of every vector's first w numbers, brought to length 1
    (Matryoshka representations, Kusupati et al. 2022): each prefix is an embedding by itself.

    There are no probabilities of a row's own here, so R-Drop is not defined; nor is label smoothing, the
    texts that an anchor is compared with being no labels.

    Args:
        pooling: how T vectors become one.
        objective: see above.
        temperature: τ of ``infonce``, ``simcse`` and ``cosent``; 0.05 is usual for cosines. Lower looks more at the
            nearest negatives.
        margin: of ``triplet``.
        widths: see above; none: whole vectors only.
        weights: of the widths' losses; none: 1 each.
        width: how many numbers of a vector prediction keeps, the first ones; None: all.
        normalize: whether embeddings have length 1, so that dot products are cosines.
        projection: (H, D) of a linear layer after pooling; None leaves D = H.
    """

    mean_D: Tensor | None
    matrix_DK: Tensor | None

    def __init__(
        self,
        *,
        pooling: Pooling,
        objective: Objective = "infonce",
        temperature: float = 0.05,
        margin: float = 0.2,
        widths: Sequence[int] = (),
        weights: Sequence[float] = (),
        width: int | None = None,
        normalize: bool = True,
        projection: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.pooling = pooling
        self.objective: Objective = objective
        self.needs_whole_step = objective in ("infonce", "simcse", "cosent")
        self.temperature = temperature
        self.margin = margin
        self.widths = list(widths)
        self.weights = list(weights) or [1.0] * len(self.widths)
        self.width = width
        self.normalize = normalize
        self.projection = linear(*projection) if projection is not None else None
        self.register_buffer("mean_D", None)
        self.register_buffer("matrix_DK", None)
        self.register_load_state_dict_pre_hook(_room_for_whitening)  # type: ignore[no-untyped-call]

    def whiten(self, mean_D: Tensor, matrix_DK: Tensor) -> None:
        """From now on, predicted embeddings are ``(x - mean) @ matrix``, before they get length 1.

        Part of the weights, so saved and loaded with them; training does not see it.

        Args:
            mean_D, matrix_DK: of vectors as prediction gives them, cut to ``width`` and not brought to length 1.
        """
        self.mean_D, self.matrix_DK = mean_D, matrix_DK

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return tokens_pooled(batch["attention_mask"], self.pooling)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"embedding": self._scaled(self.plain(hidden_BTH, mask_BT, whitened=True))}

    def plain(self, hidden_BTH: Tensor, mask_BT: Tensor, *, whitened: bool) -> Tensor:
        """The embeddings of prediction at the length that they happen to have, (B, D) or (B, K)."""
        row_BD = self._pooled(hidden_BTH, mask_BT)[:, : self.width]
        if not whitened or self.mean_D is None or self.matrix_DK is None:
            return row_BD
        # differences of small numbers, which half precision would lose
        with torch.autocast(row_BD.device.type, enabled=False):
            return (row_BD - self.mean_D) @ self.matrix_DK

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        """Whole vectors, whatever prediction keeps."""
        return {"embedding": self._scaled(self._pooled(hidden_BTH, mask_BT))}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        embedding_BD = widened(outputs["embedding"])
        if not self.widths:
            return self._loss(embedding_BD, batch)
        parts = [self._loss(self._scaled(embedding_BD[:, :width]), batch) for width in self.widths]
        losses = [weight * loss for weight, (loss, _) in zip(self.weights, parts, strict=True)]
        # what is a term depends on the targets alone
        return torch.stack(losses).sum(), parts[0][1]

    def _loss(self, embedding_BD: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        group_B, role_B = batch["group"], batch["role"]
        if self.objective == "cosent":
            return cosent_loss(embedding_BD, group_B, role_B, batch["score"], temperature=self.temperature)
        if self.objective == "cosine":
            return cosine_loss(embedding_BD, group_B, role_B, batch["score"])
        if self.objective == "triplet":
            return triplet_loss(embedding_BD, group_B, role_B, margin=self.margin)
        part_B = batch["part"] if self.objective == "simcse" else None
        return info_nce_loss(embedding_BD, group_B, role_B, part_B, temperature=self.temperature)

    def _pooled(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        row_BD = pool(hidden_BTH, mask_BT, self.pooling)
        return widened(row_BD if self.projection is None else self.projection(row_BD))

    def _scaled(self, row_BD: Tensor) -> Tensor:
        return to_unit_length(row_BD, dim=-1) if self.normalize else row_BD


def _room_for_whitening(head: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """A fresh head has no whitening; one is loaded into where the state has it."""
    for name in ("mean_D", "matrix_DK"):
        found = state.get(prefix + name)
        if found is not None:
            setattr(head, name, torch.empty_like(found))
