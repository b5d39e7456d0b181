"""Looks into a model while it works: hooks on modules, which change no result and are always taken off again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from wenmai.backbones.load import Backbone
from wenmai.backbones.plain import module_by_module
from wenmai.data.rows import Batch
from wenmai.errors import UserError
from wenmai.tasks.model import Model
from wenmai.training.inspection import Attention, Inspection, Kind, ModuleRecord, Units, Values

NEAR_NAMES = 5
ACTIVATIONS: tuple[tuple[str, Kind], ...] = (
    *((part, "soft") for part in ("gelu", "silu", "swish", "mish", "softplus", "leaky")),
    ("relu", "relu"),
    ("elu", "soft"),
    ("tanh", "tanh"),
    ("sigmoid", "sigmoid"),
)
"""What a class is called -> what it does; the first that fits counts (GELUTanh is a gelu)."""


@contextmanager
def watching(
    model: nn.Module, patterns: Sequence[str] | None = None, *, attention: bool = False
) -> Iterator[Watch]:
    """Watches a model in one's own loop::

        with watching(model, ["*.output.dense"]) as watch:
            for batch in batches:
                loss_of(model, batch).backward()
                watch.step()           # before the gradients are cleared
                optimizer.step()
                optimizer.zero_grad()
        watch.inspection.to_json()

    A step may be several passes forward and backward. Results stay the same to the bit. Only what goes through the
    modules is seen: for a backbone that leaves padding out of its layers, wrap the loop in
    :func:`wenmai.backbones.plain.module_by_module`.

    Args:
        model: anything; where its first argument is a batch with an ``attention_mask``, padding is not counted.
        patterns: of the names of modules (``*`` stands for anything, dots too); default: :func:`usual_modules`.
        attention: also the entropy of attention, where layers give its probabilities (``module_by_module`` with
            ``eager_attention``).

    Raises:
        UserError: a pattern fits no module.
    """
    watch = Watch(model, chosen_modules(model, patterns), attention=attention)
    try:
        yield watch
    finally:
        watch.close()


def inspect_model(
    model: Model, batches: Iterable[Batch], *, patterns: Sequence[str] | None = None, backward: bool = True
) -> Inspection:
    """Sends batches through a model and, with their mean loss, back; each batch is a step.

    Without dropout, and without padding in any number. The model is left as it was: weights, gradients, mode.

    Args:
        batches: on the model's device; for ``backward`` with targets.
        patterns: see :func:`watching`.
        backward: gradients too.

    Raises:
        UserError: a pattern fits no module.
    """
    gradients = [p.grad for p in model.parameters()]
    training = model.training
    model.eval()
    try:
        with (
            module_by_module(model.backbone, eager_attention=True) as eager,
            watching(model, patterns, attention=eager) as watch,
            torch.set_grad_enabled(backward),
        ):
            for batch in batches:
                for parameter in model.parameters():
                    parameter.grad = None
                outputs = model(batch, "train" if backward else "predict")
                if backward:
                    loss, terms = model.head.loss(outputs, batch)
                    (loss / max(1, terms)).backward()  # type: ignore[no-untyped-call]
                watch.step()
    finally:
        model.train(training)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
    return watch.inspection


class Watch:
    """Hooks on modules, and what they saw; made by :func:`watching`."""

    def __init__(self, model: nn.Module, names: Sequence[str], *, attention: bool):
        self.inspection = Inspection()
        self._modules: dict[str, nn.Module] = {}
        self._outputs: dict[str, Values] = {}
        self._gradients: dict[str, Values] = {}
        self._mask_BT: Tensor | None = None
        self._looked_at: set[int] = set()
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True)
        ]
        of = dict(model.named_modules())
        for name in names:
            module = self._modules[name] = of[name]
            kind = activation_kind(module)
            self.inspection.modules[name] = ModuleRecord(
                name, type(module).__name__, units=None if kind is None else Units(kind)
            )
            self._handles.append(module.register_forward_hook(partial(self._see, name)))
        for number, layer in enumerate(layers_of(model) if attention else ()):
            for part in layer.modules():
                self._handles.append(part.register_forward_hook(partial(self._look, number)))

    def step(self) -> None:
        """Ends a step: its numbers are written down, with the gradients that the weights have now."""
        if not self._outputs:
            return
        for name, record in self.inspection.modules.items():
            outputs, gradients = self._outputs.get(name, Values()), self._gradients.get(name, Values())
            record.steps.append(
                {
                    **outputs.spread.to_json(),
                    "output_gradient_norm": gradients.spread.to_json()["norm"],
                    "weight_gradient_norm": _gradient_norm(self._modules[name]),
                }
            )
            record.outputs.merge(outputs)
            record.gradients.merge(gradients)
        self._outputs, self._gradients = {}, {}
        self.inspection.steps += 1

    def close(self) -> None:
        """Takes all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A new pass through the model: whose padding is not to be counted."""
        batch = inputs[0] if inputs and isinstance(inputs[0], Mapping) else named
        self._mask_BT = batch.get("attention_mask")
        self._looked_at = set()
        if self._mask_BT is not None:
            self.inspection.tokens += int(self._mask_BT.sum())

    def _see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        values = self._real(tensor.detach())
        self._outputs.setdefault(name, Values()).add(values)
        units = self.inspection.modules[name].units
        if units is not None:
            units.add(values)
        if tensor.requires_grad:
            tensor.register_hook(partial(self._see_gradient, name))  # type: ignore[no-untyped-call]

    def _see_gradient(self, name: str, gradient: Tensor) -> None:
        self._gradients.setdefault(name, Values()).add(self._real(gradient.detach()))

    def _look(self, layer: int, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Attention's probabilities, from the innermost module of the layer that gives them."""
        if layer in self._looked_at or self._mask_BT is None or not isinstance(output, tuple | list):
            return
        rows, width = self._mask_BT.shape
        for value in output:
            if isinstance(value, Tensor) and value.ndim == 4 and value.shape[::2] == (rows, width):
                if value.shape[3] == width:
                    self._looked_at.add(layer)
                    self.inspection.attention.setdefault(layer, Attention()).add(
                        value.detach(), self._mask_BT
                    )
                return

    def _real(self, values: Tensor) -> Tensor:
        """The values of real tokens, where the first two of three dimensions are those of the batch."""
        mask_BT = self._mask_BT
        if mask_BT is not None and values.ndim > 2 and values.shape[:2] == mask_BT.shape:
            return values[mask_BT.bool()]
        return values


