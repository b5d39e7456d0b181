"""What a model costs: memory for training by its parts, and floating-point operations a token. Formulas only.

Shape letters: H hidden width, I width inside a layer, L layers, T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adamw", "adafactor", "lion"]
Precision = Literal["fp32", "mixed"]
"""``mixed`` is bf16 or fp16 through autocast: weights, gradients and optimizer stay in fp32."""

FLOAT, HALF, FLAG = 4, 2, 1
"""Bytes of a number in fp32, in bf16 or fp16, and of a dropout mask's element."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of an encoder that its costs follow from.

    Args:
        heads, head_size: attention's; their product is the width of queries, keys and values.
        intermediate_size: I, the width between a layer's two feed-forward matrices.
        vocabulary: rows of the word embeddings.
        positions: tokens of the longest row; None if there is no limit.
        hidden_dropout, attention_dropout: rates while training.
    """

    kind: str
    layers: int
    hidden_size: int
    heads: int
    head_size: int
    intermediate_size: int
    activation: str
    vocabulary: int
    positions: int | None
    hidden_dropout: float
    attention_dropout: float


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Args:
        multiplies: it is the matrix of a linear layer, so mixed precision keeps a second, half-size copy of it.
    """

    shape: tuple[int, ...]
    trainable: bool
    multiplies: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Memory:
    """Bytes held during a training step, by what they are for.

    Args:
        copies: half-precision copies of matrices, which autocast keeps from the forward to the backward pass.
        average: the moving or plain average of the weights that learn, if one is kept.
    """

    weights: int
    copies: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.copies + self.gradients + self.optimizer + self.average + self.activations


def training_memory(
    weights: Sequence[Weight],
    architecture: Architecture,
    *,
    buffers: int,
    tokens: int,
    length: int,
    precision: Precision,
    optimizer: Optimizer,
    average: bool = False,
    checkpointing: bool = False,
    fused_attention: bool = True,
    logits_a_token: float = 0.0,
) -> Memory:
    """The memory of one training step with weights in fp32.

    Weights take 4 bytes a number, and gradients and the average as much for every number that learns. The
    optimizer's part is :func:`optimizer_bytes`, that of activations :func:`activation_bytes`. What kernels need for a
    moment, the batches and the framework itself (about half a gigabyte on a GPU) come on top.

    Args:
        buffers: bytes of the model's buffers.
        tokens: of one micro-batch, padding counted.
        length: T of its rows.
        average: ``train.ema_decay`` or ``train.swa_start`` is set.
        checkpointing, fused_attention, logits_a_token: see :func:`activation_bytes`.
    """
    trained = [weight for weight in weights if weight.trainable]
    return Memory(
        weights=FLOAT * sum(weight.size for weight in weights) + buffers,
        copies=HALF * sum(w.size for w in weights if w.multiplies) if precision == "mixed" else 0,
        gradients=FLOAT * sum(weight.size for weight in trained),
        optimizer=sum(optimizer_bytes(weight.shape, optimizer) for weight in trained),
        average=FLOAT * sum(weight.size for weight in trained) if average else 0,
        activations=round(
            tokens
            * activation_bytes(
                architecture,
                length=length,
                precision=precision,
                checkpointing=checkpointing,
                fused_attention=fused_attention,
                logits_a_token=logits_a_token,
            )
        ),
    )


def optimizer_bytes(shape: tuple[int, ...], optimizer: Optimizer) -> int:
    """What an optimizer keeps for one parameter, in fp32.

    AdamW two moments (Loshchilov & Hutter 2019), Lion one (Chen et al. 2023), Adafactor (Shazeer & Stern 2018) a row
    and a column of sums for a matrix and one moment for a vector; AdamW and Adafactor also the number of steps.
    """
    size = math.prod(shape)
    if optimizer == "lion":
        return FLOAT * size
    if optimizer == "adamw":
        return FLOAT * (2 * size + 1)
    factored = size // shape[-1] + size // shape[-2] if len(shape) > 1 else size
    return FLOAT * (factored + 1)


