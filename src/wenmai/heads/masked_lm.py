"""Guess the hidden tokens: BERT's pre-training head with tied weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu
from torch.nn.functional import linear as affine

from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened


class MaskedLMHead(Head):
    """Dense, GELU, LayerNorm, then the word embeddings as the output matrix (Devlin et al. 2019).

    Outputs:
        ``logits`` (B, T, V) over the vocabulary. V is so large that all logits would be most of a step's
        memory, so training gets them for the M hidden tokens only, (M, V), and evaluation gets three numbers
        a token instead, each (B, T) and 0 where nothing was hidden: ``loss``, ``counted`` (1), and ``right``
        (1 if the best guess is).

    Targets:
        ``original`` (B, T), the id that was hidden, IGNORE elsewhere. The loss is cross-entropy, the count M.

    Args:
        hidden_size: H.
        embedding_weight: (V, E), the backbone's own parameter, shared and not copied (Press & Wolf 2017). It
            stays out of this module's parameters, because the backbone trains, moves and saves it already;
            registered twice it would be in the state twice, which safetensors refuses. So move, copy and load
            the head together with its backbone, and build it after the vocabulary has been resized.
        layer_norm_eps: of the LayerNorm, BERT's by default.
    """

    token_axes: ClassVar = {"logits": (1,), "loss": (1,), "counted": (1,), "right": (1,)}

    def __init__(self, hidden_size: int, embedding_weight: Tensor, *, layer_norm_eps: float = 1e-12):
        super().__init__()
        vocabulary, width = embedding_weight.shape
        self.dense = linear(hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(embedding_weight.new_zeros(vocabulary))
        # a tuple, since a parameter that is assigned directly gets registered
        self._tied = (embedding_weight,)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self._logits(hidden_BTH)}

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        return {"logits": self._logits(hidden_BTH[batch["original"] != IGNORE])}

    def evaluation_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        original_BT = batch["original"]
        hidden_away_BT = original_BT != IGNORE
        original_M = original_BT[hidden_away_BT]
        logits_MV = widened(self._logits(hidden_BTH[hidden_away_BT]))
        loss_M = cross_entropy(logits_MV, original_M, reduction="none")
        right_M = logits_MV.argmax(dim=-1) == original_M
        nothing_BT = loss_M.new_zeros(original_BT.shape)
        return {
            "loss": nothing_BT.masked_scatter(hidden_away_BT, loss_M),
            "counted": hidden_away_BT.to(loss_M.dtype),
            "right": nothing_BT.masked_scatter(hidden_away_BT, right_M.to(loss_M.dtype)),
        }

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Takes the outputs of :meth:`training_outputs` and of :meth:`forward` alike."""
        hidden_away_BT = batch["original"] != IGNORE
        logits = outputs["logits"]
        logits_MV = logits[hidden_away_BT] if logits.dim() == 3 else logits
        loss = cross_entropy(widened(logits_MV), batch["original"][hidden_away_BT], reduction="sum")
        return loss, len(logits_MV)

    def _logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V)."""
        return affine(self.norm(gelu(self.dense(hidden))), self._tied[0], self.bias)
