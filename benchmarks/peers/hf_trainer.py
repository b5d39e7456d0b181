"""Runs the Trainer of transformers as its token classification example does.

    python -m peers.hf_trainer JOB.json RESULT.json

* ``trainer_default``: random batches, dynamic padding.
* ``trainer_grouped``: also ``group_by_length``, the one flag that removes most of the padding. On a set of 200 batches
  or more it sorts 50 at once, on smaller ones a quarter of all; here it sorts 50 as on a large set, which is to its
  advantage.
* ``trainer_same_batches``: the very batches of wenmai in wenmai's order: what is left of a difference in loss is due
  to dropout alone.

Progress bar, reports, saving and evaluation are off. Loader processes are not used: the rows are tokenized beforehand
and padding a batch takes less than a millisecond.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from peers.measure import (
    START_ROWS,
    WARM_UP_STEPS,
    Counted,
    Job,
    Timer,
    heldout_loss,
    main,
    peak_memory_mb,
    result,
)

LARGE_POOL = 50
"""Batches that the Trainer sorts by length at once where the set has four times as many."""


class GroupedAsOnLargeSets(LengthGroupedSampler):
    """The Trainer's own sampler with the pools that it has where there are rows enough for them."""

    def __iter__(self) -> Iterator[int]:
        return iter(
            get_length_grouped_indices(
                self.lengths, self.batch_size, mega_batch_mult=LARGE_POOL, generator=self.generator
            )
        )


class PeerTrainer(Trainer):
    """With ``order``, the rows in this order; else sampled as the arguments say."""

    order: list[int] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.order is not None:
            return self.order
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
            return GroupedAsOnLargeSets(sampler.batch_size, lengths=lengths)
        return sampler


class TimedSteps(TrainerCallback):
    """From the beginning of the loop to the last step done."""

    def __init__(self, timer: Timer):
        self.timer = timer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.timer.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.timer.stop()
        self.timer.steps = state.global_step


def run(job: Job) -> dict[str, Any]:
    encoder = job.path("encoder")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tags = job.meta()["tags"]
    model = AutoModelForTokenClassification.from_pretrained(encoder, num_labels=len(tags))
    model.classifier.load_state_dict(load_file(job.path(f"head-{job.seed}.safetensors")))
    data = Dataset.from_list(
        [
            {
                "input_ids": row["input_ids"],
                "token_type_ids": [0] * len(row["tags"]),
                "attention_mask": [1] * len(row["tags"]),
                "labels": row["tags"],
            }
            for row in job.rows("train")
        ]
    )
    rows = job.rows("heldout")

    def logits(inputs: dict[str, Any]) -> Any:
        return model.eval()(**inputs).logits

    def trained(network: Any, max_steps: int, timer: Timer) -> None:
        trainer = PeerTrainer(
            network,
            arguments(job, max_steps),
            train_dataset=data,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            callbacks=[TimedSteps(timer)],
        )
        if job.runner == "trainer_same_batches":
            trainer.order = json.loads(job.path(f"order-{job.seed}.json").read_text(encoding="utf-8"))
        trainer.train()

    loss_before = heldout_loss(logits, rows[:START_ROWS], "cpu")
    trained(copy.deepcopy(model), WARM_UP_STEPS, Timer(job.device))
    counted, timer = Counted(), Timer(job.device)
    model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.add(kwargs["attention_mask"]), with_kwargs=True
    )
    trained(model, -1, timer)
    real, computed = counted.real, counted.computed
    memory = peak_memory_mb(job.device)
    return result(
        timer,
        tokens=real,
        computed=computed,
        steps=timer.steps,
        memory_mb=memory,
        loss_before=loss_before,
        loss_after=heldout_loss(logits, rows, job.device),
    )


def arguments(job: Job, max_steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(job.output) / "trainer"),
        per_device_train_batch_size=job.examples_per_step,
        num_train_epochs=1,
        max_steps=max_steps,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_grad_norm,
        lr_scheduler_type="constant",
        train_sampling_strategy="group_by_length" if job.runner == "trainer_grouped" else "random",
        seed=job.seed,
        use_cpu=job.device == "cpu",
        bf16=job.precision == "bf16",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(run)
