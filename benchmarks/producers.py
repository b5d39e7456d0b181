"""Whether the trainer waits for data in masked language modelling: how fast masked batches are made, and who waits.

    python benchmarks/producers.py --json benchmarks/results/producers.json
    python benchmarks/producers.py --quick

* seconds to make a batch of 32 rows of random length, masked and padded: ours from the file of rows, whatever the
  masking; beside it ``DataCollatorForLanguageModeling`` of transformers with the same token ids in memory, in three
  ways. ``as run_mlm.py`` is told the special tokens of each row; ``plain`` finds them itself, as after an ordinary call
  of a tokenizer; ``whole words`` reads offsets, which it doesn't pad, so it gets them padded beforehand. Rounds take
  turns, so that whatever else the machine does meets all.
* tokens a second, and the share of the time spent waiting for data, of ``recipes/masked_lm.yaml`` with 0, 1 and 2
  workers, also in turns. Text, steps and the encoder's layers are given below; all else is the recipe's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling
from transformers.utils import logging

from checks.material import tiny_encoder
from wenmai.atomic import write_text
from wenmai.backbones.load import load_folder
from wenmai.config import load_config
from wenmai.data.batching import BatchMaker, measure
from wenmai.data.features import features_in_memory
from wenmai.samples import sample_records
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "masked_lm.yaml"
ROWS, LONGEST = 32, 512
MASKINGS = ("token", "whole_word", "ngram", "span")
PEERS = ("as run_mlm.py", "plain", "whole words")
Make = Callable[[], object]


def texts(count: int, rng: np.random.Generator) -> list[str]:
    """Newspaper text in pieces of random length, at most what a row holds."""
    running = "".join(
        sample.data["text"] for sample in islice(sample_records("peoples_daily", "train"), 4000)
    )
    lengths = rng.integers(8, LONGEST - 2, count)
    starts = rng.integers(0, len(running) - LONGEST, count)
    return [running[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def makers(folder: Path, rng: np.random.Generator) -> dict[str, Make]:
    """By name: makes the next batch."""
    pieces = texts(4 * ROWS, rng)
    encoder = tiny_encoder(folder, "bert", [{"text": text} for text in pieces])
    _, tokenizer = load_folder(encoder)
    made: dict[str, Make] = {}
    for masking in MASKINGS:
        config = MaskedLMConfig.model_validate({"masking": masking, "max_length": LONGEST})
        task = MaskedLM(config, [])
        features = features_in_memory(
            pieces, lambda text, task=task: task.featurize(MaskedLMExample(text=text), tokenizer)
        )
        maker = BatchMaker(
            features,
            measure(features, rows_stay_together=False),
            partial(task.augment, tokenizer=tokenizer),
            tokenizer.pad_id,
            seed=1,
        )
        made[f"wenmai, {masking}"] = lambda maker=maker: maker(rng.integers(0, len(pieces), ROWS), 0)
    reader = AutoTokenizer.from_pretrained(encoder)
    for peer in PEERS:
        whole = peer == "whole words"
        encoded = reader(
            pieces,
            truncation=True,
            max_length=LONGEST,
            return_special_tokens_mask=peer != "plain",
            return_offsets_mapping=whole,
        )
        rows = [{name: values[i] for name, values in encoded.items()} for i in range(len(pieces))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collator = DataCollatorForLanguageModeling(reader, whole_word_mask=whole)
        made[f"transformers, {peer}"] = partial(collated, collator, rows, rng)
    return made


def collated(
    collator: DataCollatorForLanguageModeling, rows: list[dict[str, Any]], rng: np.random.Generator
) -> object:
    chosen = [dict(rows[i]) for i in rng.integers(0, len(rows), ROWS)]
    if "offset_mapping" in chosen[0]:
        width = max(len(row["input_ids"]) for row in chosen)
        for row in chosen:
            offsets = row["offset_mapping"]
            row["offset_mapping"] = [*offsets, *[(0, 0)] * (width - len(offsets))]
    return collator(chosen)


def batch_times(rounds: int, batches: int) -> dict[str, dict[str, Any]]:
    """Milliseconds a batch: median of the rounds' medians, and the fastest and slowest round."""
    with tempfile.TemporaryDirectory() as folder:
        made = makers(Path(folder), np.random.default_rng(0))
        times: dict[str, list[float]] = {name: [] for name in made}
        for at in range(rounds + 1):
            for name, make in made.items():
                spent = []
                for _ in range(batches):
                    start = time.perf_counter()
                    make()
                    spent.append(1000 * (time.perf_counter() - start))
                if at:  # the first round warms up
                    times[name].append(statistics.median(spent))
    return {
        name: {"ms": statistics.median(own), "low": min(own), "high": max(own), "rounds": own}
        for name, own in times.items()
    }


