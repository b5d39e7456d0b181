"""Runs the ``fit`` loop of bert4torch: ``python -m peers.bert4torch_fit JOB.json RESULT.json``.

As its sequence labelling examples do: a ``BaseModel`` around ``build_transformer_model``, a shuffling ``DataLoader``
whose collate function pads with ``sequence_padding``. Unlike them it gets tokenized rows and shows no progress bar,
which is to its advantage, and the fused AdamW that the others have.
"""

from __future__ import annotations

import copy
import importlib.machinery
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from peers.measure import (
    IGNORE,
    START_ROWS,
    WARM_UP_STEPS,
    Counted,
    Job,
    Row,
    Timer,
    decay_groups,
    heldout_loss,
    main,
    peak_memory_mb,
    result,
)


def stand_in_for_torchvision() -> None:
    """An empty ``torchvision``: bert4torch 0.6.2 imports it for images, whatever model is asked for."""
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.v2"]
    for name in [*names, "torchvision.transforms.v2.functional"]:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)


stand_in_for_torchvision()
from bert4torch.models import BaseModel, build_transformer_model  # noqa: E402
from bert4torch.snippets import sequence_padding  # noqa: E402
from torch4keras.callbacks import Callback  # noqa: E402


class Tagger(BaseModel):  # type: ignore[misc]
    """Encoder, dropout, one linear layer."""

    def __init__(self, folder: Path, tags: int):
        super().__init__()
        self.bert = build_transformer_model(str(folder), model="bert", verbose=0)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(self.bert.config["hidden_size"], tags)

    def forward(self, ids_BT: Tensor, types_BT: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(self.bert([ids_BT, types_BT])))
        return logits


class TimedSteps(Callback):  # type: ignore[misc]
    """From the beginning of the loop to the last step done."""

    def __init__(self, timer: Timer):
        super().__init__()
        self.timer = timer

    def on_train_begin(self, logs: Any = None) -> None:
        self.timer.start()

    def on_batch_end(self, global_step: int, local_step: int, logs: Any = None) -> None:
        self.timer.steps += 1

    def on_train_end(self, logs: Any = None) -> None:
        self.timer.stop()


def run(job: Job) -> dict[str, Any]:
    folder = encoder_by_its_names(job.path("encoder"), Path(job.output) / "encoder")
    model = Tagger(folder, len(job.meta()["tags"]))
    model.output.load_state_dict(load_file(job.path(f"head-{job.seed}.safetensors")))
    held = job.rows("heldout")

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        found: Tensor = model.eval()(inputs["input_ids"], inputs["token_type_ids"])
        return found

    loss_before = heldout_loss(logits, held[:START_ROWS], "cpu")
    fitted(copy.deepcopy(model).to(job.device), job, WARM_UP_STEPS, Timer(job.device))
    counted, timer = Counted(), Timer(job.device)
    model.bert.register_forward_pre_hook(lambda module, inputs: counted.add(inputs[0][0] != 0))
    fitted(model.to(job.device), job, None, timer)
    real, computed = counted.real, counted.computed
    memory = peak_memory_mb(job.device)
    return result(
        timer,
        tokens=real,
        computed=computed,
        steps=timer.steps,
        memory_mb=memory,
        loss_before=loss_before,
        loss_after=heldout_loss(logits, held, job.device),
    )


def encoder_by_its_names(encoder: Path, folder: Path) -> Path:
    """The same encoder with the file and weight names that bert4torch looks for."""
    folder.mkdir()
    shutil.copy(encoder / "config.json", folder / "bert4torch_config.json")
    weights = load_file(encoder / "model.safetensors")
    save_file({f"bert.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def fitted(model: Tagger, job: Job, steps: int | None, timer: Timer) -> None:
    def collate(rows: list[Row]) -> tuple[list[Tensor], Tensor]:
        ids_BT = torch.tensor(sequence_padding([row["input_ids"] for row in rows])).to(job.device)
        tags_BT = torch.tensor(sequence_padding([row["tags"] for row in rows], value=IGNORE))
        return [ids_BT, torch.zeros_like(ids_BT)], tags_BT.to(job.device)

    def loss(logits_BTL: Tensor, tags_BT: Tensor) -> Tensor:
        return cross_entropy(logits_BTL.flatten(0, 1), tags_BT.flatten(), ignore_index=IGNORE)

    model.compile(
        loss=loss,
        optimizer=torch.optim.AdamW(decay_groups(model, job.weight_decay), lr=job.learning_rate, fused=True),
        clip_grad_norm=job.max_grad_norm,
        mixed_precision="bf16" if job.precision == "bf16" else False,
    )
    rows = DataLoader(
        job.rows("train"),
        batch_size=job.examples_per_step,
        shuffle=True,
        collate_fn=collate,  # type: ignore[arg-type]
    )
    model.fit(rows, steps_per_epoch=steps, epochs=1, callbacks=[TimedSteps(timer)], verbose=0)


if __name__ == "__main__":
    main(run)