def activation_bytes(
    architecture: Architecture,
    *,
    length: int,
    precision: Precision,
    checkpointing: bool,
    fused_attention: bool,
    logits_a_token: float,
) -> float:
    """An estimate of what the backward pass needs of the forward pass, in bytes a token.

    Counted as in Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large Transformer Models",
    arXiv:2205.05198, section 4.1: 34 H bytes a layer when all is in 16 bits, and 5 a T more for a heads whose
    attention is not fused), for a layer as PyTorch runs it:

    * fp32: its input, queries, keys, values, what attention gives, the inputs of two norms and of the feed-forward
      part make 8 H numbers, before and after the activation function 2 I: ``4 (8 H + 2 I)``
    * mixed: linear layers keep half-size copies of their inputs (queries, keys and values one each), norms
      keep theirs in fp32: ``2 (8 H + 2 I) + 4 (2 H)``
    * dropout: two masks of H bytes
    * attention that is not fused: its probabilities, and with dropout those that are left and a mask

    and once, for the embeddings, the input of a norm and a dropout mask. Architectures with other layers (gated
    feed-forward parts, no bias) come out within a factor of about 1.5.

    Args:
        checkpointing: only the inputs of the layers are kept, and one layer is computed again at a time.
        fused_attention: the probabilities are never in memory as a whole.
        logits_a_token: numbers that a language model's head computes, on average a token; they and
            their logarithms are kept in fp32.
    """
    hidden, inside = architecture.hidden_size, architecture.intermediate_size
    mask = FLAG * hidden if architecture.hidden_dropout else 0
    half = precision == "mixed"
    layer: float = (24 * hidden + 4 * inside if half else FLOAT * (8 * hidden + 2 * inside)) + 2 * mask
    if not fused_attention:
        number = HALF if half else FLOAT
        dropped = number + FLAG if architecture.attention_dropout else 0
        layer += architecture.heads * length * (number + dropped)
    kept = architecture.layers * layer
    if checkpointing:
        kept = architecture.layers * FLOAT * hidden + layer
    return kept + FLOAT * hidden + mask + 2 * FLOAT * logits_a_token


@dataclass(frozen=True)
class Product:
    """A linear layer's use in one pass through the model.

    Args:
        size: numbers in its matrix.
        vectors: how many vectors it is applied to, a token.
        input_learns: something before it is trained, so the gradient goes through it.
        weight_learns: it is trained itself.
    """

    size: int
    vectors: float
    input_learns: bool
    weight_learns: bool

    @property
    def forward(self) -> float:
        return 2 * self.size * self.vectors

    @property
    def training(self) -> float:
        return self.forward * (1 + self.input_learns + self.weight_learns)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations a token; one multiplication and one addition are two.

    Args:
        matrices, attention: of the forward pass: linear layers, and attention between tokens.
        training: of a forward and a backward pass.
    """

    matrices: float
    attention: float
    training: float

    @property
    def forward(self) -> float:
        return self.matrices + self.attention


def operations(
    products: Sequence[Product], architecture: Architecture, *, length: int, learning_layers: int
) -> Operations:
    """Operations a token in rows of ``length`` tokens.

    A matrix of n numbers takes ``2 n`` for every vector (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), attention
    ``4 T`` times its width a layer: queries with keys, and probabilities with values. The backward pass takes
    as much again for the gradient of each factor, so training takes three times the forward pass where all of the
    model learns. Left out are norms, activation functions and softmax, which are no matrix products, what checkpointing
    and fused attention compute again, and attention to relative positions (DeBERTa).

    Args:
        learning_layers: how many layers the gradient goes through.
    """
    width = architecture.heads * architecture.head_size
    attention = 4 * length * width
    matrices = sum(product.forward for product in products)
    return Operations(
        matrices=matrices,
        attention=attention * architecture.layers,
        training=sum(product.training for product in products)
        + attention * (architecture.layers + 2 * learning_layers),
    )
