"""Train, dev and test: read together, and held out of the training file where they have no file of their
own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from wenmai.data.examples import Collected, Examples, collect, usable
from wenmai.data.sources import DataConfig, Split
from wenmai.errors import ConfigError, Problem, UserError

E = TypeVar("E", bound=BaseModel)
Indices = NDArray[np.int64]
SplitName = Literal["train", "dev", "test"]

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
REJECTS_FILE = "rejects.jsonl"
NOT_CONTENT = frozenset({"id", "label", "labels"})


def split_indices(
    labels: ArrayLike | None,
    groups: ArrayLike | None,
    n: int,
    *,
    dev: float,
    test: float,
    stratify: bool,
    seed: int,
) -> tuple[Indices, Indices, Indices]:
    """Divides ``n`` records by lot; the same arguments always give the same parts.

    The records of a group stay together. With ``stratify``, groups are drawn from each label in proportion; a
    label too rare to be held out stays in training, where the model needs it most.

    Args:
        labels: of each record, texts or numbers; None if there is nothing to keep the shares of.
        groups: of each record, texts or numbers; None if each stands for itself.
        dev, test: shares of the ``n`` records; rounded to whole records.

    Returns:
        ascending indices for train, dev and test.

    Raises:
        UserError: dev and test together leave nothing for training.
    """
    if dev + test >= 1:
        raise UserError(
            f"data.split: dev {dev} and test {test} leave nothing for training: their sum must be below 1"
        )
    unit_N = np.arange(n) if groups is None else _numbered(groups)
    size_U = np.bincount(unit_N)
    label_U = _labels_of_units(unit_N, _numbered(labels)) if stratify and labels is not None else None
    order_U = _drawing_order(len(size_U), label_U, np.random.default_rng(seed))
    room = [math.inf, dev * n, test * n]
    part_U = np.zeros(len(size_U), dtype=np.int8)
    for unit, size in zip(order_U.tolist(), size_U[order_U].tolist(), strict=True):
        # a unit goes where at least half of it fits: a part is as near to its share as its units allow
        part = 2 if room[2] >= size / 2 else 1 if room[1] >= size / 2 else 0
        part_U[unit] = part
        room[part] -= size
    train, held_dev, held_test = (np.flatnonzero(part_U[unit_N] == part) for part in range(len(SPLITS)))
    return train, held_dev, held_test


def joined_groups(*groupings: ArrayLike) -> Indices:
    """Groups such that records which share a group in any of the groupings share one."""
    firsts = [_first_of_the_same(grouping) for grouping in groupings]
    parent = array("q", range(len(firsts[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for first_N in firsts:
        for i in np.flatnonzero(first_N != np.arange(len(first_N))).tolist():
            parent[root(i)] = root(int(first_N[i]))
    return np.fromiter(map(root, range(len(parent))), dtype=np.int64, count=len(parent))


def _first_of_the_same(values: ArrayLike) -> Indices:
    """For each value the index where it stands first."""
    _, first, inverse = np.unique(np.asarray(values), return_index=True, return_inverse=True)
    return first[inverse]


def _numbered(values: ArrayLike) -> Indices:
    """The values as numbers from 0, in the order in which they first occur."""
    first_N = _first_of_the_same(values)
    is_first_N = first_N == np.arange(len(first_N))
    return (np.cumsum(is_first_N) - 1)[first_N]


def _labels_of_units(unit_N: Indices, label_N: Indices) -> Indices:
    """The most frequent label of each unit; of equally frequent ones the first."""
    pair_N = unit_N * (label_N.max(initial=0) + 1) + label_N
    _, first, count = np.unique(pair_N, return_index=True, return_counts=True)
    best_first = np.lexsort((first, -count, unit_N[first]))
    _, start = np.unique(unit_N[first][best_first], return_index=True)
    return label_N[first[best_first[start]]]


def _drawing_order(units: int, label_U: Indices | None, rng: np.random.Generator) -> Indices:
    """Units so that every beginning of the list holds each label in proportion: each label's units are
    shuffled and spread evenly over the list, from half a step to the end."""
    drawn_U = rng.permutation(units)
    stratum_U = np.zeros(units, dtype=np.int64) if label_U is None else _numbered(label_U[drawn_U])
    by_stratum_U = np.argsort(stratum_U, kind="stable")
    size_S = np.bincount(stratum_U)
    start_S = np.cumsum(size_S) - size_S
    stratum_U = stratum_U[by_stratum_U]
    place_U = (np.arange(units) - start_S[stratum_U] + 0.5) / size_S[stratum_U]
    return drawn_U[by_stratum_U[np.argsort(place_U, kind="stable")]]


def load_splits(
    config: DataConfig,
    example_type: type[E],
    *,
    cache: Path | None,
    output: Path | None,
    require_labels: bool = True,
) -> dict[str, Examples[E]]:
    """All splits that are named, and those that ``data.split`` holds out of the training file.

    Records with the same text always stay in one part, so that no part gives another away;
    ``data.split.group`` names a field whose equal values stay together as well.

    Args:
        config: the ``data:`` section.
        example_type: the task's ``Example``.
        cache: folder for memory-mapped files; None: a temporary one.
        output: with ``on_error: skip``, the folder that gets ``rejects.jsonl``.
        require_labels: a record without labels (for train: one that can't be learned from) is a bad one.

    Returns:
        ``train``, and ``dev`` and ``test`` where there are any.

    Raises:
        DataError: the problems of all splits at once.
        ConfigError: ``data.split`` contradicts the rest of ``data:``.
    """
    _check(config, example_type)
    results: list[Collected[E]] = []
    names: list[str] = []
    for name in SPLITS:
        source = config.source(name)
        if source is not None:
            names.append(name)
            written = config.on_error == "skip" and output is not None
            needed: Literal["labelled", "learnable"] = "learnable" if name == "train" else "labelled"
            results.append(
                collect(
                    source,
                    example_type,
                    keep_records=written,
                    cache=cache,
                    required=needed if require_labels else None,
                )
            )
    rejects_path = None if output is None else output / REJECTS_FILE
    splits = dict(
        zip(names, usable(results, on_error=config.on_error, rejects_path=rejects_path), strict=True)
    )
    if config.split.dev or config.split.test:
        splits |= _held_out(splits["train"], config.split)
    return splits


def _held_out(examples: Examples[E], split: Split) -> dict[str, Examples[E]]:
    label_ids: dict[str | None, int] = {}
    labels, texts, groups = array("q"), array("q"), array("q")
    for i, example in enumerate(examples):
        fields = example.model_dump(exclude_none=True)
        label = fields.get("label")
        labels.append(label_ids.setdefault(label if isinstance(label, str) else None, len(label_ids)))
        texts.append(_content(fields))
        value = None if split.group is None else fields.get(split.group)
        groups.append(hash((i,)) if value is None else hash(str(value)))
    parts = split_indices(
        labels,
        texts if split.group is None else joined_groups(texts, groups),
        len(examples),
        dev=split.dev,
        test=split.test,
        stratify=split.stratify,
        seed=split.seed,
    )
    wanted = {"train": 1.0, "dev": split.dev, "test": split.test}
    empty = [name for name, part in zip(SPLITS, parts, strict=True) if wanted[name] and not len(part)]
    if empty:
        key = f"data.split.{empty[0]}" if empty[0] != "train" else "data.split"
        message = f"{len(examples)} records leave none for {empty[0]}: set another share, or name a file"
        raise ConfigError("The training file can't be divided", [Problem(key, message)])
    return {name: examples.select(part) for name, part in zip(SPLITS, parts, strict=True) if wanted[name]}


def _content(fields: Mapping[str, Any]) -> int:
    """A hash of the texts of a record, without its labels: records that share them are duplicates."""
    return hash(
        tuple(
            (key, value) for key, value in fields.items() if key not in NOT_CONTENT and isinstance(value, str)
        )
    )


def _check(config: DataConfig, example_type: type[BaseModel]) -> None:
    split = config.split
    problems = [
        Problem(f"data.split.{name}", f"data.{name} names a file already: remove one of the two")
        for name, share, own in (("dev", split.dev, config.dev), ("test", split.test, config.test))
        if share and own is not None
    ]
    if split.dev + split.test >= 1:
        problems.append(
            Problem("data.split", f"dev {split.dev} and test {split.test} leave nothing for training")
        )
    if split.group is not None and split.group not in example_type.model_fields:
        allowed = ", ".join(example_type.model_fields)
        problems.append(
            Problem("data.split.group", f"{split.group!r} is no field of an example; allowed: {allowed}")
        )
    if problems:
        raise ConfigError("The training file can't be divided as configured", problems)
