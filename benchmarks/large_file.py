"""A large JSONL file from the first byte to the first batches: rows a second and peak resident memory of every stage.

    python benchmarks/large_file.py --json benchmarks/results/large-file.json
    python benchmarks/large_file.py --quick

The file is made up: texts of Chinese characters whose lengths are spread like those of reviews, one label of eight,
one row in a hundred a repetition of an earlier text. Each stage is a process of its own, so that its peak is its own:

* ``read``: every row is parsed, validated and stored (``read_examples``)
* ``check``: what ``wenmai check`` does
* ``check, dev held out``: the same with ``data.split.dev``, which also looks for equal texts before it divides
* ``train, up to batches``: what ``wenmai train`` does before and while it makes its first batches: read and check the
  labels, tokenise every row, plan an epoch, make batches; the model is a tiny one
* ``the same, tokenised before``: what a second run on the same data does, which finds the rows in the cache
* ``train``: a run of some hundred steps, with checkpoints, an evaluation, and a worker process that makes batches

Everything runs in one thread a process; rows are tokenised by a process a processor. Beside the time on the clock
stands the processor time of all processes, which tells the rate of a thread even where other programs share the
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 1_000_000
QUICK_ROWS = 20_000
BATCHES = 200
STEPS = 300
DEV_SHARE = 0.002
LABELS = ("餐饮", "酒店", "手机", "电影", "图书", "物流", "天气", "其他")
MEDIAN_CHARACTERS, SPREAD, LONGEST = 40, 0.9, 2000
REPEATED = 0.01
TOKENS_PER_STEP = 2048
MAX_LENGTH = 256
PACKAGES = ("wenmai", "torch", "transformers", "tokenizers", "pyarrow", "pydantic", "numpy")
MAXRSS_KIB = 1 if sys.platform.startswith("linux") else 1 / 1024


def common_characters() -> list[str]:
    """The 3,755 characters of the first level of GB 2312."""
    codes = (bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return [text for code in codes if (text := code.decode("gb2312", errors="ignore"))]


def write_rows(path: Path, rows: int, seed: int = 0) -> None:
    """The made-up file. The lengths are log-normal: most texts are short, some are very long."""
    rng = np.random.default_rng(seed)
    alphabet = np.array([*common_characters(), *"，。！？、", *string.ascii_lowercase, *string.digits])
    pool = "".join(rng.choice(alphabet, 4_000_000).tolist())
    lengths = np.clip(rng.lognormal(np.log(MEDIAN_CHARACTERS), SPREAD, rows), 1, LONGEST).astype(int)
    starts = rng.integers(0, len(pool) - LONGEST, rows)
    for row in np.flatnonzero(rng.random(rows) < REPEATED)[1:].tolist():
        earlier = rng.integers(0, row)
        starts[row], lengths[row] = starts[earlier], lengths[earlier]
    labels = rng.integers(0, len(LABELS), rows)
    with path.open("w", encoding="utf-8") as file:
        for start, length, label in zip(starts.tolist(), lengths.tolist(), labels.tolist(), strict=True):
            record = {"text": pool[start : start + length], "label": LABELS[label]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_backbone(folder: Path) -> None:
    """A tiny BertModel with random weights and a WordPiece vocabulary of single characters, as Chinese BERT has."""
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ascii_text = [*string.ascii_letters, *string.digits]
    pieces = [*special, *ascii_text, *(f"##{character}" for character in ascii_text), *string.punctuation]
    pieces = list(dict.fromkeys([*pieces, *"，。！？、", *common_characters()]))
    BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=False).save_pretrained(
        folder
    )
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def processor_seconds() -> float:
    """Of this process and of those that it started and that are done."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Clock:
    """A ``Progress`` that keeps how long each piece of work took, and all of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._processor_started = processor_seconds()

    def total(self) -> dict[str, float]:
        return {
            "seconds": time.perf_counter() - self._started,
            "processor_seconds": processor_seconds() - self._processor_started,
        }

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[Clock]:
        started = time.perf_counter()
        yield self
        self.seconds[name] = time.perf_counter() - started

    def advance(self, n: int = 1, **shown: object) -> None:
        pass


def run_config(folder: Path, split: dict[str, float], **train: Any) -> Any:
    from wenmai.config import RunConfig

    return RunConfig.model_validate(
        {
            "task": {"name": "text_classification", "max_length": MAX_LENGTH},
            "backbone": {"model": str(folder / "backbone")},
            "data": {"train": str(folder / "rows.jsonl"), "split": split, "cache": str(folder / "features")},
            "train": {"epochs": 1, "tokens_per_step": TOKENS_PER_STEP, **train},
            "output": str(folder / "run"),
        }
    )


def read(folder: Path) -> dict[str, Any]:
    from wenmai.data.examples import read_examples
    from wenmai.tasks.text_classification import TextClassificationExample

    clock = Clock()
    examples = read_examples(folder / "rows.jsonl", TextClassificationExample, require_labels=True)
    return {"rows": len(examples), **clock.total(), "parts": {}}


def look(folder: Path, split: dict[str, float]) -> dict[str, Any]:
    from wenmai.check.doctor import check

    clock = Clock()
    report = check(run_config(folder, split), progress=clock)
    return {
        "rows": sum(facts.examples for facts in report.splits),
        **clock.total(),
        "parts": clock.seconds,
        "findings": {finding.code: finding.count for finding in report.findings},
    }


def batches(folder: Path) -> dict[str, Any]:
    from wenmai.training.loader import steps_from
    from wenmai.training.setup import prepare

    clock = Clock()
    started = time.perf_counter()
    work = prepare(run_config(folder, {}), clock)
    prepared = time.perf_counter()
    steps = work.plan.steps(0)
    planned = time.perf_counter()
    upcoming = steps_from(work.plan, work.maker, work.epoch_steps, (0, 0), num_workers=0)
    made = [units for _, units, _ in islice(upcoming, BATCHES)]
    done = time.perf_counter()
    total = clock.total()
    real, padded = (sum(map(count, steps)) for count in (work.plan.tokens, work.plan.padded_tokens))
    return {
        "rows": len(work.data["train"]),
        **total,
        "parts": {
            "reading and checking labels": prepared - started - clock.seconds["tokenising"],
            "tokenising": clock.seconds["tokenising"],
            "planning one epoch": planned - prepared,
            f"making {len(made)} batches": done - planned,
        },
        "tokens": real,
        "steps": len(steps),
        "padding": 1 - real / padded,
        "batches": {
            "rows": sum(map(len, made)),
            "tokens": sum(map(work.plan.tokens, made)),
            "seconds": done - planned,
        },
    }


def whole_run(folder: Path) -> dict[str, Any]:
    from wenmai.training.journal import read_log
    from wenmai.training.trainer import train

    rows = sum(1 for _ in (folder / "rows.jsonl").open("rb"))
    steps = STEPS if rows > QUICK_ROWS else STEPS // 6
    clock = Clock()
    config = run_config(folder, {"dev": DEV_SHARE}, max_steps=steps, num_workers=1, save_steps=steps // 3)
    run = train(config, overwrite=True, progress=clock)
    found = {"rows": rows, **clock.total(), "parts": clock.seconds}
    lines = [event for event in read_log(run / "log.jsonl") if event["event"] == "train"]
    return {**found, "steps": lines[-1]["step"], "tokens": lines[-1]["tokens"]}


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "read": read,
    "check": lambda folder: look(folder, {}),
    "check, dev held out": lambda folder: look(folder, {"dev": 0.01}),
    "train, up to batches": batches,
    "the same, tokenised before": batches,
    "train": whole_run,
}


def peak_mib(who: int) -> float:
    """The most resident memory that this process ever had, or one of those that it started."""
    return resource.getrusage(who).ru_maxrss * MAXRSS_KIB / 1024


def in_own_process(*arguments: str) -> bytes:
    """What this script prints with other arguments. The memory of one process is never counted as another's: even
    that of the process which starts it would be, so that one does no work itself."""
    return subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True).stdout


def table(stages: list[dict[str, Any]]) -> str:
    lines = [
        "| stage | seconds | of a processor | rows a processor second | peak resident memory | of a worker |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages:
        rate = stage["rows"] / stage["processor_seconds"]
        lines.append(
            f"| {stage['stage']} | {stage['seconds']:.1f} | {stage['processor_seconds']:.1f} | {rate:,.0f} "
            f"| {stage['peak_mib']:.0f} MiB | {stage['largest_worker_mib']:.0f} MiB |"
        )
    return "\n".join(lines)


def parts(stages: list[dict[str, Any]]) -> str:
    """What takes how long inside the stages."""
    lines = ["| stage | part | seconds |", "| --- | --- | --- |"]
    for stage in stages:
        lines += [
            f"| {stage['stage']} | {name} | {seconds:.1f} |" for name, seconds in stage["parts"].items()
        ]
    return "\n".join(lines)


def about_batches(stage: dict[str, Any]) -> str:
    made = stage["batches"]
    return (
        f"{stage['tokens']:,} tokens in {stage['steps']:,} steps of at most {TOKENS_PER_STEP:,} tokens, "
        f"{100 * stage['padding']:.1f} % of them padding; {made['rows'] / made['seconds']:,.0f} rows and "
        f"{made['tokens'] / made['seconds']:,.0f} tokens a second while batches are made"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows: under a minute")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        write_rows(options.folder / "rows.jsonl", options.make)
        write_backbone(options.folder / "backbone")
        return
    if options.stage:
        found = STAGES[options.stage](options.folder)
        peaks = {
            "peak_mib": peak_mib(resource.RUSAGE_SELF),
            "largest_worker_mib": peak_mib(resource.RUSAGE_CHILDREN),
        }
        print(json.dumps({"stage": options.stage, **found, **peaks}))
        return

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows = QUICK_ROWS if options.quick else options.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_own_process("--make", str(rows), "--folder", str(folder))
        size = (folder / "rows.jsonl").stat().st_size
        stages = [json.loads(in_own_process("--stage", stage, "--folder", str(folder))) for stage in STAGES]
    page = {
        "benchmark": "large file",
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
        "mebibytes": round(size / 2**20, 1),
        "threads": 1,
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "stages": stages,
    }
    print(f"{rows:,} rows, {page['mebibytes']} MiB, one thread")
    again = next(stage for stage in stages if stage["stage"] == "the same, tokenised before")
    print(table(stages), parts(stages), about_batches(again), sep="\n\n")
    if options.json:
        from wenmai.atomic import write_text

        write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
