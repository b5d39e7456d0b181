"""Which method learns most from 8, 16 or 32 labels a class: FewCLUE's five splits of three tasks, with wenmai-tiny-zh.

    python benchmarks/few_labels.py --json benchmarks/results/few-labels.json
    python benchmarks/few_labels.py --quick

The data are ../shared/data/fewclue: reviews (eprstmt), news titles in 15 classes (tnews), pairs of questions (bustm). A
split's training file holds 16 examples a class (eprstmt and bustm: on average). 8 a class are the first 8 of each class
in it (or all, where there are fewer); 32 are the training and the dev file of the split together. So no run has a dev
set: each takes a fixed number of examples, and the last weights, and is tested once, on at most 200 test examples,
evenly spread over the file.

The learning rate of each method is chosen beforehand among two, by the mean accuracy on the dev files of split 0 with
16 labels a class of the tasks with one text; these runs are on the page too. Its other settings are below.

A run has one thread. Runs that the JSON file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runs import (
    RECIPES,
    Run,
    by_keys,
    mean_and_interval,
    results,
    series_parser,
    splits_of,
    spread,
    still_to_do,
    surroundings,
)
from wenmai.atomic import write_text
from wenmai.config import load_config
from wenmai.evaluation.evaluate import evaluate
from wenmai.tasks import TASKS
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

CORPORA = ("eprstmt", "tnews", "bustm")
SEARCHED_ON = ("eprstmt", "tnews")
"""Where learning rates are chosen."""
SIZES = (8, 16, 32)
SPLITS = (0, 1, 2, 3, 4)
TEST_EXAMPLES, QUICK_TEST = 200, 60
CLOZE = "cloze_classification"
FROZEN_HEAD = {"freeze": ["head.*"]}
METHODS: dict[str, dict[str, Any]] = {
    "fine-tuning": {
        "task": "classification",
        "train": {"head_learning_rate": 1e-2},
        "rates": [3e-4, 1e-3],
    },
    "PET": {"task": CLOZE, "train": {}, "rates": [3e-4, 1e-3]},
    "prompt tuning": {
        "task": CLOZE,
        "adapter": {"method": "prompt_tuning", "virtual_tokens": 10},
        "train": FROZEN_HEAD,
        "rates": [1e-2, 3e-2],
    },
    "P-tuning": {
        "task": CLOZE,
        "adapter": {"method": "p_tuning", "virtual_tokens": 10, "encoder_hidden_size": 128},
        "train": FROZEN_HEAD,
        "rates": [3e-3, 1e-2],
    },
    "prefix tuning": {
        "task": CLOZE,
        "adapter": {"method": "prefix_tuning", "virtual_tokens": 10, "encoder_hidden_size": 128},
        "train": FROZEN_HEAD,
        "rates": [3e-3, 1e-2],
    },
    "P-tuning v2": {
        "task": "classification",
        "adapter": {"method": "p_tuning_v2", "virtual_tokens": 10},
        "train": {"head_learning_rate": 1e-2},
        "rates": [1e-2, 3e-2],
    },
    "LoRA": {
        "task": "classification",
        "adapter": {"method": "lora", "rank": 8, "alpha": 16},
        "train": {"head_learning_rate": 3e-3},
        "rates": [3e-3, 1e-2],
    },
    "SetFit": {
        "task": "contrastive_classification",
        "train": {"examples_per_step": 32},
        "rates": [1e-4, 3e-4],
    },
}
"""The task that each method learns, its adapter, its settings, and the learning rates it is tried with. Prompt tuning,
P-tuning and prefix tuning use the pre-trained masked-LM head and leave it as it is; P-tuning v2 and LoRA have a new
classifier, as fine-tuning has."""

EXAMPLES = {"eprstmt": 240, "tnews": 720, "bustm": 240}
"""How many examples every run learns from, repeated ones counted."""
AT_ONCE = {"eprstmt": 8, "tnews": 16, "bustm": 8}
"""Of a step, unless the method says otherwise."""


def records(corpus: str, split: int, size: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The examples to train on, and those of the split's dev file."""
    config = load_config(
        RECIPES / f"fewclue_{corpus}.yaml", [f"data.train=train_{split}.json", f"data.dev=dev_{split}.json"]
    )
    splits = splits_of(config)
    found = {
        name: [example.model_dump(exclude_none=True) for example in splits[name]] for name in ("train", "dev")
    }
    if size == 32:
        return found["train"] + found["dev"], found["dev"]
    seen: Counter[str] = Counter()
    kept = []
    for record in found["train"]:
        seen[record["label"]] += 1
        if size == 16 or seen[record["label"]] <= size:
            kept.append(record)
    return kept, found["dev"]


