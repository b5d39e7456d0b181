"""What every understanding task reaches on its real data under a small budget: two encoders, mean over seeds.

    python benchmarks/tasks.py --search --json benchmarks/results/tasks.json
    python benchmarks/tasks.py --json benchmarks/results/tasks.json
    python benchmarks/tasks.py --corpora atis webnlg --models wenmai-tiny-zh --seeds 1 --dev
    python benchmarks/tasks.py --quick

Each run trains a recipe of recipes/corpora, unchanged but for the encoder, the learning rates, the seed and the budget:
so many tokens (``TOKENS``) in small steps (``STEP_TOKENS``), in bfloat16 and without dropout. ``--search`` tries
``TRIALS`` of rates with one seed on the dev set of one data set of each task (``SEARCHED_ON``, else the first); what
did best there is what an encoder learns this task with, else ``RATES``. ``--dev`` scores on dev too, and leaves the
test set alone. The better of two evaluations on at most ``DEV_EXAMPLES`` is tested once, on at most ``TEST_EXAMPLES``,
evenly spread over the file.
Beside it stand rules without a model (``baselines.py``) and what is published for full-size models
(``published.py``). Runs that the JSON file already holds are not repeated, and every seed covers all data sets before
the next begins.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from baselines import baselines
from published import PUBLISHED
from runs import (
    RECIPES,
    Run,
    mean_and_interval,
    results,
    series_parser,
    splits_of,
    spread,
    still_to_do,
    surroundings,
)
from wenmai.atomic import write_text
from wenmai.bundle import load_bundle
from wenmai.config import RunConfig, load_config
from wenmai.data.examples import Examples
from wenmai.evaluation.evaluate import evaluate
from wenmai.tasks import TASKS
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

TOKENS = {
    "question_answering": 120_000,
    "multiple_choice": 80_000,
    "document_layout": 120_000,
    "relation_extraction": 200_000,
    "text_matching": 60_000,
    "afqmc_embedding": 160_000,
}
"""Training tokens of one run by task, or for a data set that needs others."""
USUAL_TOKENS = 40_000
STEP_TOKENS = {"multiple_choice": 1024}
"""Tokens of one optimizer step, where many rows make an example."""
USUAL_STEP_TOKENS = 512
DEV_EXAMPLES = {"question_answering": 60, "multiple_choice": 60}
USUAL_DEV_EXAMPLES = 200
TEST_EXAMPLES = {"question_answering": 300, "multiple_choice": 300}
USUAL_TEST_EXAMPLES = 600
COUNTED_FOR_PASSES = 300
"""Training examples whose tokens are counted to tell how many passes a budget is."""

MODELS = {
    "e5-small": ["backbone.model=e5-small", "backbone.layers=null"],
    "e5-small, first 6 layers": ["backbone.model=e5-small", "backbone.layers=6"],
    "wenmai-tiny-zh": ["backbone.model=wenmai-tiny-zh", "backbone.layers=null"],
}
"""Encoders, as changes of a recipe."""
DEFAULT_MODELS = ("e5-small, first 6 layers", "wenmai-tiny-zh")
USUAL_RATES = {"e5-small": (3e-4, 1e-2), "wenmai-tiny-zh": (3e-4, 1e-2)}
RATES: dict[tuple[str, str], tuple[float, float]] = {
    ("e5-small", "people_relation"): (1e-4, 1e-2),
    ("e5-small", "sanwen"): (1.5e-4, 1e-2),
    ("wenmai-tiny-zh", "text_matching"): (2e-4, 1e-2),
}
"""Rate of the encoder and rate of the head; for some encoder and data set or task others than usual."""

TRIALS = ((3e-4, 1e-3), (3e-4, 1e-2), (1e-3, 1e-3), (1e-4, 1e-3))
"""Rates of the encoder and of the head that ``--search`` tries."""
SEARCHED_ON = {
    "dependency_parsing": "ud_zh_gsdsimp",
    "ner": "weibo_ner",
    "relation_classification": "semeval2010_task8",
    "relation_extraction": "webnlg",
    "slot_filling": "smp2019_slu",
    "text_classification": "thucnews_titles",
    "text_embedding": "stsb_zh",
    "text_matching": "lcqmc",
}

KEYS = ("corpus", "changes", "seed", "scored_on", "most_examples")
"""What tells one run from another."""


def rates_of(model: str, task: str, corpus: str, runs: list[Run]) -> tuple[float, float]:
    """What did best of the trials on dev, if there were any; of the encoder and of the head."""
    trials = [one for one in runs if (one["model"], one["task"]) == (model, task) and one.get("trial")]
    if trials:
        same = [one for one in trials if one["corpus"] == trials[-1]["corpus"]]
        rate, head_rate = max(same, key=lambda one: one["value"])["trial"]
        return rate, head_rate
    encoder = model.partition(",")[0]
    return RATES.get((encoder, corpus), RATES.get((encoder, task), USUAL_RATES[encoder]))


def changes_of(
    config: RunConfig,
    model: str,
    rates: tuple[float, float],
    seed: int,
    tokens: int,
    dev_examples: int,
) -> list[str]:
    """All that a run changes of its recipe, but for where it writes."""
    task, (rate, head_rate) = config.task.name, rates
    dropout = ["task.dropout=0"] if "dropout" in type(config.task).model_fields else []
    step = []
    if config.train.examples_per_step is None:
        step = [f"train.tokens_per_step={STEP_TOKENS.get(task, USUAL_STEP_TOKENS)}"]
    return [
        *MODELS[model],
        f"train.learning_rate={rate:g}",
        f"train.head_learning_rate={head_rate:g}",
        f"train.max_tokens={tokens}",
        "train.epochs=1000",  # the tokens end it
        "train.early_stopping_patience=null",
        "train.eval_steps=0.5",
        f"train.eval_examples={dev_examples}",
        *step,
        "backbone.dropout=0",  # no text is seen often enough to be learned by heart
        *dropout,
        "precision=bf16",
        f"seed={seed}",
        "trackers=[]",
    ]


def run(job: Run) -> Run:
    """Trains and scores once, in this process."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "run"
        config = load_config(RECIPES / f"{job['corpus']}.yaml", [*job["changes"], f"output={output}"])
        splits = splits_of(config)
        started = time.perf_counter()
        folder = train(config)
        trained = time.perf_counter()
        log = read_log(folder / "log.jsonl")
        evaluations = [event for event in log if event["event"] == "eval"]
        metric = evaluations[-1]["primary_metric"]
        dev = [event["metrics"][metric] for event in evaluations]
        if job["scored_on"] == "dev":
            metrics = evaluations[dev.index(max(dev))]["metrics"]
            examples = min(job["most_examples"], len(splits["dev"]))
        else:
            test = spread(splits["test"], job["most_examples"])
            metrics = evaluate(folder, test, split="test", output=folder / "evaluation" / "test")
            examples = metrics["examples"]
        scored = time.perf_counter()
        tokens = [event["tokens"] for event in log if event["event"] == "train"][-1]
        passes = tokens / tokens_of_a_pass(folder, splits["train"])
        shutil.rmtree(folder)
    return {
        **job,
        "task": config.task.name,
        "metric": metric,
        "value": metrics[metric],
        "interval": metrics.get(f"{metric}_interval"),
        "examples": examples,
        "metrics": {name: value for name, value in metrics.items() if isinstance(value, float)},
        "dev": dev,
        "train_examples": len(splits["train"]),
        "tokens": tokens,
        "passes": round(passes, 2),
        "steps": log[-1]["step"],
        "training_seconds": round(trained - started, 1),
        "scoring_seconds": round(scored - trained, 1),
    }


