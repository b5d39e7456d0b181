"""How well a model labels texts without having learned the labels, on a labelled file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wenmai.data.sources import Source
from wenmai.errors import UserError
from wenmai.evaluation.evaluate import Report, evaluate_predictor, labelled_examples, results_folder
from wenmai.evaluation.slices import LENGTH_EDGES, slice_names
from wenmai.inference.zero_shot_predictor import ZeroShotPredictor
from wenmai.progress import SILENT, Progress
from wenmai.tasks.labels import SHOWN_LABELS
from wenmai.tasks.text_classification import TextClassificationExample


def evaluate_zero_shot(
    predictor: ZeroShotPredictor,
    data: Source | str | Path | Sequence[TextClassificationExample],
    *,
    output: Path | None,
    split: str = "test",
    slices: Sequence[int] = LENGTH_EDGES,
    progress: Progress = SILENT,
) -> Report:
    """Scores as :func:`wenmai.evaluation.evaluate.evaluate` does for text_classification.

    ``metrics.json`` also has ``zero_shot``: the words of the labels and the template.

    Args:
        data: records of text_classification.
        output: the folder that gets ``evaluation/SPLIT``.

    Raises:
        UserError: the data can't be used or has labels that the predictor does not choose from, or no folder is named.
    """
    slice_names(slices)
    name, choice = predictor.classifier.name, predictor.choice
    if output is None:
        raise UserError(
            f"{name}: results of zero-shot classification need a folder of their own: name an output folder (--output)"
        )
    target = results_folder(output, split, name)
    examples, place = labelled_examples(data, predictor.task)
    _check_labels(examples, predictor, place)
    about: dict[str, Any] = {
        "split": split,
        "bundle": name,
        "data": place,
        "zero_shot": {"labels": dict(choice.words), "template": choice.template},
    }
    return evaluate_predictor(predictor, examples, target, about, slices=slices, progress=progress)


def _check_labels(examples: Sequence[Any], predictor: ZeroShotPredictor, place: str | None) -> None:
    known = predictor.choice.words
    unknown = Counter(label for example in examples for label in example.all_labels if label not in known)
    if unknown:
        shown = [f"{label!r} ({times} times)" for label, times in unknown.most_common(SHOWN_LABELS)]
        count = "1 label is" if len(unknown) == 1 else f"{len(unknown)} labels are"
        raise UserError(
            f"{place or 'the examples'}: {count} not among candidate_labels, which are "
            f"{', '.join(known)}: {', '.join(shown)}; name them, with the word for each: LABEL=WORD"
        )
    if not predictor.choice.multi_label and any(len(example.all_labels) != 1 for example in examples):
        raise UserError(f"{place or 'the examples'}: some have several labels or none: set multi_label: true")
