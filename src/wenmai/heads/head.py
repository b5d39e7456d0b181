"""What a head is: hidden states in, named outputs out, and a loss as a sum with its number of terms.

Shape letters of all heads: B rows, T tokens, H hidden width, L labels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]
"""Named tensors, the first dimension B: exactly what export traces and what a task decodes."""

IGNORE = -100
"""The target id that no loss counts. The same number as ``wenmai.data.rows.IGNORE``, written again because
heads and data do not import each other; it is also torch's own ``ignore_index``."""

RARE = 1 / 64
"""How many of the tokens are expected to be the first, or the last, of something that is to be found."""

INITIAL_DEVIATION = 0.02
"""Standard deviation of fresh linear weights, BERT's ``initializer_range``."""


class Head(nn.Module, ABC):
    """Turns the backbone's hidden states into outputs, and outputs into a loss. Tensors only."""

    needs_whole_step: bool = False
    """The loss compares rows with each other (in-batch negatives): the loop shows it the outputs of the
    whole optimizer step at once, so that micro-batches and processes do not change the result."""

    defines_divergence: ClassVar[bool] = False
    """Whether :meth:`divergence` is defined: what R-Drop needs."""

    fitted: ClassVar[bool] = False
    """Whether part of it is not learned by gradients: the loop calls :meth:`fit` before it evaluates or saves."""

    token_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Per output, its dimensions that run over tokens: prediction cuts the padding off there, and export
    leaves them free. Sizes can't tell: a batch of T = L + 2 tokens looks like a matrix of transitions."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Inputs of the rows, (B, T) each, that :meth:`forward` takes after the mask, in this order: where the entities of
    a pair stand, say. The backbone passes over names that it does not know."""

    @abstractmethod
    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Outputs:
        """Outputs for prediction. Positions where ``mask_BT`` is 0 must not influence the others."""

    def of_batch(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        """:meth:`forward` with what it reads of the batch."""
        outputs: Outputs = self(hidden_BTH, mask_BT, *(batch[name] for name in self.reads))
        return outputs

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        """Which hidden states the head looks at, booleans (B, T); None: all. The encoder's last layer may leave the
        others out (they are 0 then), which is much of its work in a small encoder.

        Args:
            purpose: ``train``, ``evaluate`` or ``predict``; targets are there in the first two.
        """
        return None

    def added_to_words(self, batch: dict[str, Tensor]) -> Tensor | None:
        """What the head knows of tokens beside their ids, such as their place on a page: (B, T, E), which is added to
        the encoder's word embeddings, E wide. None: nothing."""
        return None

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        """Outputs for the loss; a head overrides this where the targets make them cheaper (masked LM)."""
        return self.of_batch(hidden_BTH, mask_BT, batch)

    def evaluation_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        """Outputs for scoring rows with targets; a head overrides this where those of prediction are too
        large to leave the device (masked LM)."""
        return self.of_batch(hidden_BTH, mask_BT, batch)

    @abstractmethod
    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """The SUM of the loss terms (scalar) and their number; the loop divides once a step.

        Without a single term the sum is 0, still part of the graph, and the number is 0.

        Args:
            outputs: of :meth:`training_outputs`.
            batch: ``attention_mask`` and the targets, as :func:`wenmai.data.rows.collate` makes them.
        """

    def fit(self, outputs: Outputs, targets: dict[str, Tensor]) -> None:
        """Sets what gradients do not learn, a function of the training set under the present weights.

        Args:
            outputs: of prediction, all rows of the training set one below the other.
            targets: of the same rows.

        Raises:
            NotImplementedError: :attr:`fitted` is false.
        """
        raise NotImplementedError(f"a {type(self).__name__} learns by gradients alone")

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        """How far apart the answers of two passes over the same batch are, for R-Drop.

        The SUM (scalar) over the same terms as the loss counts of ``¼ (KL(p‖q) + KL(q‖p))``, see
        :mod:`wenmai.heads.divergence`; 0 where both passes answer the same.

        Args:
            first, second: of :meth:`training_outputs`, with different dropout.
            batch: as for :meth:`loss`.

        Raises:
            NotImplementedError: :attr:`defines_divergence` is false.
        """
        raise NotImplementedError(f"R-Drop is not defined for {type(self).__name__}")


def linear(inputs: int, outputs: int, *, expected: float = 0.5) -> nn.Linear:
    """A fresh linear layer: weights from N(0, 0.02²), biases 0, as BERT starts its heads.

    Args:
        expected: the probability that a yes or no begins with; :data:`RARE` where hardly any answer is yes (Lin et al.
            2017, arXiv:1708.02002). Else the first hundreds of steps teach nothing but that.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_DEVIATION)
    nn.init.constant_(layer.bias, math.log(expected / (1 - expected)))
    return layer


def widened(tensor: Tensor) -> Tensor:
    """Half precision as fp32, fp32 and fp64 as they are: losses add many small terms."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
