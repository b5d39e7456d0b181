"""The same encoder, data and budget through wenmai and through a peer, on tasks that both can do.

    python benchmarks/task_peers.py --json benchmarks/results/task-peers.json
    python benchmarks/task_peers.py --quick

* ``questions``: transformers' Trainer with windows, starts and ends of answers and n-best as its example has them
* ``tags``: transformers' Trainer with token classification as its example has it; wenmai with the recipe's CRF and,
  for a head of the same kind, with a softmax over tags
* ``spans``: bert4torch's GlobalPointer; wenmai with its own
* ``triples``: bert4torch's GlobalPointer as GPLinker; wenmai with its own

All sides start from the same weights in a plain folder and read the same examples, about as many tokens in steps of
about as many. Trainer groups by length. Each side takes the learning rates that did best on dev with one seed: wenmai
of two pairs; a peer of two rates for all parameters, which is what its example has, and of one pair for encoder and
head, which it gets here in addition. It then trains anew for each seed, keeps the better of two evaluations on at most
``USUAL_DEV_EXAMPLES`` of dev, and is tested once, on the same examples by the same scorer. A run has a thread of its
own; runs that the JSON file already holds are not repeated.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tasks import (
    DEV_EXAMPLES,
    MODELS,
    STEP_TOKENS,
    TEST_EXAMPLES,
    TOKENS,
    USUAL_DEV_EXAMPLES,
    USUAL_STEP_TOKENS,
    USUAL_TEST_EXAMPLES,
    USUAL_TOKENS,
)
from tasks import run as run_of_wenmai
from wenmai.atomic import write_text
from wenmai.config import RunConfig, load_config
from wenmai.tasks import TASKS

TRAINER_RATES: list[dict[str, Any]] = [{"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-4, "head_rate": 1e-2}]
POINTER_RATES: list[dict[str, Any]] = [{**rates, "efficient": True} for rates in TRAINER_RATES]
OUR_RATES: list[dict[str, Any]] = [{"rate": 3e-4, "head_rate": 1e-2}, {"rate": 1e-3, "head_rate": 1e-2}]


@dataclass(frozen=True)
class Side:
    """Args:
    runner: ``wenmai``, or ``module.function`` of benchmarks/peers.
    changes: of the recipe, for the task that both sides train and that scores them.
    trials: what is tried on dev.
    """

    runner: str
    changes: tuple[str, ...]
    trials: list[dict[str, Any]]


CONTESTS: dict[str, tuple[tuple[str, ...], dict[str, Side]]] = {
    "questions": (
        ("cmrc2018", "drcd"),
        {
            "wenmai": Side("wenmai", (), OUR_RATES),
            # the lengths of its example, which has all windows learned
            "transformers": Side(
                "trainer_questions.run",
                ("task.max_length=384", "task.window_overlap=128", "task.empty_windows=none"),
                TRAINER_RATES,
            ),
        },
    ),
    "tags": (
        ("weibo_ner", "resume_ner", "cluener", "msra_ner"),
        {
            "wenmai, CRF": Side("wenmai", ("task.head=crf",), OUR_RATES),
            "wenmai, softmax": Side("wenmai", ("task.head=softmax",), OUR_RATES),
            "transformers": Side("trainer_tags.run", (), TRAINER_RATES),
        },
    ),
    "spans": (
        ("weibo_ner", "cluener"),
        {
            "wenmai, GlobalPointer": Side("wenmai", ("task.head=global_pointer",), OUR_RATES),
            "bert4torch, GlobalPointer": Side(
                "bert4torch_pointers.entities", ("task.head=global_pointer",), POINTER_RATES
            ),
        },
    ),
    "triples": (
        ("webnlg", "cmed"),
        {
            "wenmai, GPLinker": Side("wenmai", (), OUR_RATES),
            "bert4torch, GPLinker": Side("bert4torch_pointers.triples", (), POINTER_RATES),
        },
    ),
}
"""Data sets and sides."""

KEYS = ("contest", "corpus", "side", "model", "tokens_asked", "trial", "seed", "scored_on", "most_examples")
"""What tells one run from another."""


def run(job: Run) -> Run:
    """Trains and scores one side once, in this process."""
    side = CONTESTS[job["contest"]][1][job["side"]]
    recipe = RECIPES / f"{job['corpus']}.yaml"
    plain = load_config(recipe, [*MODELS[job["model"]], *side.changes])
    task = plain.task.name
    step_tokens = STEP_TOKENS.get(task, USUAL_STEP_TOKENS)
    if side.runner == "wenmai":
        changes = [
            *MODELS[job["model"]],
            *side.changes,
            f"train.learning_rate={job['trial']['rate']:g}",
            f"train.head_learning_rate={job['trial']['head_rate']:g}",
            f"train.max_tokens={job['tokens_asked']}",
            "train.epochs=1000",  # the tokens end it
            "train.early_stopping_patience=null",
            "train.eval_steps=0.5",
            f"train.eval_examples={job['dev_examples']}",
            f"train.tokens_per_step={step_tokens}",
            f"seed={job['seed']}",
            "trackers=[]",
        ]
        found = run_of_wenmai({**job, "changes": changes})
    else:
        found = run_of_peer(side.runner, job, plain, step_tokens)
    kept = ("metric", "value", "metrics", "dev", "examples", "tokens", "steps", "training_seconds")
    return {**job, **{name: found[name] for name in kept}}


def run_of_peer(runner: str, job: Run, config: RunConfig, step_tokens: int) -> dict[str, Any]:
    from importlib import import_module

    import torch

    from peers.contest import Contest, plain_folder

    torch.set_num_threads(1)
    splits = splits_of(config)
    kind = TASKS[config.task.name]
    dev = list(spread(splits["dev"], job["dev_examples"]))
    test = list(spread(splits["test"], job["most_examples"]))
    module, _, function = runner.partition(".")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tokenizer = plain_folder(config, scratch / "encoder")
        contest = Contest(
            task=kind(config.task, kind.collect_labels(config.task, splits["train"])),
            tokenizer=tokenizer,
            train=list(splits["train"]),
            dev=dev,
            scored=dev if job["scored_on"] == "dev" else test,
            encoder=scratch / "encoder",
            scratch=scratch,
            seed=job["seed"],
            tokens=job["tokens_asked"],
            step_tokens=step_tokens,
            rate=job["trial"]["rate"],
            options=job["trial"],
        )
        found: dict[str, Any] = getattr(import_module(f"peers.{module}"), function)(contest)
    return found


def chosen(contest: str, corpus: str, side: str, model: str, tokens: int, runs: list[Run]) -> dict[str, Any]:
    """The trial that did best on dev."""
    asked = (contest, corpus, side, model, tokens, "dev")
    trials = [
        one
        for one in runs
        if tuple(one[key] for key in (*KEYS[:5], "scored_on")) == asked
        and one["trial"] in CONTESTS[contest][1][side].trials
    ]
    best: dict[str, Any] = max(trials, key=lambda one: one["value"])["trial"]
    return best


def rows_of(runs: list[Run]) -> list[dict[str, Any]]:
    """A row a contest, data set, side, model and budget: of the tests with the settings of its newest one, the mean."""
    tests = [one for one in runs if one["scored_on"] == "test"]
    rows = []
    for kind in dict.fromkeys(tuple(one[key] for key in KEYS[:5]) for one in tests):
        own = [one for one in tests if tuple(one[key] for key in KEYS[:5]) == kind]
        own = [one for one in own if all(one[key] == own[-1][key] for key in ("trial", "most_examples"))]
        mean, interval = mean_and_interval([one["value"] for one in own])
        last = own[-1]
        rows.append(
            {
                **{key: last[key] for key in (*KEYS[:6], "metric", "examples", "tokens", "steps")},
                "mean": mean,
                "interval": interval,
                "seeds": [one["seed"] for one in own],
                "training_seconds": sum(one["training_seconds"] for one in own) / len(own),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| contest | data | side | measure | mean | 95 % interval over seeds | rates | tokens | steps | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = ("contest", "corpus", "model", "tokens_asked")
    for row in sorted(rows, key=lambda row: [row[key] for key in order]):
        bounds = "one seed" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        rates = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row["trial"].items()
        )
        lines.append(
            f"| {row['contest']} | {row['corpus']} | {row['side']} | {row['metric']} | {row['mean']:.3f} | {bounds} "
            f"| {rates} | {row['tokens']:,} | {row['steps']} | {row['training_seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = series_parser(__doc__, quick="one data set of each contest, one trial, one seed, few tokens")
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--corpora", nargs="+", help="only these data sets; default: all of each contest")
    parser.add_argument("--model", choices=MODELS, default="wenmai-tiny-zh")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, help="training tokens of one run; default: by task")
    options = parser.parse_args()

    page: dict[str, Any] = {
        "benchmark": "task_peers", **surroundings("bert4torch"), "runs": [], "rows": [],
    }  # fmt: skip
    if options.json and options.json.is_file():
        earlier = json.loads(options.json.read_text(encoding="utf-8"))
        page |= {name: earlier[name] for name in ("runs", "rows")}

    def jobs(scored_on: str, seed: int) -> list[Run]:
        made = []
        for contest in options.contests:
            corpora, sides = CONTESTS[contest]
            corpora = tuple(name for name in corpora if not options.corpora or name in options.corpora)
            for corpus in corpora[:1] if options.quick else corpora:
                task = load_config(RECIPES / f"{corpus}.yaml").task.name
                tokens = options.tokens or (3_000 if options.quick else TOKENS.get(task, USUAL_TOKENS))
                dev_most = 10 if options.quick else DEV_EXAMPLES.get(task, USUAL_DEV_EXAMPLES)
                most = 20 if options.quick else TEST_EXAMPLES.get(task, USUAL_TEST_EXAMPLES)
                for side, what in sides.items():
                    if scored_on == "test" and not options.quick:
                        trials = [chosen(contest, corpus, side, options.model, tokens, page["runs"])]
                    else:
                        trials = what.trials[:1] if options.quick else what.trials
                    made += [
                        {
                            "contest": contest,
                            "corpus": corpus,
                            "side": side,
                            "model": options.model,
                            "tokens_asked": tokens,
                            "trial": trial,
                            "seed": seed,
                            "scored_on": scored_on,
                            "most_examples": dev_most if scored_on == "dev" else most,
                            "dev_examples": dev_most,
                        }
                        for trial in trials
                    ]
        return made

    def do(some: list[Run]) -> None:
        for found in results(still_to_do(some, page["runs"], KEYS), run, options.together):
            page["runs"].append(found)
            page["rows"] = rows_of(page["runs"])
            print(json.dumps(found, ensure_ascii=False), flush=True)
            if options.json:
                write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")

    if not options.quick:
        do(jobs("dev", options.seeds[0]))
    for seed in options.seeds[:1] if options.quick else options.seeds:
        do(jobs("test", seed))
    print(table(page["rows"]))


if __name__ == "__main__":
    main()
