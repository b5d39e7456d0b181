"""Backbone and head as one module: what the loop trains, the bundle saves and the predictor runs."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from wenmai.backbones.adapters import attach_adapter
from wenmai.backbones.dropout import key_dropout
from wenmai.backbones.load import Backbone
from wenmai.backbones.new_tokens import extend_vocabulary
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError
from wenmai.heads.head import Head, Outputs
from wenmai.tasks.task import Task

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
        added_BTE = self.head.added_to_words(batch)
        if added_BTE is not None:
            # beside what adversarial training adds
            batch = {**batch, "perturbation": added_BTE + batch.get("perturbation", 0.0)}
        hidden_BTH = self.backbone(batch, self.head.tokens_read(batch, purpose))
        mask_BT = batch["attention_mask"]
        with self.backbone.keyed(batch):
            if purpose == "train":
                return self.head.training_outputs(hidden_BTH, mask_BT, batch)
            if purpose == "evaluate":
                return self.head.evaluation_outputs(hidden_BTH, mask_BT, batch)
            return self.head.of_batch(hidden_BTH, mask_BT, batch)


def build_model(task: Task[Any, Any], backbone: Backbone, tokenizer: Tokenizer) -> tuple[Model, Tokenizer]:
    """A fresh model of a task, and the tokenizer with the tokens that are the task's own.

    Raises:
        UserError: the task, its tokens or the architecture do not go with the adapter.
    """
    known = tokenizer
    tokenizer = with_own_tokens(task, backbone, tokenizer)
    refuse_adapter(task, backbone, extended=tokenizer is not known)
    attach_adapter(backbone, tokenizer)
    task.read_vocabulary(tokenizer)
    head = task.build_head(backbone)
    task.start_head(head, backbone)
    return Model(backbone, head), tokenizer


def refuse_adapter(task: Task[Any, Any], backbone: Backbone, *, extended: bool) -> None:
    """Makes sure that the task goes with the adapter, if there is one.

    Args:
        extended: the task brought tokens that the vocabulary did not have.

    Raises:
        UserError: it does not.
    """
    adapter = backbone.adapter
    if adapter is None:
        return
    if adapter.in_front and task.generation() is not None:
        raise UserError(
            f"backbone.adapter.method: {adapter.method}: {task.name} writes texts token by token, before which no "
            "vectors stand; take lora"
        )
    if adapter.save == "adapter" and extended:
        raise UserError(
            f"backbone.adapter.save: adapter leaves the encoder out, but {task.name} gives it tokens that it does not "
            "have; take save: whole"
        )


def with_own_tokens(task: Task[Any, Any], backbone: Backbone, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the task's own tokens, for which the backbone gets embeddings, in place; as they are where
    they have them already."""
    wanted = task.own_tokens
    known = tokenizer.pretrained.get_vocab() if wanted else {}
    missing = [token for token in wanted if token.text not in known]
    return extend_vocabulary(backbone, tokenizer, missing)[0] if missing else tokenizer