def chosen_modules(model: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """The names that fit one of the patterns, in the order of the model; None: :func:`usual_modules`.

    Raises:
        UserError: a pattern fits no module.
    """
    if patterns is None:
        return usual_modules(model)
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = (
                get_close_matches(pattern.replace("*", ""), names, NEAR_NAMES, cutoff=0.3)
                or names[:NEAR_NAMES]
            )
            raise UserError(
                f"the pattern {pattern!r} fits none of the model's {len(names)} modules; some of them: "
                f"{', '.join(near)}. * stands for anything: '*.layer.0.*'"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def usual_modules(model: nn.Module) -> list[str]:
    """What is worth a look in most models: word embeddings, each layer, activation functions, the head's parts.

    A model without layers of a known kind: its activation functions and the modules that hold parameters themselves.
    """
    layers = {id(layer) for layer in layers_of(model)}
    backbone = getattr(model, "backbone", None)
    embeddings = {id(backbone.word_embeddings)} if isinstance(backbone, Backbone) else set()
    head = {id(part) for part in getattr(model, "head", nn.Module()).modules()}
    return [
        name
        for name, module in model.named_modules()
        if name
        and (
            id(module) in layers | embeddings
            or activation_kind(module) is not None
            or ((id(module) in head or not layers) and any(True for _ in module.parameters(recurse=False)))
        )
    ]


def layers_of(model: nn.Module) -> Sequence[nn.Module]:
    """The backbone's layers, if the model has a backbone with layers at a known place."""
    backbone = getattr(model, "backbone", None)
    return list(backbone.layers or ()) if isinstance(backbone, Backbone) else ()


def activation_kind(module: nn.Module) -> Kind | None:
    """Which activation function a module is, by the name of its class; None for other modules."""
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return None
    name = type(module).__name__.lower()
    return next((kind for part, kind in ACTIVATIONS if part in name), None)


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a module gives, or the first of several."""
    if isinstance(output, Tensor):
        return output
    parts = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    )
    return next((part for part in parts if isinstance(part, Tensor)), None)


def _gradient_norm(module: nn.Module) -> float | None:
    """Of all weights in the module as one vector; None without gradients, or if it is no number."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return None
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    return norm if math.isfinite(norm) else None
