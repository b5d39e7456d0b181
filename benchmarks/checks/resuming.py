"""Is a run that was stopped and resumed the run that never stopped? The largest difference of a final weight."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from checks.material import configuration, plain, records, tiny_encoder
from wenmai.config import RunConfig
from wenmai.training.setup import prepare
from wenmai.training.stopping import Interrupted
from wenmai.training.trainer import train

EXAMPLES, BATCH, EPOCHS = 48, 4, 2
STOPS = {"in the middle of epoch 1": 5, "in epoch 2": 17}
RATE = 1e-3

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """Args: ``masked`` trains a masked LM, else a tagger; ``grouped`` sorts by length; ``workers`` load the data."""

    name: str
    masked: bool = False
    grouped: bool = False
    workers: int = 0


CASES = [
    Case("plain"),
    Case("plain, 2 workers", workers=2),
    Case("length-grouped", grouped=True),
    Case("masked LM", masked=True),
    Case("masked LM, 2 workers", masked=True, workers=2),
    Case("masked LM, length-grouped", masked=True, grouped=True),
]


def resume_rows(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    data = records(EXAMPLES)
    encoder = tiny_encoder(folder, "bert", records(200))
    rows = []
    for case in [CASES[0], CASES[3]] if quick else CASES:
        name = case.name.replace(" ", "-").replace(",", "")
        ours = our_final(folder / f"ours-{name}", encoder, case, data, None)
        trainer = trainer_final(folder / f"trainer-{name}", encoder, case, data, None)
        for when, stop in STOPS.items():
            place = f"{name}-{stop}"
            own = largest_difference(ours, our_final(folder / f"ours-{place}", encoder, case, data, stop))
            other = largest_difference(
                trainer, trainer_final(folder / f"trainer-{place}", encoder, case, data, stop)
            )
            rows.append(
                {
                    "row": f"largest weight difference after stopping {when} and resuming: {case.name}",
                    "ours": own,
                    "trainer": other,
                    "ours_exact": own == 0.0,
                }
            )
    return rows


def largest_difference(left: Weights, right: Weights) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


class StopAfter:
    """A progress display that shows nothing and sends this process SIGTERM after so many steps."""

    def __init__(self, steps: int):
        self.steps = steps

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        yield _Counter(self.steps if name == "training" else None)


class _Counter:
    def __init__(self, left: int | None):
        self.left = left

    def advance(self, n: int = 1, **shown: object) -> None:
        if self.left is not None and n:
            self.left -= n
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)


def our_final(
    folder: Path, encoder: Path, case: Case, data: list[dict[str, Any]], stop: int | None
) -> Weights:
    """The weights after all steps; ``stop``: of a run that a signal ended after so many and ``--resume`` took up."""
    config = our_configuration(folder, encoder, case, data)
    if stop is not None:
        try:
            train(config, progress=StopAfter(stop))
        except Interrupted:
            pass
        else:
            raise AssertionError("the run was to be stopped")
    run = train(config, resume=stop is not None)
    return load_file(run / "checkpoint" / "model.safetensors")


def our_configuration(folder: Path, encoder: Path, case: Case, data: list[dict[str, Any]]) -> RunConfig:
    """wenmai always sorts by length; ``grouped`` gives it its token budget, else as many examples a step."""
    size: dict[str, Any] = {"examples_per_step": BATCH}
    if case.grouped:
        size = {"tokens_per_step": 150}
    config = configuration(
        folder,
        encoder,
        {"name": "masked_lm"} if case.masked else {"name": "ner", "head": "softmax"},
        [plain(record) for record in data] if case.masked else data,
        dropout=0.1,
        epochs=EPOCHS,
        learning_rate=RATE,
        num_workers=case.workers,
        **size,
    )
    return config


class StopTrainer(TrainerCallback):
    """Saves and stops after so many steps."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def trainer_final(
    folder: Path, encoder: Path, case: Case, data: list[dict[str, Any]], stop: int | None
) -> Weights:
    """The same of a Trainer: a new one, with a new model, resumes from the checkpoint."""
    rows = trainer_rows(folder, encoder, case, data)
    if stop is not None:
        trainer_of(folder, encoder, case, rows, [StopTrainer(stop)]).train()
    trainer = trainer_of(folder, encoder, case, rows, [])
    trainer.train(resume_from_checkpoint=stop is not None)
    assert trainer.state.global_step == EXAMPLES // BATCH * EPOCHS
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def trainer_rows(
    folder: Path, encoder: Path, case: Case, data: list[dict[str, Any]]
) -> list[dict[str, list[int]]]:
    work = prepare(our_configuration(folder / "rows", encoder, case, data))
    rows = []
    for example in work.data["train"]:
        (row,) = work.task.featurize(example, work.tokenizer)
        made = {
            "input_ids": row.inputs["input_ids"],
            "token_type_ids": row.inputs["token_type_ids"],
            "attention_mask": [1] * len(row),
        }
        rows.append(made if case.masked else made | {"labels": row.targets["tags"]})
    return rows


def trainer_of(
    folder: Path,
    encoder: Path,
    case: Case,
    rows: list[dict[str, list[int]]],
    callbacks: list[TrainerCallback],
) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(0)
    if case.masked:
        model = AutoModelForMaskedLM.from_pretrained(encoder)
        collator: Any = DataCollatorForLanguageModeling(tokenizer)
    else:
        model = AutoModelForTokenClassification.from_pretrained(encoder, num_labels=7)
        collator = DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS,
            learning_rate=RATE,
            train_sampling_strategy="group_by_length" if case.grouped else "random",
            dataloader_num_workers=case.workers,
            seed=1,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=collator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