def tokens_of_a_pass(folder: Path, examples: Examples[Any]) -> float:
    bundle = load_bundle(folder / "bundle")
    some = spread(examples, COUNTED_FOR_PASSES)
    rows = [len(row) for example in some for row in bundle.task.featurize(example, bundle.tokenizer)]
    return sum(rows) / len(some) * len(examples)


def baseline_of(job: Run) -> Run:
    """What the rules of its task reach on the very test examples of a data set."""
    config = load_config(RECIPES / f"{job['corpus']}.yaml")
    splits = splits_of(config)
    kind = TASKS[config.task.name]
    task = kind(config.task, kind.collect_labels(config.task, splits["train"]))
    part = spread(splits[job["scored_on"]], job["most_examples"])
    return {**job, "metric": task.primary_metric, "rules": baselines(task, list(splits["train"]), list(part))}


def run_or_baseline(job: Run) -> Run:
    return run(job) if "seed" in job else baseline_of(job)


def rows_of(runs: list[Run], rules: list[Run]) -> list[dict[str, Any]]:
    """A row a data set and encoder: of the runs with the settings of its newest one, the mean over seeds."""
    rows = []
    for corpus, model, scored_on in sorted({(one["corpus"], one["model"], one["scored_on"]) for one in runs}):
        own = [
            one
            for one in runs
            if (one["corpus"], one["model"], one["scored_on"]) == (corpus, model, scored_on)
        ]
        own = [one for one in own if settings(one) == settings(own[-1])]
        mean, interval = mean_and_interval([one["value"] for one in own])
        last = own[-1]
        beside = next((one for one in reversed(rules) if same_examples(one, last)), None)
        best = max(
            ((values[last["metric"]], name) for name, values in beside["rules"].items()) if beside else [],
            default=None,
        )
        rows.append(
            {
                "corpus": corpus,
                "task": last["task"],
                "model": model,
                "scored_on": scored_on,
                "metric": last["metric"],
                "mean": mean,
                "interval": interval,
                "seeds": [one["seed"] for one in own],
                "examples": last["examples"],
                "tokens": last["tokens"],
                "passes": last["passes"],
                "steps": last["steps"],
                "training_seconds": float(np.median([one["training_seconds"] for one in own])),
                "baseline": best and {"rule": best[1], "value": best[0]},
                "published": PUBLISHED[corpus]._asdict() if corpus in PUBLISHED else None,
            }
        )
    return rows


