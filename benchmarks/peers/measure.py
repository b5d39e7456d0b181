"""What every runner of the throughput benchmark is told, and how every one of them is measured: the same way.

A runner is a process of its own. It first trains a few steps on a copy that it throws away (kernels get chosen, memory
gets allocated), then trains on the whole workload, every row once, and only that is timed: from the moment its loop
begins until the last optimizer step is done. Reading, tokenizing, loading and saving come before or after.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

IGNORE = -100
WARM_UP_STEPS = 2
START_ROWS = 16
"""Held-out rows enough to see that all start from the same model."""

Row = dict[str, list[int]]
"""``input_ids`` and ``tags`` of one sequence, special tokens included, as wenmai's own task makes them."""


@dataclass(frozen=True)
class Job:
    """What one runner shall do.

    Args:
        runner: its name.
        folder: of the workload (see ``workload.py``).
        output: an empty folder for what the runner itself writes.
        examples_per_step: rows of one optimizer step, one batch.
        tokens_per_step: budget instead, for runners that can; None: they can't, or shall not.
        padding_free: of wenmai: ``auto``, ``on`` or ``off``.
        device, precision: ``cpu`` or ``cuda``; ``fp32`` or ``bf16``.
    """

    runner: str
    folder: str
    output: str
    seed: int
    threads: int
    examples_per_step: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    tokens_per_step: int | None = None
    padding_free: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"

    def path(self, name: str) -> Path:
        return Path(self.folder) / name

    def rows(self, name: str) -> list[Row]:
        rows: list[Row] = json.loads(self.path(f"{name}_rows.json").read_text(encoding="utf-8"))
        return rows

    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads(self.path("meta.json").read_text(encoding="utf-8"))
        return meta


class Counted(nn.Module):
    """Counts what goes through a model: hook it in with ``register_forward_pre_hook``."""

    def __init__(self) -> None:
        super().__init__()
        self.real = self.computed = 0

    def add(self, mask_BT: Tensor) -> None:
        self.real += int(mask_BT.sum())
        self.computed += mask_BT.numel()


@dataclass
class Timer:
    """Wall-clock seconds of the loop; ``stop`` may be called after every step, the last call counts."""

    device: str
    started: float = 0.0
    stopped: float = 0.0
    steps: int = 0

    def start(self) -> None:
        self._wait()
        self.steps = 0
        self.started = time.perf_counter()

    def stop(self) -> None:
        self._wait()
        self.stopped = time.perf_counter()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    @property
    def seconds(self) -> float:
        return self.stopped - self.started


def main(run: Callable[[Job], dict[str, Any]]) -> None:
    """``python -m peers.RUNNER JOB.json RESULT.json``"""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    result = run(job)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


def result(
    timer: Timer,
    *,
    tokens: int,
    computed: int,
    steps: int,
    memory_mb: float,
    loss_before: float,
    loss_after: float,
    phases: dict[str, float] | None = None,
) -> dict[str, Any]:
    """What a runner reports.

    Args:
        tokens: real tokens trained on; ``computed`` with the padding of their batches.
        memory_mb: :func:`peak_memory_mb` right after the training.
        loss_before: :func:`heldout_loss` of the initial weights on the first :data:`START_ROWS` rows.
        loss_after: of the final weights on all.
        phases: seconds by phase, where the loop tells them.
    """
    return {
        "seconds": timer.seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / timer.seconds,
        "padding": 1 - tokens / computed,
        "steps": steps,
        "memory_mb": memory_mb,
        "loss_before": loss_before,
        "loss_after": loss_after,
        "phases": phases,
    }


def peak_memory_mb(device: str) -> float:
    """The most memory in MB that was held at once: of the GPU, or resident of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss of Linux may be that of the process which started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def heldout_loss(logits: Callable[[dict[str, Tensor]], Tensor], rows: Sequence[Row], device: str) -> float:
    """Mean cross-entropy of the labelled tokens.

    Args:
        logits: ``input_ids``, ``token_type_ids`` and ``attention_mask`` (B, T) to logits (B, T, L), dropout off.
    """
    total = count = 0.0
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    with torch.no_grad():
        for start in range(0, len(ordered), 16):
            part = ordered[start : start + 16]
            ids_BT = padded([row["input_ids"] for row in part], 0).to(device)
            tags_BT = padded([row["tags"] for row in part], IGNORE).to(device)
            inputs = {
                "input_ids": ids_BT,
                "token_type_ids": torch.zeros_like(ids_BT),
                "attention_mask": padded([[1] * len(row["tags"]) for row in part], 0).to(device),
            }
            found = logits(inputs).float().flatten(0, 1)
            total += float(cross_entropy(found, tags_BT.flatten(), ignore_index=IGNORE, reduction="sum"))
            count += int((tags_BT != IGNORE).sum())
    return total / count


def padded(sequences: Sequence[list[int]], fill: int) -> Tensor:
    """(B, T)"""
    tensors = [torch.tensor(sequence) for sequence in sequences]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as both wenmai and the Trainer have it."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
