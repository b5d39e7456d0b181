"""Which label's word fills the gap: a decision made by the pre-trained masked-LM head (Schick & Schütze 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from wenmai.heads.cross_entropy import one_of_labels
from wenmai.heads.divergence import softmax_divergence
from wenmai.heads.head import IGNORE, Head, Outputs, widened
from wenmai.heads.masked_lm import MaskedLMHead


class ClozeHead(Head):
    """Labels are words, and a row has K masks for them.

    The score of a word is the mean over its k pieces of ``log p(piece | mask)``, at the first k masks, p being the
    softmax over the whole vocabulary: so words of several pieces are not worse for being long. A label with several
    words has the logarithm of their mean probability. Nothing here is new to the model (arXiv:2001.07676).

    Outputs:
        ``logits`` (B, L), the labels' scores.

    Targets:
        ``label`` (B,), the id or IGNORE. The loss is cross-entropy over the labels, the count labelled rows; so is the
        divergence of two passes.

    Args:
        language_model: the head that answers at a mask.
        words: of every word the ids of its pieces.
        label_of_word: of every word its label.
        label_smoothing: share of the target that is spread evenly over all labels.
    """

    defines_divergence = True
    reads: ClassVar = ("slots",)
    """``slots`` (B, T): 1 to K at the masks, 0 elsewhere."""

    def __init__(
        self,
        language_model: MaskedLMHead,
        *,
        words: Sequence[Sequence[int]],
        label_of_word: Sequence[int],
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.lm = language_model
        self.label_smoothing = label_smoothing
        most = max(map(len, words))
        piece_WK = torch.tensor([[*word, *[0] * (most - len(word))] for word in words])
        share_WK = torch.tensor([[1 / len(word)] * len(word) + [0.0] * (most - len(word)) for word in words])
        mine_LW = torch.arange(max(label_of_word) + 1)[:, None] == torch.tensor(list(label_of_word))
        # made of the configuration, so a bundle need not hold them
        self.register_buffer("piece_WK", piece_WK, persistent=False)
        self.register_buffer("share_WK", share_WK, persistent=False)
        log_share_LW = (mine_LW / mine_LW.sum(dim=1, keepdim=True)).log()
        self.register_buffer("log_share_LW", log_share_LW, persistent=False)
        self.piece_WK: Tensor
        self.share_WK: Tensor
        self.log_share_LW: Tensor

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        return batch["slots"] > 0

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor, slots_BT: Tensor) -> Outputs:  # type: ignore[override]
        words, most = self.piece_WK.shape
        slot_K = torch.arange(1, most + 1, device=slots_BT.device)
        place_BK = (slots_BT[:, None, :] == slot_K[:, None]).long().argmax(dim=-1)
        at_BKH = hidden_BTH.gather(1, place_BK[..., None].expand(-1, -1, hidden_BTH.size(-1)))
        log_p_BKV = log_softmax(widened(self.lm(at_BKH, mask_BT)["logits"]), dim=-1)
        # len() would fix the number of rows in an exported graph
        piece_BKW = self.piece_WK.T.expand(slots_BT.size(0), most, words)
        score_BW = (log_p_BKV.gather(2, piece_BKW) * self.share_WK.T).sum(dim=1)
        return {"logits": (score_BW[:, None, :] + self.log_share_LW).logsumexp(dim=-1)}

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        return one_of_labels(outputs["logits"], batch["label"], label_smoothing=self.label_smoothing)

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        known_B = batch["label"] != IGNORE
        return softmax_divergence(first["logits"][known_B], second["logits"][known_B]).sum()