def ratios(times: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as long the collator takes, round by round, against token masking or whole words."""
    found = {}
    for peer in PEERS:
        for ours in ("token",) if peer != "whole words" else ("whole_word",):
            pairs = zip(
                times[f"transformers, {peer}"]["rounds"], times[f"wenmai, {ours}"]["rounds"], strict=True
            )
            each = [theirs / own for theirs, own in pairs]
            found[f"{peer} / wenmai, {ours}"] = {
                "ratio": statistics.median(each),
                "low": min(each),
                "high": max(each),
            }
    return found


def waiting(rounds: int, steps: int, layers: int) -> list[dict[str, Any]]:
    """The recipe on newspaper text with 0, 1 and 2 workers."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus.txt"
        lines = (sample.data["text"] for sample in islice(sample_records("peoples_daily", "train"), 12_000))
        corpus.write_text("".join(f"{line.strip()}\n" for line in lines), encoding="utf-8")
        for at in range(rounds):
            for workers in (0, 1, 2):
                config = load_config(
                    RECIPE,
                    [
                        f"data.train={corpus}",
                        f"data.cache={name}/cache",
                        f"backbone.layers={layers}",
                        f"train.max_steps={steps}",
                        f"train.num_workers={workers}",
                        f"train.logging_steps={steps}",
                        "train.eval_steps=1000000",
                        "train.eval_examples=8",
                        "trackers=[]",
                        f"output={name}/{at}-{workers}",
                    ],
                )
                (event,) = (e for e in read_log(train(config) / "log.jsonl") if e["event"] == "train")
                runs.append(
                    {
                        "workers": workers,
                        "round": at,
                        **{key: event[key] for key in ("waiting", "tokens_per_second", "seconds", "loss")},
                    }
                )
    return runs


def page_text(page: dict[str, Any]) -> str:
    """The page's tables in Markdown."""
    lines = ["| a batch of 32 rows | ms | rounds |", "| --- | --- | --- |"]
    for name, found in page["batches"].items():
        lines.append(f"| {name} | {found['ms']:.2f} | {found['low']:.2f} to {found['high']:.2f} |")
    lines += ["", "| times as long | ratio | rounds |", "| --- | --- | --- |"]
    for name, found in page["ratios"].items():
        lines.append(f"| {name} | {found['ratio']:.1f} | {found['low']:.1f} to {found['high']:.1f} |")
    lines += ["", "| workers | waiting | tokens/s | rounds |", "| --- | --- | --- | --- |"]
    for workers in (0, 1, 2):
        own = [run for run in page["runs"] if run["workers"] == workers]
        share = statistics.median(run["waiting"] for run in own)
        speeds = [run["tokens_per_second"] for run in own]
        lines.append(
            f"| {workers} | {share:.2%} | {statistics.median(speeds):,.0f} "
            f"| {min(speeds):,.0f} to {max(speeds):,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and steps: under a minute")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rounds, batches = (2, 4) if options.quick else (9, 20)
    times = batch_times(rounds, batches)
    runs = waiting(1, 2, 1) if options.quick else waiting(3, 12, 4)
    page = {
        "benchmark": "producers",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {platform.system()}",
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "numpy")},
        "batches": times,
        "ratios": ratios(times),
        "runs": runs,
    }
    print(page_text(page))
    if options.json:
        write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
