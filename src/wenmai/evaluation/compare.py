"""Two runs on the same test set: which is better, how sure that is, where, and on which examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wenmai.errors import UserError
from wenmai.evaluation.cases import Case, as_case
from wenmai.evaluation.evaluate import LABEL_PREFIX, Report
from wenmai.evaluation.sides import AveragedScores, Judged, averaged, averaged_breakdowns, read_sides
from wenmai.evaluation.slices import LENGTH_EDGES, by_length, in_order
from wenmai.metrics.repetitions import holm, repetitions, welch_p_value
from wenmai.metrics.scores import paired_difference

SHOWN = 5
"""Examples of each kind that a comparison names."""

SMALLEST_P = 0.01
"""What the p-value of a slice can reach after it was raised for the number of slices: that takes more resamples."""
MOST_RESAMPLES = 10_000

Side = Sequence[Judged]


class Slice(NamedTuple):
    """A part of the test set, or of its gold instances, scored on both sides."""

    kind: str
    name: str
    size: dict[str, int]
    left: AveragedScores
    right: AveragedScores
    metric: str


def compare(
    first: Path,
    second: Path,
    *,
    split: str = "test",
    shown: int = SHOWN,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Compares two runs, or two folders of several seeds, on a split that both were evaluated on.

    Every difference is the second minus the first, with its 95 % interval and p-value from the paired bootstrap
    over the examples (:func:`~wenmai.metrics.scores.paired_difference`). With several seeds a side, scores are
    means over its seeds, and ``seeds_p_value`` is Welch's test between the seeds: the bootstrap asks what another
    test set would have shown, this one what another training would.

    Args:
        first, second: run folders that hold ``evaluation/SPLIT``.
        shown: examples to name of each kind.
        resamples: of the bootstrap; many slices take more, up to 10,000, or none of them could ever be sure.

    Returns:
        JSON: ``first`` and ``second`` (``name`` and ``runs``), ``split``, ``examples``, ``primary_metric``;
        ``metrics``: name -> ``first``, ``second``, ``difference``, ``interval``, ``p_value`` and, with several seeds,
        ``first_deviation``, ``second_deviation`` and ``seeds_p_value``; ``slices``: kind -> name -> the same of the
        primary metric (of labels F1), with the ``examples`` or gold instances (``support``) that it is about, and
        ``p_holm``, which is raised for the number of all slices (Holm 1979); ``answers``: how many examples ``both``,
        ``only_first``, ``only_second`` or ``neither`` got right, and some of those that only one did (None for tasks
        whose answers are near or far, not right or wrong). Several seeds are right where most of them are.

    Raises:
        UserError: a run was not evaluated on the split, or not on the same examples and labels.
    """
    one, other = read_sides([first, second], split)
    if not one[0].examples:
        raise UserError(f"{one[0].path}: has no labelled examples to compare on")
    left, right = averaged(one), averaged(other)

    parts = list(_slices(one, other, left, right))
    needed = min(MOST_RESAMPLES, math.ceil(2 * len(parts) / SMALLEST_P))

    def row(left: AveragedScores, right: AveragedScores, metric: str) -> dict[str, Any]:
        found = paired_difference(right, left, metric, resamples=max(resamples, needed), seed=seed)
        return {
            "first": left.values()[metric],
            "second": right.values()[metric],
            "difference": found.difference,
            "interval": [found.low, found.high],
            "p_value": found.p_value,
            **_over_seeds(left, right, metric),
        }

    primary = one[0].task.primary_metric
    names = [name for name in left.values() if name in right.values() and not name.startswith(LABEL_PREFIX)]
    slices: dict[str, dict[str, Any]] = {}
    for part in parts:
        found = {**part.size, **row(part.left, part.right, part.metric)}
        slices.setdefault(part.kind, {})[part.name] = found
    rows = [found for kind in slices.values() for found in kind.values()]
    for found, raised in zip(rows, holm([found["p_value"] for found in rows]), strict=True):
        found["p_holm"] = raised
    return {
        "first": {"name": str(first), "runs": [str(judged.run.folder) for judged in one]},
        "second": {"name": str(second), "runs": [str(judged.run.folder) for judged in other]},
        "split": split,
        "examples": len(one[0].examples),
        "primary_metric": primary,
        "metrics": {name: row(left, right, name) for name in sorted(names, key=lambda name: name != primary)},
        "slices": slices,
        "answers": _answers(one, other, shown),
    }


