"""What the adversarial tests compare: a real model with eight rows, and gradients by plain loops over single rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toy import TOYS
from wenmai.backbones.dropout import noise, token_keys
from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.config import AdversarialConfig
from wenmai.data.rows import Batch, Row, collate
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model
from wenmai.training.adversarial import Adversary, build_adversary
from wenmai.training.gradients import Step
from wenmai.training.parallel import Parallel
from wenmai.training.perturbation import START

WORDS = "backbone.model.embeddings.word_embeddings.weight"
ALONE = Parallel(rank=0, world=1, device=torch.device("cpu"))
Gradients = dict[str, Tensor]


@dataclass
class Toy:
    """A model and eight rows of different lengths."""

    model: Model
    rows: list[Row]
    groups: list[int]
    pad_id: int

    def batch(self, numbers: Sequence[int]) -> Batch:
        made = collate([self.rows[i] for i in numbers], self.pad_id)
        return made | {
            "group": torch.tensor([self.groups[i] for i in numbers]),
            "key": torch.tensor([7919 * i - 3 for i in numbers]),
        }

    def step(self, micro: int = 8, only: Sequence[int] = range(8), **settings: Any) -> Step:
        batches = [self.batch(only[at : at + micro]) for at in range(0, len(only), micro)]
        return Step(
            **{
                "batches": batches,
                "forward": self.model,
                "head": self.model.head,
                "backward": torch.Tensor.backward,
                "parallel": ALONE,
                **settings,
            }
        )

    def gradients(self) -> Gradients:
        """What is in the parameters now, which are emptied."""
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return found

    def adversarial(self, step: Step | None = None, **config: Any) -> Gradients:
        adversary(self.model, **config)(step or self.step())
        return self.gradients()


def adversary(model: Model, **config: Any) -> Adversary:
    return build_adversary(AdversarialConfig.model_validate(config), model)


def make(name: str, backbone: Path, *, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Toy:
    section, records = TOYS[name]
    task_type = TASKS[section["name"]]
    examples = [task_type.Example.model_validate(record) for record in records]
    config = task_type.Config.model_validate({"max_length": 64, **section})
    task = task_type(config, task_type.collect_labels(config, examples))
    torch.manual_seed(5)
    body, tokenizer = load_backbone(BackboneConfig(model=str(backbone), dropout=dropout))
    model = Model(body, task.build_head(body)).to(dtype).train(dropout > 0)
    # masks are drawn in training, and fixed in evaluation
    rows_of = task.evaluation_rows if name == "masked-lm" else task.training_rows
    rows = [
        (row, i)
        for i, example in enumerate(examples[:: max(1, len(examples) // 8)])
        for row in rows_of(example, tokenizer)
    ][:8]
    assert len(rows) == 8 and len({len(row) for row, _ in rows}) > 1
    return Toy(model, [row for row, _ in rows], [group for _, group in rows], tokenizer.pad_id)


def assert_same(found: Gradients, expected: Gradients, tolerance: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name],
            gradient,
            rtol=tolerance,
            atol=tolerance,
            msg=lambda message, name=name: f"{name}: {message}",
        )


def differ(one: Gradients, other: Gradients) -> bool:
    return any(not torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-7) for name in one)


# --- references: one row at a time, no Step ---


def sum_gradients(model: Model, toy: Toy) -> Gradients:
    """Of the sum of the loss terms of all rows."""
    named = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    for i in range(8):
        batch = toy.batch([i])
        loss, _ = model.head.loss(model(batch, "train"), batch)
        for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            total[name] += gradient
    return total


def length(tensor: Tensor) -> float:
    return math.sqrt(sum(number**2 for number in tensor.flatten().tolist()))


def moved_model(model: Model, moves: Gradients) -> Model:
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            if name in moves:
                p += moves[name]
    return moved


def clipped(move: Tensor, most: float) -> Tensor:
    return move * (most / length(move)) if length(move) > most else move


def reference_fgm(toy: Toy, epsilon: float) -> Gradients:
    clean = sum_gradients(toy.model, toy)
    move = epsilon * clean[WORDS] / length(clean[WORDS])
    other = sum_gradients(moved_model(toy.model, {WORDS: move}), toy)
    return {name: clean[name] + other[name] for name in clean}


def reference_pgd(toy: Toy, epsilon: float, step_size: float, steps: int) -> Gradients:
    clean = last = sum_gradients(toy.model, toy)
    move = torch.zeros_like(clean[WORDS])
    for _ in range(steps):
        move = clipped(move + step_size * last[WORDS] / length(last[WORDS]), epsilon)
        last = sum_gradients(moved_model(toy.model, {WORDS: move}), toy)
    return {name: clean[name] + last[name] for name in clean}


def reference_awp(toy: Toy, epsilon: float, step_size: float, steps: int) -> Gradients:
    clean = last = sum_gradients(toy.model, toy)
    weights = {name: p for name, p in toy.model.named_parameters() if p.ndim >= 2}
    moves = {name: torch.zeros_like(p) for name, p in weights.items()}
    for _ in range(steps):
        for name, p in weights.items():
            if length(last[name]) > 0:
                move = moves[name] + step_size * length(p) * last[name] / length(last[name])
                moves[name] = clipped(move, epsilon * length(p))
        last = sum_gradients(moved_model(toy.model, moves), toy)
    return {name: clean[name] + last[name] for name in clean}


def reference_freelb(toy: Toy, epsilon: float, step_size: float, steps: int) -> Gradients:
    model = toy.model
    named = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    for i in range(8):
        batch = toy.batch([i])
        mask = batch["attention_mask"]
        tokens, width = mask.shape[1], model.backbone.word_embeddings.embedding_dim
        draws = [noise(token_keys(batch["key"][0], torch.tensor(at)), START, width) for at in range(tokens)]
        uniform = (torch.stack(draws)[None].double() + 0.5) / 2**15
        move = epsilon * uniform / math.sqrt(tokens * width)
        for _ in range(steps):
            move = move.detach().requires_grad_()
            hidden = model.backbone.model(
                inputs_embeds=model.backbone.word_embeddings(batch["input_ids"]) + move, attention_mask=mask
            ).last_hidden_state
            loss, _ = model.head.loss(model.head.training_outputs(hidden, mask, batch), batch)
            uphill, *found = torch.autograd.grad(loss, [move, *named.values()])
            for name, gradient in zip(named, found, strict=True):
                total[name] += gradient / steps
            move = clipped(move + step_size * uphill / length(uphill), epsilon)
    return total