def tree(corpus: str, method: str, split: int, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration of a run, whose data lie in ``folder``."""
    recipe = load_config(RECIPES / f"fewclue_{corpus}.yaml")
    chosen = METHODS[method]
    at_once = chosen["train"].get("examples_per_step", AT_ONCE[corpus])
    task = {"name": chosen["task"], "max_length": recipe.task.max_length}
    if chosen["task"] == "classification":
        task["name"] = "text_matching" if corpus == "bustm" else "text_classification"
    elif chosen["task"] == CLOZE:
        task |= recipe.task.model_dump(mode="json", include={"templates", "verbalizer"})
    backbone: dict[str, Any] = {"model": "wenmai-tiny-zh"}
    if "adapter" in chosen:
        backbone["adapter"] = chosen["adapter"]
    return {
        "task": task,
        "backbone": backbone,
        "data": {"train": str(folder / "train.jsonl")},
        "train": {
            "epochs": 1000,  # the steps end it
            "max_steps": EXAMPLES[corpus] // at_once,
            "examples_per_step": at_once,
            "save_steps": 100_000,
            **chosen["train"],
            **settings,
        },
        "device": "cpu",
        "precision": "bf16",
        "trackers": [],
        "seed": split,
        "output": str(folder / "run"),
    }


def run(corpus: str, method: str, size: int, split: int, settings: dict[str, Any], scored_on: str) -> Run:
    """Trains and scores once, in this process."""
    train_records, dev_records = records(corpus, split, size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in train_records)
        write_text(folder / "train.jsonl", lines)
        write_text(
            folder / "run.yaml", json.dumps(tree(corpus, method, split, settings, folder), ensure_ascii=False)
        )
        config = load_config(folder / "run.yaml")
        started, cpu = time.perf_counter(), time.process_time()
        trained = train(config)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        example = TASKS[config.task.name].Example
        if scored_on == "dev":
            examples = [example.model_validate(record) for record in dev_records]
        else:
            recipe = load_config(RECIPES / f"fewclue_{corpus}.yaml")
            most = QUICK_TEST if "max_steps" in settings else TEST_EXAMPLES
            chosen = spread(splits_of(recipe)["test"], most)
            examples = [example.model_validate(one.model_dump(exclude_none=True)) for one in chosen]
        metrics = evaluate(trained, examples, split=scored_on, output=folder / "evaluation")
        log = read_log(trained / "log.jsonl")
    return {
        "corpus": corpus,
        "method": method,
        "size": size,
        "split": split,
        "settings": settings,
        "scored_on": scored_on,
        "accuracy": metrics["accuracy"],
        "examples": metrics["examples"],
        "train_examples": len(train_records),
        "steps": log[-1]["step"],
        "parameters": log[0]["parameters"],
        "trainable": log[0]["trainable"],
        "training_seconds": round(seconds, 1),
        "training_cpu_seconds": round(cpu_seconds, 1),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a corpus, size and method: the mean over splits with its t interval, and what it cost."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in runs:
        if one["scored_on"] == "test":
            groups.setdefault((one["corpus"], one["size"], one["method"]), []).append(one)
    rows = []
    for (corpus, size, method), own in groups.items():
        mean, interval = mean_and_interval([one["accuracy"] for one in own])
        rows.append(
            {
                "corpus": corpus,
                "size": size,
                "method": method,
                "mean": mean,
                "half_interval": None if interval is None else interval[1] - mean,
                "splits": len(own),
                "training_seconds": float(np.median([one["training_seconds"] for one in own])),
                "training_cpu_seconds": float(np.median([one["training_cpu_seconds"] for one in own])),
                "trainable": own[0]["trainable"],
                "parameters": own[0]["parameters"],
            }
        )
    for row in rows:
        rivals = [other for other in rows if (other["corpus"], other["size"]) == (row["corpus"], row["size"])]
        row["best"] = row["mean"] == max(other["mean"] for other in rivals)
    return rows


def table(page: dict[str, Any]) -> str:
    """A row a method: accuracy at each corpus and size, the best of each column in bold; then what it cost."""
    rows = page["rows"]
    columns = sorted(
        {(row["corpus"], row["size"]) for row in rows}, key=lambda one: (CORPORA.index(one[0]), one[1])
    )
    names = [f"{corpus} {size}" for corpus, size in columns]
    lines = [
        f"| method | {' | '.join(names)} | mean rank | seconds | trainable |",
        f"| --- | {' | '.join('---' for _ in names)} | --- | --- | --- |",
    ]
    for method in [name for name in METHODS if any(row["method"] == name for row in rows)]:
        cells, ranks, own = [], [], []
        for column in columns:
            rivals = {row["method"]: row for row in rows if (row["corpus"], row["size"]) == column}
            row = rivals.get(method)
            if row is None:
                cells.append("")
                continue
            own.append(row)
            ranks.append(1 + sum(other["mean"] > row["mean"] for other in rivals.values()))
            text = f"{row['mean']:.3f}" + (
                "" if row["half_interval"] is None else f" ± {row['half_interval']:.3f}"
            )
            cells.append(f"**{text}**" if row["best"] else text)
        seconds = np.median([row["training_cpu_seconds"] for row in own])
        learned = max(row["trainable"] for row in own)
        share = learned / max(row["parameters"] for row in own)
        lines.append(
            f"| {method} | {' | '.join(cells)} | {np.mean(ranks):.1f} | {seconds:.1f} | {learned:,} ({share:.1%}) |"
        )
    return "\n".join(lines)


def winners(page: dict[str, Any]) -> str:
    """Which method wins at each size: the highest mean over the tasks."""
    lines = []
    for size in sorted({row["size"] for row in page["rows"]}):
        means: dict[str, list[float]] = {}
        for row in page["rows"]:
            if row["size"] == size:
                means.setdefault(row["method"], []).append(row["mean"])
        whole = max(map(len, means.values()))
        ranked = sorted(
            ((float(np.mean(v)), name) for name, v in means.items() if len(v) == whole), reverse=True
        )
        shown = ", ".join(f"{name} {mean:.3f}" for mean, name in ranked[:3])
        lines.append(f"{size} labels a class: {shown}")
    return "\n".join(lines)


def main() -> None:
    parser = series_parser(__doc__, quick="one task, size and split, few steps: under a minute")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--splits", nargs="+", type=int, choices=SPLITS, default=list(SPLITS))
    options = parser.parse_args()
    page: dict[str, Any] = {
        "benchmark": "few_labels",
        **surroundings("peft"),
        "methods": METHODS,
        "examples": EXAMPLES,
        "runs": [],
    }
    if options.json and options.json.is_file():
        page["runs"] = json.loads(options.json.read_text(encoding="utf-8"))["runs"]
    if options.quick:
        quick = {"max_steps": 3}
        jobs = [job("bustm", method, 8, 0, METHODS[method]["rates"][0], quick) for method in options.methods]
        work_off(jobs, page, options)
    else:
        trials = [
            job(corpus, method, 16, 0, rate, {}, on="dev")
            for corpus in SEARCHED_ON
            for method in options.methods
            for rate in METHODS[method]["rates"]
        ]
        work_off(trials, page, options)
        rates = chosen_rates(page["runs"], options.methods)
        jobs = [
            job(corpus, method, size, split, rates[method], {})
            for split in options.splits
            for size in options.sizes
            for corpus in options.corpora
            for method in options.methods
        ]
        work_off(jobs, page, options)
    print(table(page))
    print(winners(page))


def job(
    corpus: str, method: str, size: int, split: int, rate: float, more: dict[str, Any], *, on: str = "test"
) -> Run:
    settings = {"learning_rate": rate, **more}
    return {
        "corpus": corpus, "method": method, "size": size, "split": split, "settings": settings, "scored_on": on,
    }  # fmt: skip


def chosen_rates(runs: list[dict[str, Any]], methods: list[str]) -> dict[str, float]:
    """Of each method the rate with the highest mean accuracy on the dev files; the lowest of several equal ones."""
    chosen = {}
    for method in methods:
        scores: dict[float, list[float]] = {rate: [] for rate in METHODS[method]["rates"]}
        for one in runs:
            rate = one["settings"]["learning_rate"]
            if one["method"] == method and one["scored_on"] == "dev" and rate in scores:
                scores[rate].append(one["accuracy"])
        chosen[method] = max(scores, key=lambda rate: float(np.mean(scores[rate])))
    return chosen


def work_off(jobs: list[Run], page: dict[str, Any], options: argparse.Namespace) -> None:
    """Runs what the page does not hold yet, and writes the page after each."""
    left = still_to_do(jobs, page["runs"], ("corpus", "method", "size", "split", "settings", "scored_on"))
    for found in results(left, partial(by_keys, run), options.together):
        page["runs"].append(found)
        print(json.dumps(found, ensure_ascii=False), flush=True)
        page["rows"] = summary(page["runs"])
        if options.json:
            write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    page["rows"] = summary(page["runs"])


if __name__ == "__main__":
    main()