def settings(one: Run) -> list[str]:
    return [
        *(change for change in one["changes"] if not change.startswith("seed=")),
        str(one["most_examples"]),
    ]


def same_examples(one: Run, other: Run) -> bool:
    return all(one[key] == other[key] for key in ("corpus", "scored_on", "most_examples"))


def table(rows: list[dict[str, Any]]) -> str:
    """A line a data set, by task."""
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    lines = [
        f"| task | data | measure | {' | '.join(models)} | rule without a model | examples scored | tokens | passes |",
        "| --- " * (len(models) + 7) + "|",
    ]
    for task, corpus, scored_on in sorted({(row["task"], row["corpus"], row["scored_on"]) for row in rows}):
        own = {row["model"]: row for row in rows if (row["corpus"], row["scored_on"]) == (corpus, scored_on)}
        row = next(iter(own.values()))
        baseline = row["baseline"]
        passes = ", ".join("{passes:.2f}".format(**own[model]) for model in models if model in own)
        lines.append(
            f"| {task} | {corpus} | {row['metric']} "
            f"| {' | '.join(cell(own[model]) if model in own else '' for model in models)} "
            f"| {'' if baseline is None else '{value:.3f}, {rule}'.format(**baseline)} "
            f"| {row['examples']:,}{' of dev' if scored_on == 'dev' else ''} | {row['tokens']:,} "
            f"| {passes} |"
        )
    return "\n".join(lines)


