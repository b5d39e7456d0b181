"""One decision about a whole row: a label, several labels, or a number."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from wenmai.heads.cross_entropy import each_label, one_of_labels, refuse_both
from wenmai.heads.divergence import sigmoid_divergence, softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened
from wenmai.heads.pooling import Pooling, pool, tokens_pooled


class PooledRow(nn.Module):
    """Hidden states to the vector that a decision about the row is made from.

    Args:
        hidden_size: H.
        pooling: how T vectors become one.
        dropout: rate on the result, training only.
        hidden_layer: whether a dense layer with tanh follows the pooling, as BERT's pooler does; fresh ones
            learn slower from few examples, so embeddings that are already sentence vectors do better without.
    """

    def __init__(self, hidden_size: int, *, pooling: Pooling, dropout: float, hidden_layer: bool):
        super().__init__()
        self.pooling = pooling
        self.dense = linear(hidden_size, hidden_size) if hidden_layer else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, H)."""
        row_BH = pool(hidden_BTH, mask_BT, self.pooling)
        if self.dense is not None:
            row_BH = torch.tanh(self.dense(row_BH))
        dropped: Tensor = self.dropout(row_BH)
        return dropped


class ClassificationHead(Head):
    """One label a row (softmax), or any number of labels a row (one sigmoid a label).

    Outputs:
        ``logits`` (B, L).

    Targets:
        single-label: ``label`` (B,), the id or IGNORE. The loss is cross-entropy, the count labelled rows
        (:func:`wenmai.heads.cross_entropy.one_of_labels`).
        multi-label: ``labels`` (B, N, 1), the ids that hold, padded with IGNORE; a row of padding only has no
        label, which is an answer. The loss is binary cross-entropy summed over L
        (:func:`wenmai.heads.cross_entropy.each_label`), the count rows: the negative log-likelihood of the
        row's answers.

    The divergence of two passes is summed like the loss: per labelled row, or per row and label.

    Args:
        hidden_size: H.
        labels: L.
        pooling, dropout, hidden_layer: see :class:`PooledRow`.
        multi_label: see above.
        label_smoothing: share of the target that is spread evenly over all labels (Szegedy et al. 2016); with
            ``multi_label`` over holds and holds not.
        focal_gamma: γ of the focal loss (Lin et al. 2017), for labels of very unequal frequency: terms that
            are nearly right count less. 0 is cross-entropy.

    Raises:
        ValueError: both ``label_smoothing`` and ``focal_gamma``.
    """

    defines_divergence = True

    def __init__(
        self,
        hidden_size: int,
        labels: int,
        *,
        pooling: Pooling,
        dropout: float,
        multi_label: bool = False,
        hidden_layer: bool = False,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ):
        super().__init__()
        refuse_both(label_smoothing, focal_gamma)
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.row = PooledRow(hidden_size, pooling=pooling, dropout=dropout, hidden_layer=hidden_layer)
        self.output = linear(hidden_size, labels)

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return tokens_pooled(batch["attention_mask"], self.row.pooling)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self.output(self.row(hidden_BTH, mask_BT))}

    def counted(self, batch: dict[str, Tensor]) -> Tensor:
        """Which rows the loss counts, booleans (B,)."""
        if self.multi_label:
            return torch.ones_like(batch["labels"][:, 0, 0], dtype=torch.bool)
        return batch["label"] != IGNORE

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        logits_BL = outputs["logits"]
        if self.multi_label:
            holds_BL = multi_hot(batch["labels"], logits_BL.size(1))
            loss = each_label(
                logits_BL, holds_BL, label_smoothing=self.label_smoothing, focal_gamma=self.focal_gamma
            )
            return loss, logits_BL.size(0)
        return one_of_labels(
            logits_BL, batch["label"], label_smoothing=self.label_smoothing, focal_gamma=self.focal_gamma
        )

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        if self.multi_label:
            return sigmoid_divergence(first["logits"], second["logits"]).sum()
        known_B = batch["label"] != IGNORE
        return softmax_divergence(first["logits"][known_B], second["logits"][known_B]).sum()


class RowScoreHead(Head):
    """A number a row; what it is learned from, heads of this kind say.

    Outputs:
        ``score`` (B,).

    Args:
        hidden_size: H.
        pooling, dropout, hidden_layer: see :class:`PooledRow`.
    """

    defines_divergence = True

    def __init__(self, hidden_size: int, *, pooling: Pooling, dropout: float, hidden_layer: bool = False):
        super().__init__()
        self.row = PooledRow(hidden_size, pooling=pooling, dropout=dropout, hidden_layer=hidden_layer)
        self.output = linear(hidden_size, 1)

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return tokens_pooled(batch["attention_mask"], self.row.pooling)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"score": self.output(self.row(hidden_BTH, mask_BT)).squeeze(-1)}


class RegressionHead(RowScoreHead):
    """Similarities and ratings.

    Targets:
        ``score`` (B,), NaN where there is none. The loss is the squared error, the count rows with a score.

    The squared error is the negative log-likelihood of a normal distribution with variance ½ around the
    answer, up to a constant; so the divergence of two passes is half their squared difference.
    """

    def counted(self, batch: dict[str, Tensor]) -> Tensor:
        """Which rows the loss counts, booleans (B,)."""
        return ~batch["score"].isnan()

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        predicted_B = widened(outputs["score"])
        gold_B = batch["score"].to(predicted_B.dtype)
        known_B = ~gold_B.isnan()
        loss = mse_loss(predicted_B[known_B], gold_B[known_B], reduction="sum")
        return loss, int(known_B.sum())

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        known_B = ~batch["score"].isnan()
        first_B, second_B = widened(first["score"]), widened(second["score"])
        return mse_loss(first_B[known_B], second_B[known_B], reduction="sum") / 2


def multi_hot(ids_BN1: Tensor, labels: int) -> Tensor:
    """Lists of label ids padded with IGNORE -> (B, L) of booleans."""
    ids_BN = ids_BN1.squeeze(-1)
    # padding is written to one column too many, which is then cut off
    column_BN = torch.where(ids_BN == IGNORE, labels, ids_BN)
    hot = torch.zeros(ids_BN.size(0), labels + 1, dtype=torch.bool, device=ids_BN.device)
    return hot.scatter(1, column_BN, True)[:, :labels]
