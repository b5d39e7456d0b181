"""Say what comes next: a language model's output matrix."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import linear as affine

from wenmai.heads.cross_entropy import one_of_labels
from wenmai.heads.head import IGNORE, INITIAL_DEVIATION, Head, Outputs
from wenmai.heads.vocabulary_loss import token_losses, vocabulary_loss


class CausalLMHead(Head):
    """One matrix over the vocabulary: the word embeddings again, or one of its own (Radford et al. 2018, 2019).

    Outputs:
        ``logits`` (B, T, V), of what follows each token. Training gets ``loss`` (1,), their sum, instead, because
        all logits would be most of a step's memory (:mod:`wenmai.heads.vocabulary_loss`); evaluation three numbers
        a token, each (B, T) and 0 where nothing is to be said: ``loss``, ``counted`` (1), and ``right`` (1 if the
        best guess is).

    Targets:
        ``next`` (B, T), the id that follows, IGNORE where that does not count. The loss is cross-entropy, the count
        the ids that count.

    Args:
        hidden_size: H.
        word_embeddings: the backbone's own module. Tied, its weight is shared and not copied (Press & Wolf 2017), as
            in :class:`wenmai.heads.masked_lm.MaskedLMHead`.
        tied: whether it is the output matrix too.
        label_smoothing: share of the target that is spread evenly over the vocabulary (Szegedy et al. 2016), in
            training only.
    """

    token_axes: ClassVar = {"logits": (1,), "loss": (1,), "counted": (1,), "right": (1,)}

    def __init__(
        self,
        hidden_size: int,
        word_embeddings: nn.Embedding,
        *,
        tied: bool = True,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.output: nn.Linear | None = None
        # a tuple, since a module that is assigned directly gets registered
        self._tied = (word_embeddings,)
        if not tied:
            self.output = nn.Linear(hidden_size, word_embeddings.num_embeddings, bias=False)
            nn.init.normal_(self.output.weight, std=INITIAL_DEVIATION)

    @property
    def weight(self) -> Tensor:
        """The output matrix (V, H)."""
        return self._tied[0].weight if self.output is None else self.output.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V)."""
        return affine(hidden, self.weight)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self.logits(hidden_BTH)}

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return None if purpose == "predict" else batch["next"] != IGNORE

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        counts_BT = batch["next"] != IGNORE
        loss = vocabulary_loss(
            hidden_BTH[counts_BT],
            self.weight,
            batch["next"][counts_BT],
            label_smoothing=self.label_smoothing,
        )
        return {"loss": loss[None]}

    def evaluation_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        counts_BT = batch["next"] != IGNORE
        loss_M, right_M = token_losses(hidden_BTH[counts_BT], self.weight, batch["next"][counts_BT])
        nothing_BT = loss_M.new_zeros(counts_BT.shape)
        return {
            "loss": nothing_BT.masked_scatter(counts_BT, loss_M),
            "counted": counts_BT.to(loss_M.dtype),
            "right": nothing_BT.masked_scatter(counts_BT, right_M),
        }

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Takes the outputs of :meth:`training_outputs` and of :meth:`forward` alike."""
        counts_BT = batch["next"] != IGNORE
        if "loss" in outputs:
            return outputs["loss"].sum(), int(counts_BT.sum())
        return one_of_labels(
            outputs["logits"][counts_BT], batch["next"][counts_BT], label_smoothing=self.label_smoothing
        )
