"""What a model is: parameters by module, architecture, and what training it would take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from wenmai.backbones.load import Backbone
from wenmai.backbones.plain import module_by_module
from wenmai.config import TrainConfig
from wenmai.errors import UserError
from wenmai.heads.auxiliary_lm import WithLanguageModel
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.cloze import ClozeHead
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.tasks.masked_lm import MaskedLMConfig
from wenmai.tasks.task import Task
from wenmai.training.costs import (
    Architecture,
    Memory,
    Operations,
    Optimizer,
    Precision,
    Product,
    Weight,
    operations,
    training_memory,
)
from wenmai.training.opened import Opened, open_model
from wenmai.training.setup import DEFAULT_TOKENS_PER_STEP, step_size

DEFAULT_LENGTH, DEFAULT_DEPTH = 128, 4
PROBE_ROWS, PROBE_TOKENS = 2, 8
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class ModuleSize:
    """A module and its parts. A parameter that several modules share counts in the first.

    Args:
        times: so many modules of this kind and size follow each other; the numbers are those of all of them.
    """

    name: str
    kind: str
    parameters: int
    trainable: int
    times: int
    parts: tuple[ModuleSize, ...]


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a training step under a choice of precision and optimizer."""

    precision: Precision
    optimizer: Optimizer
    average: bool
    bytes: Memory


@dataclass(frozen=True)
class ModelInfo:
    """What ``wenmai info`` says; numbers of parameters are counts, of memory and disk bytes.

    Args:
        disk: size of the files that hold the weights; None for a model that is only configured.
        tokens, length: of the micro-batch and the rows that memory and operations are for.
        checkpointed: bytes of activations (fp32, mixed) with ``train.gradient_checkpointing``.
    """

    name: str
    task: str | None
    head: str | None
    labels: int | None
    architecture: Architecture
    tokenizer: str
    pieces: int
    parameters: int
    trainable: int
    buffers: int
    disk: int | None
    modules: ModuleSize
    tokens: int
    length: int
    memory: tuple[MemoryEstimate, ...]
    checkpointed: tuple[int, int]
    operations: Operations

    def to_json(self) -> dict[str, Any]:
        tree = dataclasses.asdict(self)
        for written, estimate in zip(tree["memory"], self.memory, strict=True):
            written["bytes"]["total"] = estimate.bytes.total
        tree["operations"]["forward"] = self.operations.forward
        return tree


def model_info(
    name: str,
    overrides: Sequence[str] = (),
    *,
    tokens: int | None = None,
    length: int = DEFAULT_LENGTH,
    depth: int = DEFAULT_DEPTH,
) -> ModelInfo:
    """Everything about a model.

    Args:
        name: a run folder, a bundle, a model folder, a shipped model, a name on the hub, ``e5-small``, or the
            configuration of a run.
        overrides: of a configuration: ``train.freeze=['backbone.*']``.
        tokens: of a micro-batch; default: the run's, else 2048.
        length: tokens of a row.
        depth: levels of modules.

    Raises:
        UserError: the model or its configuration can't be used, or a number makes no sense.
    """
    for option, number in (
        ("--tokens", 1 if tokens is None else tokens),
        ("--length", length),
        ("--depth", depth),
    ):
        if number < 1:
            raise UserError(f"{option} {number}: expected 1 or more")
    opened = open_model(name, overrides)
    limit = opened.backbone.max_length
    if limit is not None and length > limit:
        raise UserError(f"--length {length}: {name} has {limit} positions: give at most {limit}")
    return describe(opened, tokens=tokens or _micro_batch(opened.train, length), length=length, depth=depth)


def _micro_batch(train: TrainConfig | None, length: int) -> int:
    """Tokens that go through the model at once."""
    size = step_size(train or TrainConfig())
    if size.micro_tokens is not None:
        return size.micro_tokens
    examples = size.micro_examples or size.examples
    return size.tokens or DEFAULT_TOKENS_PER_STEP if examples is None else examples * length


