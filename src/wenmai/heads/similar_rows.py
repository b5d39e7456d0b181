"""Rows of one label near each other, then a linear classifier on where they are (Tunstall et al. 2022, SetFit)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as to_unit_length

from wenmai.heads.head import IGNORE, Head, Outputs, widened
from wenmai.heads.pooling import Pooling, pool, tokens_pooled


class SimilarRowsHead(Head):
    """What gradients teach is the encoder; the classifier is fitted to its answers when they are asked for.

    Outputs:
        ``embedding`` (B, H), and ``logits`` (B, L), linear in it.

    Targets:
        ``label`` (B,), the id or IGNORE. Over all pairs of rows of the step the squared error of the cosine, which is
        to be 1 within a label and 0 across: the mean over pairs of one label and the mean over the others, averaged, so
        that neither kind outweighs the other (arXiv:2209.11055 draws as many pairs of each). A step is one term, or
        none if it has no pair.

    The loss looks at pairs and the logits are not learned by it, so R-Drop is not defined.

    Args:
        hidden_size: H.
        labels: L.
        pooling: how T vectors become one.
        inverse_regularization: C of the logistic regression: the smaller, the smaller its weights.
    """

    needs_whole_step = True
    fitted: ClassVar[bool] = True

    def __init__(self, hidden_size: int, labels: int, *, pooling: Pooling, inverse_regularization: float):
        super().__init__()
        self.pooling = pooling
        self.inverse_regularization = inverse_regularization
        self.register_buffer("weight_LH", torch.zeros(labels, hidden_size))
        self.register_buffer("bias_L", torch.zeros(labels))
        self.weight_LH: Tensor
        self.bias_L: Tensor

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return tokens_pooled(batch["attention_mask"], self.pooling)

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        # the loop asks for the gradient of each output, and the loss looks at no logits
        return {"embedding": self._rows(hidden_BTH, mask_BT)}

    def _rows(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, H)."""
        return widened(pool(hidden_BTH, mask_BT, self.pooling))

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        row_BH = self._rows(hidden_BTH, mask_BT)
        weight_LH, bias_L = self.weight_LH.to(row_BH.dtype), self.bias_L.to(row_BH.dtype)
        return {"embedding": row_BH, "logits": row_BH @ weight_LH.T + bias_L}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        known_B = batch["label"] != IGNORE
        unit_NH = to_unit_length(widened(outputs["embedding"])[known_B], dim=-1)
        label_N = batch["label"][known_B]
        first, second = torch.triu_indices(len(label_N), len(label_N), offset=1, device=label_N.device)
        # all cosines at once: both vectors of every pair would be H times as large
        with torch.autocast(unit_NH.device.type, enabled=False):
            cosine_P = (unit_NH @ unit_NH.T)[first, second]
        same_P = label_N[first] == label_N[second]
        kinds = [((1 - cosine_P[same_P]) ** 2), cosine_P[~same_P] ** 2]
        means = [errors.mean() for errors in kinds if len(errors)]
        if not means:
            return outputs["embedding"].sum() * 0.0, 0
        return torch.stack(means).mean(), 1

    def fit(self, outputs: Outputs, targets: dict[str, Tensor]) -> None:
        """Makes the classifier the logistic regression of ``label`` on ``embedding``, of all rows at once."""
        known_N = targets["label"] != IGNORE
        weight_LH, bias_L = logistic_regression(
            outputs["embedding"][known_N],
            targets["label"][known_N],
            labels=len(self.bias_L),
            inverse_regularization=self.inverse_regularization,
        )
        self.weight_LH.copy_(weight_LH)
        self.bias_L.copy_(bias_L)


@torch.enable_grad()
def logistic_regression(
    x_NH: Tensor, label_N: Tensor, *, labels: int, inverse_regularization: float
) -> tuple[Tensor, Tensor]:
    """Weights (L, H) and biases (L,) that make ``C * Σ -log softmax(W x + b)[label] + ||W||² / 2`` smallest.

    Multinomial, in double precision, by L-BFGS; the biases are free. The same numbers as scikit-learn's
    ``LogisticRegression(C=C)`` for three labels and more.
    """
    x_NH = x_NH.detach().double()
    weight_LH = x_NH.new_zeros(labels, x_NH.size(1), requires_grad=True)
    bias_L = x_NH.new_zeros(labels, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight_LH, bias_L],
        max_iter=1000,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        errors = cross_entropy(x_NH @ weight_LH.T + bias_L, label_N, reduction="sum")
        value: Tensor = errors * inverse_regularization + weight_LH.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(objective)  # type: ignore[no-untyped-call]
    return weight_LH.detach(), bias_L.detach()
