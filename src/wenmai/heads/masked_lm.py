"""Guess the hidden tokens: BERT's pre-training head with tied weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu
from torch.nn.functional import linear as affine

from wenmai.heads.cross_entropy import one_of_labels
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs, linear, widened

ASKED = -1
"""The target of a mask that the user wrote: nobody knows what belongs there. Only prediction has such targets."""


class MaskedLMHead(Head):
    """Dense, GELU, LayerNorm, then the word embeddings as the output matrix (Devlin et al. 2019).

    Outputs:
        ``logits`` (B, T, V) over the vocabulary. V is so large that all logits would be most of a step's
        memory, so training gets them for the M hidden tokens only, (M, V), and evaluation gets three numbers
        a token instead, each (B, T) and 0 where nothing was hidden: ``loss``, ``counted`` (1), and ``right``
        (1 if the best guess is). Where the user asks, evaluation gets ``asked_logits`` (B, N, V) as well, of each
        row's masks in their order and zeros behind them, N being the most in a row.

    Targets:
        ``original`` (B, T), the id that was hidden, ASKED where a user asks for it, IGNORE elsewhere. The loss is
        cross-entropy, the count M; so is the divergence of two passes.

    Args:
        hidden_size: H.
        word_embeddings: the backbone's own module, whose weight (V, E) is shared and not copied (Press & Wolf
            2017). It stays out of this module's children, because the backbone trains, moves and saves it already;
            registered twice it would be in the state twice, which safetensors refuses. So move, copy and load
            the head together with its backbone, and build it after the vocabulary has been resized.
        layer_norm_eps: of the LayerNorm, BERT's by default.
        label_smoothing: share of the target that is spread evenly over the vocabulary (Szegedy et al. 2016).
            Evaluation does without: its loss is comparable between models.
    """

    defines_divergence = True
    token_axes: ClassVar = {"logits": (1,), "loss": (1,), "counted": (1,), "right": (1,)}

    def __init__(
        self,
        hidden_size: int,
        word_embeddings: nn.Embedding,
        *,
        layer_norm_eps: float = 1e-12,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.label_smoothing = label_smoothing
        vocabulary, width = word_embeddings.weight.shape
        self.dense = linear(hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(word_embeddings.weight.new_zeros(vocabulary))
        # a tuple, since a module that is assigned directly gets registered; and the module, not its weight, since
        # training in shards puts other parameters into modules
        self._tied = (word_embeddings,)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        return {"logits": self.guesses(hidden_BTH)}

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return None if purpose == "predict" else batch["original"] != IGNORE

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        return {"logits": self.guesses(hidden_BTH[batch["original"] != IGNORE])}

    def evaluation_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        original_BT = batch["original"]
        asked_BT = original_BT == ASKED
        hidden_away_BT = (original_BT != IGNORE) & ~asked_BT
        original_M = original_BT[hidden_away_BT]
        logits_MV = widened(self.guesses(hidden_BTH[hidden_away_BT]))
        loss_M = cross_entropy(logits_MV, original_M, reduction="none")
        right_M = logits_MV.argmax(dim=-1) == original_M
        nothing_BT = loss_M.new_zeros(original_BT.shape)
        outputs = {
            "loss": nothing_BT.masked_scatter(hidden_away_BT, loss_M),
            "counted": hidden_away_BT.to(loss_M.dtype),
            "right": nothing_BT.masked_scatter(hidden_away_BT, right_M.to(loss_M.dtype)),
        }
        if asked_BT.any():
            outputs["asked_logits"] = self._asked_logits(hidden_BTH, asked_BT)
        return outputs

    def _asked_logits(self, hidden_BTH: Tensor, asked_BT: Tensor) -> Tensor:
        row_M, place_M = asked_BT.nonzero(as_tuple=True)
        slot_M = asked_BT.cumsum(dim=1)[row_M, place_M] - 1
        logits_MV = self.guesses(hidden_BTH[row_M, place_M])
        rows, most = len(asked_BT), int(asked_BT.sum(dim=1).max())
        logits_BNV = logits_MV.new_zeros(rows, most, logits_MV.shape[1])
        logits_BNV[row_M, slot_M] = logits_MV
        return logits_BNV

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Takes the outputs of :meth:`training_outputs` and of :meth:`forward` alike."""
        hidden_away_BT = batch["original"] != IGNORE
        return one_of_labels(
            _at(hidden_away_BT, outputs),
            batch["original"][hidden_away_BT],
            label_smoothing=self.label_smoothing,
        )

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        """Takes the same outputs as :meth:`loss`."""
        hidden_away_BT = batch["original"] != IGNORE
        return softmax_divergence(_at(hidden_away_BT, first), _at(hidden_away_BT, second)).sum()

    def guesses(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary at some tokens: (..., H) -> (..., V)."""
        return affine(self.norm(gelu(self.dense(hidden))), self._tied[0].weight, self.bias)


def _at(hidden_away_BT: Tensor, outputs: Outputs) -> Tensor:
    """(M, V) from either form of the logits."""
    logits = outputs["logits"]
    return logits[hidden_away_BT] if logits.dim() == 3 else logits