def describe(opened: Opened, *, tokens: int, length: int, depth: int) -> ModelInfo:
    """What :func:`model_info` says, of a model at hand."""
    model = opened.module
    architecture = architecture_of(opened.backbone)
    matrices = {id(module.weight) for module in model.modules() if _matrix(module)}
    weights = [Weight(tuple(p.shape), p.requires_grad, id(p) in matrices) for p in model.parameters()]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    share = _hidden_share(opened.task)
    on_gpu = torch.cuda.is_available()

    def memory(precision: Precision, optimizer: Optimizer, *, average: bool, checkpointing: bool) -> Memory:
        return training_memory(
            weights,
            architecture,
            buffers=buffers,
            tokens=tokens,
            length=length,
            precision=precision,
            optimizer=optimizer,
            average=average,
            checkpointing=checkpointing,
            fused_attention=on_gpu or architecture.attention_dropout == 0,
            logits_a_token=share * architecture.vocabulary,
        )

    products, learning_layers = probe(opened, length=length)
    return ModelInfo(
        name=opened.name,
        task=None if opened.task is None else opened.task.name,
        head=None if opened.head is None else type(opened.head).__name__,
        labels=None if opened.task is None else len(opened.task.labels),
        architecture=architecture,
        tokenizer=type(opened.tokenizer.pretrained.backend_tokenizer.model).__name__,
        pieces=opened.tokenizer.vocab_size,
        parameters=sum(weight.size for weight in weights),
        trainable=sum(weight.size for weight in weights if weight.trainable),
        buffers=buffers,
        disk=None if opened.folder is None else _disk(opened.folder),
        modules=module_sizes(model, depth=depth),
        tokens=tokens,
        length=length,
        memory=tuple(
            MemoryEstimate(
                precision,
                optimizer,
                average,
                memory(precision, optimizer, average=average, checkpointing=False),
            )
            for precision in get_args(Precision)
            for optimizer in get_args(Optimizer)
            for average in (False, True)
        ),
        checkpointed=(
            memory("fp32", "adamw", average=False, checkpointing=True).activations,
            memory("mixed", "adamw", average=False, checkpointing=True).activations,
        ),
        operations=operations(products, architecture, length=length, learning_layers=learning_layers),
    )


def architecture_of(backbone: Backbone) -> Architecture:
    """The sizes that the model's configuration gives, under whichever of the usual names."""
    config = backbone.config

    def first(names: str, default: Any) -> Any:
        return next(
            (value for name in names.split() if (value := getattr(config, name, None)) is not None), default
        )

    hidden, heads = backbone.hidden_size, int(config.num_attention_heads)
    return Architecture(
        kind=str(config.model_type),
        layers=int(config.num_hidden_layers),
        hidden_size=hidden,
        heads=heads,
        head_size=int(first("head_dim attention_head_size", hidden // heads)),
        intermediate_size=int(first("intermediate_size hidden_dim ffn_dim d_ff n_inner d_inner", 4 * hidden)),
        activation=str(first("hidden_act hidden_activation activation activation_function", "unknown")),
        vocabulary=backbone.word_embeddings.num_embeddings,
        positions=backbone.max_length,
        hidden_dropout=float(
            first("hidden_dropout_prob mlp_dropout hidden_dropout resid_pdrop dropout", 0.0)
        ),
        attention_dropout=float(first("attention_probs_dropout_prob attention_dropout attn_pdrop", 0.0)),
    )


def module_sizes(model: nn.Module, *, depth: int) -> ModuleSize:
    """The tree of modules that have parameters; equal neighbours (``layer.0`` to ``layer.11``) stand together."""
    counted: set[int] = set()

    def visit(name: str, module: nn.Module, level: int) -> ModuleSize:
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, own))
        # below the last level that is shown the modules are visited all the same: they are counted there
        found = [visit(child_name, child, level + 1) for child_name, child in module.named_children()]
        total = sum(p.numel() for p in own) + sum(part.parameters for part in found)
        learned = sum(p.numel() for p in own if p.requires_grad) + sum(part.trainable for part in found)
        shown = tuple(_together([part for part in found if part.parameters])) if level < depth else ()
        return ModuleSize(name, type(module).__name__, total, learned, 1, shown)

    return visit("", model, 0)


