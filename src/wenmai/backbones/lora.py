"""LoRA (Hu et al. 2021, arXiv:2106.09685) through peft: ``W x`` becomes ``W x + alpha / rank * B A x``; W is frozen.

peft puts its layers in the place of the linear ones inside transformers' own modules, so they run packed or padded
alike.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.architecture import encoder_layers
from wenmai.errors import UserError

NAME = "default"
"""What peft calls the only adapter; part of its parameters' names."""


def put_in_lora(model: nn.Module, config: AdapterConfig) -> None:
    """Puts low-rank changes beside linear layers of the model, in place; B is 0, so nothing changes yet.

    Raises:
        UserError: peft is not installed, or the model has no layers of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            "backbone.adapter.method: lora needs the package peft, which is not installed: pip install "
            '"wenmai[adapters]", '
            "or take prompt_tuning, p_tuning, prefix_tuning or p_tuning_v2, which need nothing"
        ) from error
    names = _linear_layers(model)
    wanted = config.target_modules
    chosen = [name for name in names if wanted is None or any(_ends(name, end) for end in wanted)]
    unknown = [end for end in wanted or [] if not any(_ends(name, end) for name in names)]
    if unknown or not chosen:
        ends = sorted({name.rsplit(".", 1)[-1] for name in names})
        raise UserError(
            f"backbone.adapter.target_modules: {', '.join(unknown) or 'none'} given, but the linear layers inside the "
            f"encoder's layers are called {', '.join(ends) or 'otherwise'}: take some of these"
        )
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # written as a whole number there, used as any
        lora_dropout=config.dropout,
        target_modules=chosen,
        fan_in_fan_out=any(type(model.get_submodule(name)).__name__ == "Conv1D" for name in chosen),
    )
    inject_adapter_in_model(settings, model, NAME)


def _linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers, transposed ones of GPT-2 too, inside the encoder's layers."""
    inside = {id(module) for module in (encoder_layers(model) or model).modules()}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def is_lora(parameter: str) -> bool:
    """Whether a parameter of this name is one of the changes."""
    return ".lora_" in parameter


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the names it had without the changes, with the changes in them. The model stays."""
    state: dict[str, Tensor] = {}
    changed: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")
    }
    for name, tensor in model.state_dict().items():
        owner, _, rest = name.partition(".base_layer.")
        if is_lora(name):
            continue
        if rest == "weight" and owner in changed:
            tensor = tensor.detach() + changed[owner].get_delta_weight(NAME).detach()
        state[f"{owner}.{rest}" if rest else name] = tensor
    return state
