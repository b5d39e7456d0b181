"""What wenmai-tiny-zh brings: beside the same network untrained and e5-small, on six corpora under equal budgets.

    python benchmarks/encoder.py --json benchmarks/results/encoder.json
    python benchmarks/encoder.py --quick

Each run is a recipe of recipes/corpora. Equal budget: every model is trained on the same number of characters, that is
on the same passes over the same examples, in steps of 512 tokens of its own tokenizer. The learning rate of each model
is the best of two or three on the dev sets of cluener and thucnews_titles; for pairs, which get twice the text, that of
wenmai-tiny-zh is the better of two on the dev set of lcqmc and the others' are as before (``--dev --changes
train.learning_rate=...`` scores on dev and leaves the test set alone). The better of two evaluations on at most 400 dev
examples is tested once, on at most 2,000 test examples, evenly spread over the file. Runs that the JSON file already
holds are not repeated.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpora import DEV_EXAMPLES, TEST_EXAMPLES, majority
from runs import (
    RECIPES,
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
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

CORPORA = ("cluener", "msra_ner", "weibo_ner", "thucnews_titles", "waimai_10k", "lcqmc")
MODELS: dict[str, list[str]] = {
    "wenmai-tiny-zh": ["backbone.model=wenmai-tiny-zh"],
    "the same network, untrained": ["backbone.model=wenmai-tiny-zh", "backbone.weights=random"],
    "e5-small, first 6 layers": ["backbone.model=e5-small", "backbone.layers=6"],
}
"""What is compared, as changes of a recipe."""
RATES = {"wenmai-tiny-zh": 3e-4, "the same network, untrained": 5e-4, "e5-small, first 6 layers": 3e-4}
PAIR_RATES = {**RATES, "wenmai-tiny-zh": 2e-4}
"""Learning rates, of a text and of pairs."""
PAIRS = ("lcqmc",)
PAIRS_TIMES = 2
"""So many times the budget: pairs are learned later."""


def run(corpus: str, model: str, seed: int, characters: int, changes: list[str], dev: bool) -> dict[str, Any]:
    """Trains and scores once, in this process."""
    recipe = RECIPES / f"{corpus}.yaml"
    plain = load_config(recipe)
    splits = splits_of(plain)
    length = sum(example.length for example in splits["train"])
    with tempfile.TemporaryDirectory() as name:
        config = load_config(
            recipe,
            [
                *MODELS[model],
                f"train.learning_rate={(PAIR_RATES if corpus in PAIRS else RATES)[model]}",
                f"train.epochs={characters / length}",
                "train.eval_steps=0.5",
                f"train.eval_examples={DEV_EXAMPLES}",
                "train.tokens_per_step=512",
                "train.head_learning_rate=1e-2"
                if plain.task.name == "ner"
                else "train.head_learning_rate=1e-3",
                f"seed={seed}",
                "trackers=[]",
                f"output={Path(name) / 'run'}",
                *changes,
            ],
        )
        started = time.perf_counter()
        folder = train(config)
        trained = time.perf_counter()
        log = read_log(folder / "log.jsonl")
        if dev:
            evaluations = [event for event in log if event["event"] == "eval"]
            metric, examples = evaluations[-1]["primary_metric"], DEV_EXAMPLES
            found = {"value": max(event["metrics"][metric] for event in evaluations)}
        else:
            test = spread(splits["test"], TEST_EXAMPLES)
            metrics = evaluate(folder, test, split="test", output=folder / "evaluation" / "test")
            metric, examples = metrics["primary_metric"], metrics["examples"]
            found = {"value": metrics[metric], "interval": metrics[f"{metric}_interval"]}
    return {
        "corpus": corpus,
        "model": model,
        "changes": changes,
        "seed": seed,
        "metric": metric,
        **found,
        "scored_on": "dev" if dev else "test",
        "examples": examples,
        "characters": characters,
        "steps": log[-1]["step"],
        "tokens": [event["tokens"] for event in log if event["event"] == "train"][-1],
        "training_seconds": round(trained - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a corpus and model: mean over seeds, with a t interval where there are several."""
    rows = []
    for corpus, model in dict.fromkeys((one["corpus"], one["model"]) for one in runs):
        own = [one for one in runs if (one["corpus"], one["model"]) == (corpus, model)]
        mean, interval = mean_and_interval([one["value"] for one in own])
        rows.append(
            {
                "corpus": corpus,
                "model": model,
                "metric": own[0]["metric"],
                "mean": mean,
                "interval": interval,
                "seeds": len(own),
                "training_seconds": float(np.median([one["training_seconds"] for one in own])),
            }
        )
    return rows


def table(page: dict[str, Any]) -> str:
    models = list(dict.fromkeys(row["model"] for row in page["rows"]))
    lines = [
        f"| corpus | metric | {' | '.join(models)} | majority |",
        f"| --- | --- | {' | '.join('---' for _ in models)} | --- |",
    ]
    for corpus in dict.fromkeys(row["corpus"] for row in page["rows"]):
        cells = []
        for model in models:
            row = next(
                (row for row in page["rows"] if (row["corpus"], row["model"]) == (corpus, model)), None
            )
            if row is None:
                cells.append("")
                continue
            spread = "" if row["interval"] is None else " ± {:.3f}".format(row["interval"][1] - row["mean"])
            cells.append(f"{row['mean']:.3f}{spread}")
        metric = next(row["metric"] for row in page["rows"] if row["corpus"] == corpus)
        baseline = page["majority"].get(corpus)
        lines.append(
            f"| {corpus} | {metric} | {' | '.join(cells)} | {'' if baseline is None else f'{baseline:.3f}'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = series_parser(__doc__, quick="one corpus, one seed, little text: under a minute")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--characters", type=int, default=50_000, help="training text of one run")
    parser.add_argument("--changes", nargs="+", default=[], help="more changes of the configuration")
    parser.add_argument("--dev", action="store_true", help="score on dev, leave the test set alone")
    options = parser.parse_args()
    corpora, seeds, characters, models = (
        options.corpora, options.seeds, options.characters, options.models,
    )  # fmt: skip
    if options.quick:
        corpora, seeds, characters = ["weibo_ner"], [1], 3_000
        models = [model for model in models if "e5" not in model]
    page: dict[str, Any] = {
        "benchmark": "encoder",
        **surroundings(),
        "models": MODELS,
        "characters": characters,
        "majority": {name: majority(name) for name in corpora},
        "runs": [],
    }
    if options.json and options.json.is_file():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        page["runs"], page["majority"] = earlier["runs"], {**earlier["majority"], **page["majority"]}
    keys = ("corpus", "model", "seed", "characters", "changes")
    jobs = [
        {
            "corpus": corpus, "model": model, "seed": seed,
            "characters": characters * (PAIRS_TIMES if corpus in PAIRS else 1),
            "changes": options.changes, "dev": options.dev,
        }
        for seed in seeds
        for corpus in corpora
        for model in models
    ]  # fmt: skip
    jobs = still_to_do(jobs, page["runs"], keys)
    for found in results(jobs, partial(by_keys, run), options.together):
        page["runs"].append(found)
        print(json.dumps(found, ensure_ascii=False), flush=True)
        page["rows"] = summary(page["runs"])
        if options.json:
            write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    page["rows"] = summary(page["runs"])
    print(table(page))


if __name__ == "__main__":
    main()
