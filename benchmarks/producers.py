"""Whether the trainer waits for data in masked language modelling: how fast masked batches are made, and who waits.

    python benchmarks/producers.py --json benchmarks/results/producers.json
    python benchmarks/producers.py --quick

* time to make a batch of 32 rows of random length, masked and padded, from token ids in memory to tensors: ours
  whatever the masking; beside it ``DataCollatorForLanguageModeling`` of transformers, which pads with
  ``tokenizer.pad``, in three ways. ``plain`` gets what an ordinary call of a tokenizer gives and finds special tokens
  itself; ``as run_mlm.py`` is told them (``special_tokens_mask``); ``whole words`` reads offsets, which it doesn't pad,
  so it gets them padded beforehand, outside the time. All make the same batch before any makes the next one. Ratios
  are of processor time (one thread), which a busy machine prolongs far less than the time of the clock.
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
from numpy.typing import NDArray
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
Ints = NDArray[np.int64]
Make = Callable[[Any], object]


def texts(count: int, rng: np.random.Generator) -> list[str]:
    """Newspaper text in pieces of random length, at most what a row holds."""
    running = "".join(
        sample.data["text"] for sample in islice(sample_records("peoples_daily", "train"), 4000)
    )
    lengths = rng.integers(8, LONGEST - 2, count)
    starts = rng.integers(0, len(running) - LONGEST, count)
    return [running[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def makers(folder: Path, rng: np.random.Generator) -> dict[str, tuple[Callable[[Ints], Any], Make]]:
    """By name: what is ready before the time starts, of the pieces with these numbers; and what makes their batch."""
    pieces = texts(4 * ROWS, rng)
    encoder = tiny_encoder(folder, "bert", [{"text": text} for text in pieces])
    _, tokenizer = load_folder(encoder)
    made: dict[str, tuple[Callable[[Ints], Any], Make]] = {}
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
        made[f"wenmai, {masking}"] = (lambda part: part, partial(maker, epoch=0))
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
        made[f"transformers, {peer}"] = (partial(chosen, rows), collator)
    return made


def chosen(rows: list[dict[str, Any]], part: Ints) -> list[dict[str, Any]]:
    """Copies, because the collator changes what it gets; offsets padded."""
    found = [dict(rows[i]) for i in part]
    if "offset_mapping" in found[0]:
        width = max(len(row["input_ids"]) for row in found)
        for row in found:
            offsets = row["offset_mapping"]
            row["offset_mapping"] = [*offsets, *[(0, 0)] * (width - len(offsets))]
    return found


def batch_times(rounds: int, batches: int) -> dict[str, dict[str, Any]]:
    """Milliseconds a batch, by the clock and of the processor: median of the rounds' medians, and each of these."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = makers(Path(folder), rng)
        times: dict[str, dict[str, list[float]]] = {name: {"clock": [], "cpu": []} for name in made}
        for at in range(rounds + 1):
            spent: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
            for _ in range(batches):
                part = rng.integers(0, 4 * ROWS, ROWS)
                # in another order each time: who comes after a large one finds the caches cold
                for name in rng.permutation(list(made)).tolist():
                    ready, make = made[name]
                    given = ready(part)
                    start = time.perf_counter(), time.process_time()
                    make(given)
                    spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            if at:  # the first round warms up
                for name, own in spent.items():
                    for kind, values in zip(("clock", "cpu"), zip(*own, strict=True), strict=True):
                        times[name][kind].append(1000 * statistics.median(values))
    return {
        name: {kind: {"ms": statistics.median(own), "rounds": own} for kind, own in kinds.items()}
        for name, kinds in times.items()
    }


def ratios(times: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as long the collator takes, round by round, against token masking or whole words."""
    found = {}
    for peer in PEERS:
        for ours in ("token",) if peer != "whole words" else ("whole_word",):
            pairs = zip(
                times[f"transformers, {peer}"]["cpu"]["rounds"],
                times[f"wenmai, {ours}"]["cpu"]["rounds"],
                strict=True,
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
    lines = [
        "| a batch of 32 rows | ms of the processor | rounds | ms by the clock |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in page["batches"].items():
        rounds = found["cpu"]["rounds"]
        lines.append(
            f"| {name} | {found['cpu']['ms']:.2f} | {min(rounds):.2f} to {max(rounds):.2f} "
            f"| {found['clock']['ms']:.2f} |"
        )
    lines += ["", "| times as long | ratio | rounds |", "| --- | --- | --- |"]
    for name, found in page["ratios"].items():
        lines.append(f"| {name} | {found['ratio']:.1f} | {found['low']:.1f} to {found['high']:.1f} |")
    if not page["runs"]:
        return "\n".join(lines)
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
    parser.add_argument("--batches", action="store_true", help="only make batches, no training runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rounds, batches = (2, 4) if options.quick else (9, 20)
    times = batch_times(rounds, batches)
    runs = [] if options.batches else waiting(1, 2, 1) if options.quick else waiting(3, 6, 4)
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