def published_table(rows: list[dict[str, Any]]) -> str:
    """What full-size models reach, a line a data set."""
    found = {row["corpus"]: row["published"] for row in rows if row["published"] is not None}
    lines = ["| data | published | of | source |", "| --- | --- | --- | --- |"]
    lines += [
        "| {0} | {value} | {what} | {source} |".format(corpus, **found[corpus]) for corpus in sorted(found)
    ]
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    if row["interval"] is None:
        return f"{row['mean']:.3f} (seed {row['seeds'][0]})"
    return f"{row['mean']:.3f} ± {row['interval'][1] - row['mean']:.3f}"


def main() -> None:
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    parser = series_parser(__doc__, quick="one seed, few tokens, few examples; one data set unless named")
    parser.add_argument("--corpora", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(DEFAULT_MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, help="training tokens of one run; default: by task")
    parser.add_argument("--changes", nargs="+", default=[], help="more changes of the configuration")
    parser.add_argument(
        "--search", action="store_true", help="try rates on dev, for the tests that follow with the same file"
    )
    parser.add_argument("--dev", action="store_true", help="score on dev, leave the test set alone")
    options = parser.parse_args()

    corpora, seeds, tokens, models = options.corpora, options.seeds, options.tokens, options.models
    if options.quick:
        corpora = ["weibo_ner"] if corpora == names else corpora
        seeds, tokens, models = [1], tokens or 4_000, [model for model in models if "e5" not in model]
    page: dict[str, Any] = {
        "benchmark": "tasks", **surroundings(), "models": MODELS, "baselines": [], "runs": [], "rows": [],
    }  # fmt: skip
    if options.json and options.json.is_file():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        page |= {name: earlier[name] for name in ("baselines", "runs", "rows")}
    jobs: list[Run] = []
    rules: list[Run] = []
    configs = {corpus: load_config(RECIPES / f"{corpus}.yaml") for corpus in corpora}
    if options.search:
        seeds = seeds[:1]
        by_task: dict[str, list[str]] = {}
        for corpus, config in configs.items():
            by_task.setdefault(config.task.name, []).append(corpus)
        firsts = {task: SEARCHED_ON.get(task, own[0]) for task, own in by_task.items()}
        corpora = [firsts[task] if firsts[task] in own else own[0] for task, own in by_task.items()]
    for seed in seeds:
        for corpus in corpora:
            config, task = configs[corpus], configs[corpus].task.name
            dev_most = 20 if options.quick else DEV_EXAMPLES.get(task, USUAL_DEV_EXAMPLES)
            most = 30 if options.quick else TEST_EXAMPLES.get(task, USUAL_TEST_EXAMPLES)
            on_dev = options.dev or options.search
            scored = {
                "corpus": corpus,
                "scored_on": "dev" if on_dev else "test",
                "most_examples": dev_most if on_dev else most,
            }
            rules += [scored] if seed == seeds[0] else []
            budget = tokens or TOKENS.get(corpus, TOKENS.get(task, USUAL_TOKENS))
            for model in models:
                trials = TRIALS if options.search else [rates_of(model, task, corpus, page["runs"])]
                jobs += [
                    {
                        **scored,
                        "model": model,
                        "seed": seed,
                        "trial": rates if options.search else None,
                        "changes": [
                            *changes_of(config, model, rates, seed, budget, dev_most),
                            *options.changes,
                        ],
                    }
                    for rates in trials
                ]
    jobs = still_to_do(jobs, page["runs"], KEYS)
    rules = still_to_do(rules, page["baselines"], ("corpus", "scored_on", "most_examples"))
    for found in results([*rules, *jobs], run_or_baseline, options.together):
        page["runs" if "seed" in found else "baselines"].append(found)
        page["rows"] = rows_of(page["runs"], page["baselines"])
        print(json.dumps(found, ensure_ascii=False), flush=True)
        if options.json:
            write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    print(table(page["rows"]))
    print(published_table(page["rows"]))


if __name__ == "__main__":
    main()
