"""Whose results can be trusted: wenmai's training engine beside the Trainer of transformers, row by row.

    python benchmarks/correctness.py --json benchmarks/results/correctness.json
    python benchmarks/correctness.py --quick

* the gradients of one step of 8 examples as 4 accumulated micro-batches of 2, beside the same 8 at once: norm ratio and
  cosine, for every head, with dropout off and on (``checks/gradients.py``)
* the final weights of a run that was stopped and resumed beside those of one that never stopped
  (``checks/resuming.py``)
* characters that the path from text to tokens loses (``checks/characters.py``)
* what is hidden in masked language modelling: how much, whole words or parts, anew each epoch, the same after
  resuming; beside the Trainer's DataCollatorForLanguageModeling (``checks/masking.py``)

Both get the same rows of ids, the same encoder and the same settings; models are tiny and made on the spot, the
text is the newspaper sample. ``ours_exact`` says whether wenmai's value is what it should be: 1 to six digits, no
difference, no loss. Where transformers has no such head the Trainer's column is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from transformers.utils import logging

from checks.characters import character_rows
from checks.gradients import gradient_rows
from checks.masking import masking_rows
from checks.resuming import resume_rows

CHECKS = {
    "gradients": gradient_rows,
    "resuming": resume_rows,
    "characters": character_rows,
    "masking": masking_rows,
}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| | wenmai | transformers' Trainer | wenmai exact |", "| --- | --- | --- | --- |"]
    for row in rows:
        exact = "yes" if row["ours_exact"] else "**NO**"
        lines.append(f"| {row['row']} | {shown(row, 'ours')} | {shown(row, 'trainer')} | {exact} |")
    return "\n".join(lines)


def shown(row: dict[str, Any], whose: str) -> str:
    value = row[whose]
    if value is None:
        return "no such head" if row["row"].startswith("gradient") else "no such masking"
    if row["row"].startswith("gradient"):
        return f"{value:.6f}"
    if row["row"].startswith("largest weight difference"):
        return "0, exact" if value == 0 else f"{value:.1e}"
    return f"{value:,}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument(
        "--json", type=Path, help="write the rows and what they were measured on to this file"
    )
    parser.add_argument("--read", type=Path, help="only show what this file holds")
    parser.add_argument("--quick", action="store_true", help="fewer cases and texts: under a minute")
    options = parser.parse_args()
    if options.read:
        print(table(json.loads(options.read.read_text(encoding="utf-8"))["rows"]))
        return
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.checks:
            rows += CHECKS[name](Path(folder), quick=options.quick)
    page = {
        "benchmark": "correctness",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {platform.system()}",
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "accelerate")},
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    print(table(rows))
    if options.json:
        beside = options.json.with_suffix(".tmp")
        beside.write_text(json.dumps(page, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        beside.replace(options.json)


if __name__ == "__main__":
    main()
