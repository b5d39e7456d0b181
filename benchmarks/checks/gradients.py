"""Does it matter how a step is cut? The gradients of 8 examples at once beside those of 4 times 2, accumulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from checks.material import (
    classified,
    configuration,
    multi_classified,
    plain,
    rated,
    records,
    scored,
    tiny_encoder,
    triple,
)
from peers.encoder import Architecture
from wenmai.config import RunConfig
from wenmai.data.rows import IGNORE, Batch
from wenmai.training.gradients import Step
from wenmai.training.machine import open_machine
from wenmai.training.setup import prepare

EXAMPLES, MICRO = 8, 2

Gradient = dict[str, Tensor]
Row = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One head on one encoder.

    Args:
        task: wenmai's task section.
        record: a sentence with entities to what the task reads.
        model: the class of transformers with the same head; None: it has none.
        label: the key of the target in wenmai's batches, ``labels`` for transformers.
        options: of that class.
    """

    name: str
    task: dict[str, Any]
    record: Callable[[Record], Record]
    architecture: Architecture = "bert"
    model: Any = None
    label: str = ""
    options: tuple[tuple[str, Any], ...] = ()


SEQUENCE, TOKEN, MASKED = (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForMaskedLM,
)
CLASSIFICATION = {"name": "text_classification"}
SOFTMAX = {"name": "ner", "head": "softmax"}
KINDS = (("num_labels", 3),)
TAGS = (("num_labels", 7),)

CASES = [
    Case("sequence classification, BERT", CLASSIFICATION, classified, "bert", SEQUENCE, "label", KINDS),
    Case("token classification, BERT", SOFTMAX, dict, "bert", TOKEN, "tags", TAGS),
    Case("masked LM, BERT", {"name": "masked_lm"}, plain, "bert", MASKED, "original"),
    Case("sequence classification, RoBERTa", CLASSIFICATION, classified, "roberta", SEQUENCE, "label", KINDS),
    Case("token classification, RoBERTa", SOFTMAX, dict, "roberta", TOKEN, "tags", TAGS),
    Case("sequence classification, ELECTRA", CLASSIFICATION, classified, "electra", SEQUENCE, "label", KINDS),
    Case("token classification, ELECTRA", SOFTMAX, dict, "electra", TOKEN, "tags", TAGS),
    Case(
        "multi-label classification, BERT",
        {"name": "text_classification", "multi_label": True},
        multi_classified,
        "bert",
        SEQUENCE,
        "labels",
        (*KINDS, ("problem_type", "multi_label_classification")),
    ),
    Case(
        "regression, BERT",
        {"name": "text_matching", "objective": "regression"},
        rated,
        "bert",
        SEQUENCE,
        "score",
        (("num_labels", 1), ("problem_type", "regression")),
    ),
    Case("CRF tagging, BERT", {"name": "ner", "head": "crf"}, dict),
    Case("GlobalPointer, BERT", {"name": "ner", "head": "global_pointer", "nested": True}, dict),
    Case("contrastive (InfoNCE), BERT", {"name": "text_embedding"}, triple),
    Case("CoSENT, BERT", {"name": "text_embedding", "objective": "cosent"}, scored),
]


