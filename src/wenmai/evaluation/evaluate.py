"""Predictions against gold: ``metrics.json`` and ``predictions.jsonl``, which other tools may rely on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wenmai.atomic import write_text, writing
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import bundle_folder
from wenmai.data.examples import Examples, read_examples
from wenmai.data.sources import Source
from wenmai.errors import UserError
from wenmai.evaluation.slices import LENGTH_EDGES, by_length, in_order, slice_names
from wenmai.inference.predictor import load
from wenmai.metrics.calibration import calibration
from wenmai.metrics.scores import Interval, Scores, Values
from wenmai.progress import SILENT, Progress
from wenmai.tasks.multi_task import MultiTask
from wenmai.tasks.task import Example, Prediction, Task
from wenmai.version import __version__

LABEL_PREFIX = "label/"
Report = dict[str, Any]


class Answering(Protocol):
    """What is scored: a bundle's predictor, or one whose labels were named when it was asked."""

    @property
    def task(self) -> Task[Any, Any]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def predict_examples(self, examples: Iterable[Any]) -> Iterator[Prediction]: ...


def evaluate(
    bundle: Path | str,
    data: Source | str | Path | Sequence[Example],
    *,
    part: str | None = None,
    split: str = "test",
    output: Path | None = None,
    known: Path | None = None,
    slices: Sequence[int] = LENGTH_EDGES,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Report:
    """Scores a bundle on labelled data and writes ``evaluation/SPLIT/{predictions.jsonl,metrics.json}``.

    ``predictions.jsonl`` has one line an example, in their order: the prediction, the labels of the data as
    ``gold``, and ``seen``: whether all that is in ``gold`` was in the training set (where a task can tell).

    Args:
        bundle: a bundle, or a run folder that has one.
        data: where to read examples, or the examples themselves.
        part: of a bundle of several tasks, the name of the one whose data this is.
        split: name of the results; those of one of several tasks are called ``TASK-SPLIT``.
        output: the folder that gets ``evaluation/``; default: the bundle's run.
        known: the inventory of the training set, a JSON list; default: ``known.json`` of the run, if any.
        slices: lower edges of the text lengths that are scored apart, in characters, from 0.
        resamples: bootstrap resamples behind each interval.

    Returns:
        what ``metrics.json`` holds; see :func:`evaluate_predictions`.

    Raises:
        UserError: the bundle or the data can't be used, there are no labels, or the results can't be written.
    """
    slice_names(slices)
    folder = bundle_folder(Path(bundle))
    run = folder.parent if (folder.parent / "config.yaml").is_file() else None
    target = results_folder(output or run, f"{part}-{split}" if part else split, folder)
    inventory = _inventory(known or (run / "known.json" if run else None), must_exist=known is not None)
    if part:
        inventory = frozenset(
            item.removeprefix(f"{part}/") for item in inventory if item.startswith(f"{part}/")
        )
    predictor = load(folder, part=part, device=device)
    _refuse_several(predictor, bundle)
    examples, name = labelled_examples(data, predictor.task)
    return evaluate_predictor(
        predictor,
        examples,
        target,
        {**({"part": part} if part else {}), "split": split, "bundle": str(bundle), "data": name},
        known=inventory,
        slices=slices,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )


def evaluate_predictor(
    predictor: Answering,
    examples: Sequence[Example],
    target: Path,
    about: Mapping[str, Any],
    *,
    known: frozenset[str] = frozenset(),
    slices: Sequence[int] = LENGTH_EDGES,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Report:
    """Scores what answers examples, and writes ``predictions.jsonl`` and ``metrics.json`` into the folder ``target``.

    Args:
        about: what else ``metrics.json`` is to say: where model and data came from.
        known: the inventory of the training set.
        slices, resamples, seed: see :func:`evaluate`.

    Returns:
        what ``metrics.json`` holds.

    Raises:
        UserError: the results can't be written.
    """
    predictions = list(_written(predictor, examples, known, target / "predictions.jsonl", progress))
    scores = evaluate_predictions(
        predictor.task, examples, predictions, known=known, slices=slices, resamples=resamples, seed=seed
    )
    report = {
        "task": predictor.task.name,
        **scores,
        "unexpressible": sum(
            len(predictor.task.lost_labels(example, predictor.tokenizer)) for example in examples
        ),
        **about,
        "wenmai": __version__,
    }
    write_text(
        target / "metrics.json", json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    )
    return report


def evaluate_predictions(
    task: Task[Any, Any],
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    known: frozenset[str] = frozenset(),
    slices: Sequence[int] = LENGTH_EDGES,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Everything that can be said about predictions, as JSON.

    Args:
        examples, predictions: in the same order; examples without labels are not counted.
        known: the inventory of the training set (:meth:`Task.inventory`); empty if it is not at hand.
        slices: see :func:`evaluate`.

    Returns:
        ``primary_metric`` (a key beside it), ``examples``, every metric over all examples and its
        ``<metric>_interval`` (95 %, bootstrap over the examples); ``labels``: label -> metrics; ``slices``:
        kind of slice -> slice -> metrics; ``confusion`` and ``calibration`` where the task has them.
    """
    pairs = [pair for pair in zip(examples, predictions, strict=True) if pair[0].labelled]
    gold, predicted = [example for example, _ in pairs], [prediction for _, prediction in pairs]
    scores = task.score(gold, predicted)
    values, intervals = scores.values(), scores.intervals(resamples=resamples, seed=seed)
    report: Report = {"primary_metric": task.primary_metric, "examples": len(pairs)}
    for name, value in _overall(values).items():
        report[name] = value
        if name in intervals:
            report[f"{name}_interval"] = list(intervals[name])
    report["labels"] = _by_label(values, intervals)

    def sliced(part: Scores) -> dict[str, Any]:
        found: dict[str, Any] = _overall(part.values())
        bounds = part.intervals(resamples=resamples, seed=seed)
        if task.primary_metric in bounds:
            found[f"{task.primary_metric}_interval"] = list(bounds[task.primary_metric])
        return found

    def counted(group: Scores) -> dict[str, Any]:
        """Groups of examples with their number; groups of spans have their own, ``support``."""
        found = sliced(group)
        return found if "support" in found else {"examples": group.examples, **found}

    by_text = by_length([example.length for example in gold], slices)
    report["slices"] = {
        "length": {
            name: {"examples": len(indices), **sliced(scores.subset(indices))}
            for name, indices in by_text.items()
        }
    }
    for cut, groups in task.breakdowns(gold, predicted, known).items():
        report["slices"][cut] = {name: counted(groups[name]) for name in sorted(groups, key=in_order)}
    report["length_edges"] = list(slices)
    if confusion := task.confusion(gold, predicted):
        report["confusion"] = {"labels": list(confusion[0]), "counts": confusion[1].tolist()}
    if confidences := task.confidences(gold, predicted):
        report["calibration"] = calibration(*confidences)
    return report


def prediction_line(
    task: Task[Any, Any], example: Example, prediction: Prediction, *, known: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A line of ``predictions.jsonl``: the prediction with ``gold`` and ``seen``, see :func:`evaluate`."""
    line = dict(prediction)
    gold = example.model_dump(mode="json", exclude_none=True, exclude={"id", *example.inputs()})
    if example.labelled and gold:
        line["gold"] = gold
        inventory = task.inventory([example]) if known else set()
        if inventory:
            line["seen"] = inventory <= known
    return line


def _overall(values: Values) -> Values:
    return {name: value for name, value in values.items() if not name.startswith(LABEL_PREFIX)}


def _by_label(values: Values, intervals: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    """``label/<name>/<metric>`` to name -> metric; the name may hold slashes itself."""
    labels: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key.startswith(LABEL_PREFIX):
            name, _, metric = key.removeprefix(LABEL_PREFIX).rpartition("/")
            labels.setdefault(name, {})[metric] = value
            if metric == "f1" and key in intervals:
                labels[name]["f1_interval"] = list(intervals[key])
    return labels


def _written(
    predictor: Answering, examples: Sequence[Example], known: frozenset[str], path: Path, progress: Progress
) -> Iterator[Prediction]:
    """Predictions as they come, each on disk before the next is made; the file appears when all are there."""
    with writing(path) as file, progress.task("evaluating", len(examples), "examples") as step:
        found = predictor.predict_examples(examples)
        for example, prediction in zip(examples, found, strict=True):
            line = prediction_line(predictor.task, example, prediction, known=known)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            step.advance()
            yield prediction


def labelled_examples(
    data: Source | str | Path | Sequence[Example], task: Task[Any, Any]
) -> tuple[Sequence[Example], str | None]:
    """The examples to score by, and where they were read.

    Raises:
        UserError: they can't be read, or have no labels.
    """
    if isinstance(data, Source | str | Path):
        name = data.path if isinstance(data, Source) else str(data)
        read: Examples[Example] = read_examples(data, task.Example, require_labels=True)
        return read, name
    if not any(example.labelled for example in data):
        raise UserError(f"none of the {len(data)} examples has labels to score against: predict needs none")
    return data, None


def _refuse_several(predictor: Answering, bundle: Path | str) -> None:
    if isinstance(predictor.task, MultiTask):
        raise UserError(
            f"{bundle}: holds several tasks, and data is of one: name it with --part (part=... in Python): "
            f"{', '.join(predictor.task.tasks)}"
        )


def results_folder(output: Path | None, split: str, bundle: Path | str) -> Path:
    """The folder that a split's results go to.

    Raises:
        UserError: there is no folder for results, or the split's name is no name.
    """
    if split in ("", ".", "..") or Path(split).name != split:
        raise UserError(f"split {split!r} names a folder: give a plain name like 'test'")
    if output is None:
        raise UserError(
            f"{bundle}: lies in no run (no config.yaml beside it): name an output folder (--output)"
        )
    return output / "evaluation" / split


def _inventory(path: Path | None, *, must_exist: bool) -> frozenset[str]:
    if path is None or (not must_exist and not path.is_file()):
        return frozenset()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as the inventory of the training set: {error}") from error
    if not isinstance(known, list) or not all(isinstance(item, str) for item in known):
        raise UserError(f"{path}: an inventory is a JSON list of texts; remove the file to go without")
    return frozenset(known)
