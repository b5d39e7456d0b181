"""Models of transformers together with the head that they were trained with: classifiers and masked language models.

wenmai trains heads of its own. These are for what others have trained: a model for natural language inference, or a
pre-trained masked language model, used as it is. Shape letters: B rows, T tokens, M masks, H hidden width, L labels,
V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput

from wenmai.backbones.load import put_together
from wenmai.backbones.model_files import read_config, read_weights
from wenmai.backbones.reading import read_tokenizer
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError

HeadKind = Literal["classifier", "masked_lm"]

ARCHITECTURES: dict[str, HeadKind] = {
    "ForSequenceClassification": "classifier",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
}
"""Ends of the class names that ``architectures`` in config.json holds."""

TOLERANCE = 1e-4
"""Of the largest logit: above rounding, below what a part of the head that was left out changes."""


class Classifier(nn.Module):
    """A model of transformers that gives a row logits.

    Args:
        model: an ``AutoModelForSequenceClassification``.
        inputs: what of a batch it reads.
    """

    def __init__(self, model: Any, inputs: list[str]):
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, L)."""
        logits: Tensor = self.model(**{name: batch[name] for name in self.inputs if name in batch}).logits
        return logits


class MaskGuesser(nn.Module):
    """A masked language model of transformers that guesses at some tokens only: its output matrix is most of the work
    of a small one.

    Args:
        model: an ``AutoModelForMaskedLM``.
        pretrained: its tokenizer.

    Raises:
        UserError: its head reads more than the encoder's hidden states, which is found out by trying.
    """

    def __init__(self, model: Any, pretrained: Any):
        super().__init__()
        ids_BT = torch.tensor([pretrained("今天[MASK]气很好。")["input_ids"]])
        batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
        with torch.no_grad():
            expected_TV = model.eval()(**batch).logits[0]
        self.backbone, self.tokenizer = put_together(model.base_model, pretrained)
        self.given = _Given()
        setattr(model, model.base_model_prefix, self.given)
        self.head = model
        with torch.no_grad():
            found_TV = self(batch, torch.ones_like(ids_BT, dtype=torch.bool))
        if (found_TV - expected_TV).abs().max() > TOLERANCE * expected_TV.abs().max():
            raise UserError(
                f"the head of {type(model).__name__} can't be used apart from its encoder: take another model"
            )

    def forward(self, batch: dict[str, Tensor], asked_BT: Tensor) -> Tensor:
        """Logits (M, V) at the tokens that ``asked_BT`` marks, row by row."""
        self.given.hidden_1MH = self.backbone(batch, asked_BT)[asked_BT][None]
        logits_1MV: Tensor = self.head(input_ids=batch["input_ids"][asked_BT][None]).logits
        return logits_1MV[0]


class _Given(nn.Module):
    """In the place of an encoder: answers with hidden states that were computed elsewhere."""

    hidden_1MH: Tensor

    def forward(self, *args: Any, **options: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.hidden_1MH)


def head_kind(folder: Path) -> HeadKind | None:
    """Which head the model of a folder has, by its config.json; None: none, or one that is not of use here.

    Raises:
        UserError: the configuration is missing or damaged.
    """
    names = read_config(folder).architectures or []
    kinds = [kind for name in names for end, kind in ARCHITECTURES.items() if name.endswith(end)]
    return kinds[0] if kinds else None


def load_classifier(folder: Path) -> tuple[Classifier, Tokenizer, list[str]]:
    """The classifier of a folder with its head, its tokenizer, and its labels in the order of the logits.

    Raises:
        UserError: it can't be read, or a weight of the head is missing.
    """
    config, pretrained = read_config(folder), read_tokenizer(folder)
    model = read_weights(config, folder, AutoModelForSequenceClassification).eval()
    backbone, tokenizer = put_together(model.base_model, pretrained)
    if backbone.care is not None:
        raise UserError(
            f"{folder}: {config.model_type} models take padding for text: take a model of another architecture, such "
            "as bert, roberta or deberta"
        )
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    return Classifier(model, backbone.inputs), tokenizer, labels


def load_mask_guesser(folder: Path) -> MaskGuesser:
    """The masked language model of a folder with its head.

    Raises:
        UserError: it can't be read, or a weight of the head is missing.
    """
    pretrained = read_tokenizer(folder)
    if pretrained.mask_token is None:
        raise UserError(f"{folder}: its tokenizer has no mask token: it is no masked language model")
    return MaskGuesser(read_weights(read_config(folder), folder, AutoModelForMaskedLM), pretrained)
