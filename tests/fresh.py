"""Bundles that have learned nothing, for what does not depend on the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.tasks import TASKS
from wenmai.tasks.model import build_model


def fresh_bundle(
    folder: Path, backbone: Path, task: dict[str, Any], labels: list[str], *, scale: float = 1.0
) -> Path:
    """A bundle of a task on an encoder, its head drawn at random, always the same.

    Args:
        folder: where it is written.
        backbone: folder of the encoder.
        task: the ``task:`` section of a configuration.
        scale: of the head's output weights; large ones make answers that differ.
    """
    task_type = TASKS[task["name"]]
    encoder, tokenizer = load_folder(backbone)
    made = task_type(task_type.Config.model_validate(task), labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, tokenizer = build_model(made, encoder, tokenizer)
    unbiased(model.head)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if "output" in name:
                parameter.mul_(scale)
    save_bundle(folder, made, model, tokenizer)
    return folder


def unbiased(head: nn.Module) -> None:
    """Makes a fresh head say yes as often as no, where it would find nothing because labels begin rare."""
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
