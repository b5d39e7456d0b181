"""Train, dev and test: read together, and held out of the training file where they have no file of their
own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
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
    labels: Sequence[str | None] | None,
    groups: Sequence[Hashable] | None,
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
        labels: of each record, None where it has none; None if there is nothing to keep the shares of.
        groups: of each record; None if each stands for itself.
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
    units = _units(groups, n)
    ordered = _drawing_order(units, labels if stratify else None, np.random.default_rng(seed))
    parts: dict[SplitName, list[Indices]] = {"test": [], "dev": [], "train": []}
    room: dict[SplitName, float] = {"test": test * n, "dev": dev * n, "train": np.inf}
    for unit in ordered:
        # a unit goes where at least half of it fits: a part is as near to its share as its units allow
        name = next(name for name in parts if room[name] >= len(unit) / 2)
        parts[name].append(unit)
        room[name] -= len(unit)
    train, held_dev, held_test = (_ascending(parts[name]) for name in SPLITS)
    return train, held_dev, held_test


def _units(groups: Sequence[Hashable] | None, n: int) -> list[Indices]:
    if groups is None:
        return list(np.arange(n)[:, None])
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return [np.array(indices) for indices in members.values()]


def _drawing_order(
    units: Sequence[Indices], labels: Sequence[str | None] | None, rng: np.random.Generator
) -> list[Indices]:
    """Units so that every beginning of the list holds each label in proportion: each label's units are
    shuffled and spread evenly over the list, from half a step to the end."""
    strata: dict[str | None, list[int]] = {}
    for i in rng.permutation(len(units)):
        strata.setdefault(_label_of(units[i], labels), []).append(int(i))
    keyed = [
        ((rank + 0.5) / len(members), i) for members in strata.values() for rank, i in enumerate(members)
    ]
    return [units[i] for _, i in sorted(keyed, key=lambda pair: pair[0])]


def _label_of(unit: Indices, labels: Sequence[str | None] | None) -> str | None:
    return None if labels is None else Counter(labels[i] for i in unit).most_common(1)[0][0]


def _ascending(units: Sequence[Indices]) -> Indices:
    return np.sort(np.concatenate(units)).astype(np.int64) if units else np.empty(0, dtype=np.int64)


def joined_groups(*groupings: Sequence[Hashable]) -> list[int]:
    """Groups such that records which share a group in any of the groupings share one."""
    parent = list(range(len(groupings[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for grouping in groupings:
        first: dict[Hashable, int] = {}
        for i, group in enumerate(grouping):
            parent[root(i)] = root(first.setdefault(group, i))
    return [root(i) for i in range(len(parent))]


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
        require_labels: a record without labels is a bad one.

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
            skipping = config.on_error == "skip"
            results.append(
                collect(
                    source, example_type, keep_records=skipping, cache=cache, require_labels=require_labels
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
    labels: list[str | None] = []
    texts: list[Hashable] = []
    groups: list[Hashable] = []
    for i, example in enumerate(examples):
        fields = example.model_dump(exclude_none=True)
        label = fields.get("label")
        labels.append(label if isinstance(label, str) else None)
        texts.append(_content(fields))
        value = None if split.group is None else fields.get(split.group)
        groups.append(i if value is None else str(value))
    parts = split_indices(
        labels,
        joined_groups(texts, groups),
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


def _content(fields: Mapping[str, Any]) -> Hashable:
    """The texts of a record, without its labels: records that share them are duplicates."""
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