def _over_seeds(left: AveragedScores, right: AveragedScores, metric: str) -> dict[str, float | None]:
    if len(left.runs) == len(right.runs) == 1:
        return {}
    old, new = ([scores.values()[metric] for scores in side.runs] for side in (left, right))
    return {
        "first_deviation": repetitions(old).deviation,
        "second_deviation": repetitions(new).deviation,
        "seeds_p_value": welch_p_value(old, new),
    }


def _slices(one: Side, other: Side, left: AveragedScores, right: AveragedScores) -> Iterator[Slice]:
    judged, primary = one[0], one[0].task.primary_metric
    edges = judged.evaluation.metrics.get("length_edges", LENGTH_EDGES)
    for name, indices in by_length([example.length for example in judged.examples], edges).items():
        size = {"examples": len(indices)}
        yield Slice("length", name, size, left.subset(indices), right.subset(indices), primary)
    old, new = left.values(), right.values()
    for metric in old:
        name, _, kind = metric.removeprefix(LABEL_PREFIX).rpartition("/")
        if metric.startswith(LABEL_PREFIX) and kind == "f1" and metric in new:
            size = {"support": int(old[f"{LABEL_PREFIX}{name}/support"])}
            yield Slice("label", name, size, left, right, metric)
    # what one training set held and the other did not is neither seen nor unseen
    inventories = {judged.known for judged in (*one, *other)}
    known = inventories.pop() if len(inventories) == 1 else frozenset()
    cuts, others = averaged_breakdowns(one, known), averaged_breakdowns(other, known)
    for cut in cuts:
        for group in sorted(cuts[cut].keys() & others.get(cut, {}).keys(), key=in_order):
            values = cuts[cut][group].values()
            if primary in values:
                support, whole = values.get("support"), cuts[cut][group].examples
                size = {"examples": whole} if support is None else {"support": int(support)}
                yield Slice(cut, group, size, cuts[cut][group], others[cut][group], primary)


def _answers(one: Side, other: Side, shown: int) -> dict[str, Any] | None:
    found: dict[str, Any] = {"both": 0, "only_first": 0, "only_second": 0, "neither": 0}
    named: dict[str, list[dict[str, Any]]] = {"only_first": [], "only_second": []}
    for i, number in enumerate(one[0].numbers):
        cases = [[as_case(judged.lines[i], number) for judged in side] for side in (one, other)]
        if any(case["right"] is None for side in cases for case in side):
            return None
        left, right = (2 * sum(case["right"] for case in side) > len(side) for side in cases)  # most seeds
        kind = ("both" if right else "only_first") if left else "only_second" if right else "neither"
        found[kind] += 1
        if kind in named and len(named[kind]) < shown:
            old, new = (
                next(case for case in side if case["right"] == right_there)
                for side, right_there in zip(cases, (left, right), strict=True)
            )
            example = {key: old[key] for key in ("line", "id", "texts")}
            gold = _answer(old, ("correct", "missed"), "gold")
            given = {
                side: _answer(case, ("correct", "spurious"), "predicted")
                for side, case in (("first", old), ("second", new))
            }
            named[kind].append({**example, "gold": gold, **given})
    return {**found, "examples": named}


def _answer(case: Case, statuses: tuple[str, str], field: str) -> str:
    """The labels and the marked spans with theirs, as a person would write them down."""
    text, said = case["texts"][0][1], case[field]
    # the place of what is said already, an answer to a question, is labelled otherwise
    spans = [
        f"{text[span['start'] : span['end']]}/{span['label']}"
        for span in case["spans"]
        if span["status"] in statuses and (said is None or span["label"] in case["labels"])
    ]
    return " | ".join(filter(None, [said, "、".join(spans)])) or "(nothing)"
