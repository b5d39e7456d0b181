"""Backbone and head as one module: what the loop trains, the bundle saves and the predictor runs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from wenmai.backbones.dropout import key_dropout
from wenmai.backbones.load import Backbone
from wenmai.heads.head import Head, Outputs

Purpose = Literal["predict", "train", "evaluate"]


class Model(nn.Module):
    """Args: the two halves; their parameters are ``backbone.*`` and ``head.*``.

    Their dropout becomes a function of the rows' ``key`` (see :mod:`wenmai.backbones.dropout`).
    """

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone = backbone
        self.head = head
        key_dropout(self, backbone.keys)

    def forward(self, batch: dict[str, Tensor], purpose: Purpose = "predict") -> Outputs:
        """Outputs for prediction, for the loss (which a head may compute from targets only), or for scoring."""
        hidden_BTH = self.backbone(batch, self.head.tokens_read(batch, purpose))
        mask_BT = batch["attention_mask"]
        with self.backbone.keyed(batch):
            if purpose == "train":
                return self.head.training_outputs(hidden_BTH, mask_BT, batch)
            if purpose == "evaluate":
                return self.head.evaluation_outputs(hidden_BTH, mask_BT, batch)
            outputs: Outputs = self.head(hidden_BTH, mask_BT)
            return outputs