def gradient_rows(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Norm ratio and cosine of every case, with dropout off and, of some, on."""
    texts = records(200)
    rows = []
    for number, case in enumerate(CASES[:3] if quick else CASES):
        encoder = tiny_encoder(folder, case.architecture, texts)
        data = [case.record(record) for record in texts[:EXAMPLES]]
        without: Gradient = {}
        for dropout in (0.0, 0.1) if case.architecture == "bert" else (0.0,):
            ours, trainer = {}, {}
            for micro in (EXAMPLES, MICRO):
                place = folder / f"gradients-{number}-{dropout}-{micro}"
                config = configuration(
                    place,
                    encoder,
                    case.task,
                    data,
                    dropout=dropout,
                    examples_per_step=EXAMPLES,
                    examples_per_micro_batch=micro,
                )
                ours[micro], batch = our_gradient(config)
                if case.model is not None:
                    trainer[micro] = trainer_gradient(
                        case, encoder, rows_of(batch, case), micro, dropout, place
                    )
            if dropout == 0:
                without = ours[EXAMPLES]
            else:
                assert cosine(without, ours[EXAMPLES]) < 0.9999, "dropout does nothing"
            which = "dropout off" if dropout == 0 else "dropout 0.1"
            rows += compared(f"{case.name}, {which}", ours, trainer)
    return rows


def compared(name: str, ours: dict[int, Gradient], trainer: dict[int, Gradient]) -> list[dict[str, Any]]:
    found = []
    for measure, value in (("norm ratio", norm_ratio), ("cosine", cosine)):
        own = value(ours[MICRO], ours[EXAMPLES])
        other = value(trainer[MICRO], trainer[EXAMPLES]) if trainer else None
        found.append(
            {
                "row": f"gradient {measure} of 4 times 2 against 8 at once: {name}",
                "ours": round(own, 6),
                "trainer": None if other is None else round(other, 6),
                "ours_exact": round(own, 6) == 1.0,
            }
        )
    return found


def our_gradient(config: RunConfig) -> tuple[Gradient, Batch]:
    """The mean gradient of the run's first step, and the step as one batch."""
    work = prepare(config)
    units = work.plan.steps(0)[0]
    parts = work.plan.micro_batches(units)
    assert len(units) == EXAMPLES and len(parts) == EXAMPLES // (config.train.examples_per_micro_batch or 1)
    model = work.model.train()
    with open_machine("cpu", "fp32") as machine:
        step = Step(
            batches=[work.maker(part, 0) for part in parts],
            forward=machine.forward(model),
            head=model.head,
            backward=machine.backward,
            parallel=machine.parallel,
        )
        _, terms = step.run()
    gradient = {name: p.grad / terms for name, p in model.named_parameters() if p.grad is not None}
    return gradient, work.maker(units, 0)


def rows_of(batch: Batch, case: Case) -> list[Row]:
    """wenmai's batch as the examples of a Trainer's dataset."""
    rows = []
    for i, mask in enumerate(batch["attention_mask"]):
        length = int(mask.sum())
        target = batch[case.label][i]
        if case.label == "labels":
            # numbers of the labels, padded
            label: Any = [float(j in target.flatten().tolist()) for j in range(3)]
        else:
            label = target[:length].tolist() if target.ndim else target.item()
        rows.append(
            {
                "input_ids": batch["input_ids"][i, :length].tolist(),
                "token_type_ids": batch["token_type_ids"][i, :length].tolist(),
                "attention_mask": [1] * length,
                "labels": label,
            }
        )
    return rows


class Capture(TrainerCallback):
    """Copies the gradients that the optimizer is about to use."""

    def __init__(self) -> None:
        self.gradient: Gradient = {}

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trainer_gradient(
    case: Case, encoder: Path, rows: list[Row], micro: int, dropout: float, place: Path
) -> Gradient:
    """What a Trainer gives its optimizer in its first step."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = case.model.from_pretrained(encoder, **rates, **dict(case.options))
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    per_token = isinstance(rows[0]["labels"], list) and case.label != "labels"
    collator = DataCollatorForTokenClassification if per_token else DataCollatorWithPadding
    capture = Capture()
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(place / "trainer"),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=EXAMPLES // micro,
            max_steps=1,
            max_grad_norm=0,
            train_sampling_strategy="sequential",
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=collator(tokenizer),
        callbacks=[capture],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return capture.gradient


def norm_ratio(left: Gradient, right: Gradient) -> float:
    return float(flat(left).norm() / flat(right).norm())


def cosine(left: Gradient, right: Gradient) -> float:
    one, other = flat(left), flat(right)
    return float(one @ other / (one.norm() * other.norm()))


def flat(gradient: Gradient) -> Tensor:
    return torch.cat([gradient[name].double().flatten() for name in sorted(gradient)])


assert IGNORE == -100, "what transformers leaves out of a loss too"
