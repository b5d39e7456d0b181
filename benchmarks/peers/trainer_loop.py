"""The Trainer of transformers with length grouping, the loop of its examples, under a :class:`Contest`.

With a rate for the head it gets an optimizer that has one; else it makes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from peers.contest import MAX_GRAD_NORM, WARM_UP, WEIGHT_DECAY, Contest, Judge, Predict, Steps, groups_of
from peers.measure import Counted

PREDICTED_AT_ONCE = 16
Feature = dict[str, Any]
Collate = Callable[[list[Feature]], dict[str, torch.Tensor]]


class JudgedAt(TrainerCallback):
    """Asks the judge after these steps."""

    def __init__(self, judge: Judge, steps: set[int]):
        self.judge = judge
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.judge()


def trained(
    contest: Contest, model: PreTrainedModel, features: Sequence[Feature], collate: Collate, predict: Predict
) -> dict[str, Any]:
    """Trains on the features and reports as :meth:`Judge.result`."""
    plan = Steps.of([len(feature["input_ids"]) for feature in features], contest)
    judge = Judge(contest, model, predict)
    counted = Counted()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.add(kwargs["attention_mask"]) if module.training else None,
        with_kwargs=True,
    )
    arguments = TrainingArguments(
        output_dir=str(contest.scratch / "trainer"),
        per_device_train_batch_size=plan.rows_a_step,
        max_steps=plan.steps,
        learning_rate=contest.rate,
        lr_scheduler_type="linear",
        warmup_steps=WARM_UP,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=MAX_GRAD_NORM,
        train_sampling_strategy="group_by_length",
        seed=contest.seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    own = "head_rate" in contest.options
    optimizer = torch.optim.AdamW(groups_of(contest, model.base_model, model), fused=True) if own else None
    trainer = Trainer(
        model,
        arguments,
        optimizers=(optimizer, None),
        train_dataset=Dataset.from_list(list(features)),
        data_collator=collate,
        callbacks=[JudgedAt(judge, {plan.steps // 2, plan.steps})],
    )
    started = time.perf_counter()
    trainer.train()
    hook.remove()
    return judge.result(tokens=counted.real, steps=plan.steps, started=started)


def in_batches(
    model: PreTrainedModel, features: Sequence[Feature], collate: Collate
) -> list[dict[str, torch.Tensor]]:
    """The outputs of every feature without padding, in their order; similar lengths share a batch."""
    order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
    found: list[dict[str, torch.Tensor]] = [{}] * len(features)
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), PREDICTED_AT_ONCE):
            part = order[start : start + PREDICTED_AT_ONCE]
            outputs = model(**collate([features[i] for i in part]))
            for place, i in enumerate(part):
                length = len(features[i]["input_ids"])
                found[i] = {name: value[place, :length] for name, value in outputs.items()}
    return found