def _together(parts: Sequence[ModuleSize]) -> Iterator[ModuleSize]:
    """Runs of equal parts as one; what is inside them is shown for the first."""

    def sizes(part: ModuleSize) -> tuple[Any, ...]:
        return part.kind, part.parameters, part.trainable, tuple(map(sizes, part.parts)), part.name.isdigit()

    for (*_, numbered), run in groupby(parts, key=sizes):
        same = list(run)
        if len(same) == 1 or not numbered:
            yield from same
            continue
        yield dataclasses.replace(
            same[0],
            name=f"{same[0].name}-{same[-1].name}",
            parameters=sum(part.parameters for part in same),
            trainable=sum(part.trainable for part in same),
            times=len(same),
        )


def probe(opened: Opened, *, length: int) -> tuple[list[Product], int]:
    """How often each linear layer is used, and how many layers the gradient goes through.

    A few tokens go through the model, so that shared layers count as often as they work, and autograd tells which
    inputs need a gradient. A layer is used once a token or, in heads that decide about rows, once a row; what is
    used otherwise (on relative positions, say) is left out.

    Args:
        length: tokens of a row, which a use a row is shared out over.
    """
    backbone, head = opened.backbone, opened.head
    products: list[Product] = []
    learning: list[bool] = []
    front = 0 if backbone.prompt is None else len(backbone.prompt)
    uses = {
        PROBE_ROWS * PROBE_TOKENS: 1.0,
        PROBE_ROWS * (PROBE_TOKENS + front): 1 + front / length,
        PROBE_ROWS: 1 / length,
    }
    # what makes prompts and prefixes works once a pass, whatever the tokens
    aside = {part for adapter in (backbone.prompt, backbone.prefix) if adapter for part in adapter.modules()}
    share = [1.0]

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        vectors = uses.get(math.prod(output.shape[:-1]))
        if vectors is not None:
            products.append(
                Product(weight.numel(), vectors * share[0], inputs[0].requires_grad, weight.requires_grad)
            )

    def reach(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        learning.append(hidden.requires_grad)

    device = next(backbone.parameters()).device
    ids_BT = torch.arange(PROBE_ROWS * PROBE_TOKENS, device=device).view(PROBE_ROWS, PROBE_TOKENS)
    mask_BT = torch.ones_like(ids_BT)
    batch = {"input_ids": ids_BT % backbone.word_embeddings.num_embeddings, "attention_mask": mask_BT}
    with ExitStack() as stack, torch.enable_grad():
        stack.enter_context(module_by_module(backbone))
        for module in opened.module.modules():
            if _matrix(module) and module not in aside:
                stack.callback(module.register_forward_hook(count).remove)
        for layer in backbone.layers or ():
            stack.callback(layer.register_forward_hook(reach).remove)
        hidden_BTH = backbone(batch)
        if head is not None:
            share[0] = _hidden_share(opened.task) or 1.0
            head(hidden_BTH, mask_BT, *(torch.zeros_like(mask_BT) for _ in head.reads))
    if isinstance(head, MaskedLMHead):
        table = backbone.word_embeddings.weight
        products.append(Product(table.numel(), share[0], hidden_BTH.requires_grad, table.requires_grad))
    if isinstance(head, ClozeHead):
        table = backbone.word_embeddings.weight
        masks = head.piece_WK.size(1) / length
        products.append(Product(table.numel(), masks, hidden_BTH.requires_grad, table.requires_grad))
    foretelling = head.language_model if isinstance(head, WithLanguageModel) else head
    if isinstance(foretelling, CausalLMHead):
        table = foretelling.weight
        products.append(Product(table.numel(), 1.0, hidden_BTH.requires_grad, table.requires_grad))
    layers = int(backbone.config.num_hidden_layers)
    return products, sum(learning) if len(learning) == layers else layers * hidden_BTH.requires_grad


def _matrix(module: nn.Module) -> bool:
    """A linear layer, or the transposed one of GPT-2."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _hidden_share(task: Task[Any, Any] | None) -> float:
    """The share of the tokens that a language model's head works on; 0 for other heads."""
    config = None if task is None else task.config
    return config.mask_share if isinstance(config, MaskedLMConfig) else 0.0


def _disk(folder: Path) -> int:
    for pattern in WEIGHTS:
        if files := list(folder.glob(pattern)):
            return sum(file.stat().st_size for file in files)
    return 0
