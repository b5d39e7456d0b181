"""What a text wants and which of its words say how: intents of the row, and a slot tag for every token."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wenmai.heads.classification import ClassificationHead, multi_hot
from wenmai.heads.crf import CRFHead, chain_divergences, chain_losses
from wenmai.heads.cross_entropy import each_label
from wenmai.heads.divergence import sigmoid_divergence, softmax_divergence
from wenmai.heads.head import IGNORE, INITIAL_DEVIATION, Head, Outputs, widened
from wenmai.heads.pooling import Pooling
from wenmai.heads.tagging import TaggingHead
from wenmai.heads.viterbi import Allowed


class SlotFillingHead(Head):
    """Intents and slots from the same hidden states (joint BERT, Chen, Zhuo & Wang 2019, arXiv:1902.10909).

    The loss of a row is ``-log p(intents) + λ · -log p(tags) / tokens``: both parts are about one decision in size, and
    both are a row's own, so that accumulation and processes can't change their proportion.

    ``conditioned`` adds to each token's hidden state the mean of learned vectors of the intents, weighted by their
    probabilities, before its tag is decided: a slot then knows what the text is likely to want (Qin et al. 2019,
    https://aclanthology.org/D19-1214, who concatenate it; Dao et al. 2021, arXiv:2104.02021, the soft weights). Worth a
    try where the same words are other slots under other intents; the vectors start near 0.

    Outputs:
        ``intent_logits`` (B, I), ``logits`` (B, T, L), and with ``crf`` ``transitions`` (B, L + 2, L).

    Targets:
        ``tags`` (B, T), ids or IGNORE. One intent a row: ``label`` (B,), the id or IGNORE. Several: ``labels``
        (B, N, 1), the ids that hold, padded with IGNORE. The count is rows.

    The divergence of two passes is that of the intents and λ times that of the tags, divided like the loss.

    Args:
        hidden_size: H.
        intents, tags: I and L.
        pooling: tokens to the vector that the intents are read from.
        several: one sigmoid an intent instead of a softmax over them.
        crf: whether tags are decided for the whole row (:class:`CRFHead`) or each by itself.
        allowed: of the CRF.
        conditioned: see above.
        slot_weight: λ.
        dropout: rate on the hidden states of both parts, training only.
    """

    defines_divergence = True
    token_axes: ClassVar = {"logits": (1,)}

    def __init__(
        self,
        hidden_size: int,
        intents: int,
        tags: int,
        *,
        pooling: Pooling,
        several: bool,
        crf: bool,
        allowed: Allowed | None,
        conditioned: bool,
        slot_weight: float,
        dropout: float,
    ):
        super().__init__()
        self.slot_weight = slot_weight
        self.intents = ClassificationHead(
            hidden_size, intents, pooling=pooling, dropout=dropout, multi_label=several
        )
        self.slots: CRFHead | TaggingHead = (
            CRFHead(hidden_size, tags, dropout=dropout, allowed=allowed)
            if crf
            else TaggingHead(hidden_size, tags, dropout=dropout)
        )
        self.wanted = nn.Embedding(intents, hidden_size) if conditioned else None
        if self.wanted is not None:
            nn.init.normal_(self.wanted.weight, std=INITIAL_DEVIATION)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        intent_logits_BI = self.intents(hidden_BTH, mask_BT)["logits"]
        if self.wanted is not None:
            hidden_BTH = hidden_BTH + (self._shares(intent_logits_BI) @ self.wanted.weight)[:, None]
        return {"intent_logits": intent_logits_BI, **self.slots(hidden_BTH, mask_BT)}

    def _shares(self, logits_BI: Tensor) -> Tensor:
        """(B, I): how much of each intent, in the precision of the logits."""
        wide_BI = widened(logits_BI)
        if not self.intents.multi_label:
            return wide_BI.softmax(dim=-1).to(logits_BI.dtype)
        holds_BI = wide_BI.sigmoid()
        return (holds_BI / holds_BI.sum(dim=-1, keepdim=True)).to(logits_BI.dtype)

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        intent_logits_BI = outputs["intent_logits"]
        if self.intents.multi_label:
            holds_BI = multi_hot(batch["labels"], intent_logits_BI.size(1))
            intents = each_label(intent_logits_BI, holds_BI)
        else:
            intents = cross_entropy(
                widened(intent_logits_BI), batch["label"], ignore_index=IGNORE, reduction="sum"
            )
        slots_B = self._tag_losses(outputs, batch["tags"]) / _tagged(batch["tags"])
        return intents + self.slot_weight * slots_B.sum(), len(intent_logits_BI)

    def _tag_losses(self, outputs: Outputs, tags_BT: Tensor) -> Tensor:
        """(B,), summed over the tokens of each row."""
        if isinstance(self.slots, CRFHead):
            return chain_losses(outputs["logits"], outputs["transitions"][0], tags_BT, self.slots.allowed)
        logits_BLT = widened(outputs["logits"]).transpose(1, 2)
        return cross_entropy(logits_BLT, tags_BT, ignore_index=IGNORE, reduction="none").sum(dim=1)

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        logits = (first["intent_logits"], second["intent_logits"])
        if self.intents.multi_label:
            intents = sigmoid_divergence(*logits).sum()
        else:
            known_B = batch["label"] != IGNORE
            intents = softmax_divergence(*logits).masked_fill(~known_B, 0.0).sum()
        tags_BT = batch["tags"]
        if isinstance(self.slots, CRFHead):
            slots_B = chain_divergences(
                first["logits"], second["logits"], first["transitions"][0], tags_BT, self.slots.allowed
            )
        else:
            apart_BT = softmax_divergence(first["logits"], second["logits"])
            slots_B = apart_BT.masked_fill(tags_BT == IGNORE, 0.0).sum(dim=1)
        return intents + self.slot_weight * (slots_B / _tagged(tags_BT)).sum()


def _tagged(tags_BT: Tensor) -> Tensor:
    """(B,): how many tokens of each row have a tag, 1 where none has."""
    return (tags_BT != IGNORE).sum(dim=1).clamp(min=1)
