"""Options of `predict` and `evaluate` for labels that the model has not learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.inference.zero_shot_predictor import ZeroShotPredictor

LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="LABELS",
        help="zero-shot: choose among these; 体育,财经 or sports=体育,finance=财经, or a file with a line for each",
    ),
]
HypothesisOption = Annotated[
    str | None,
    typer.Option("--hypothesis-template", help="zero-shot by inference: a sentence with {} for the label"),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", help="zero-shot by a masked LM: {} for the text, [MASK] for the label"),
]
MultiLabelOption = Annotated[
    bool, typer.Option("--multi-label", help="zero-shot: any number of labels a text")
]
CalibrateOption = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        metavar="yes|no|FILE",
        help="zero-shot by a masked LM: by the prompt without a text, not, or by the texts of FILE, a line each",
    ),
]


def zero_shot(
    model: Path,
    labels: str | None,
    *,
    hypothesis_template: str | None,
    prompt: str | None,
    multi_label: bool,
    calibrate: str | None,
    part: str | None,
) -> ZeroShotPredictor | None:
    """The predictor that the options ask for; None: they ask for none.

    Raises:
        UserError: an option needs ``--labels`` or does not go with them, or see :class:`ZeroShotClassifier`.
    """
    if labels is None:
        given = {"hypothesis-template": hypothesis_template, "prompt": prompt, "calibrate": calibrate}
        for name in [
            *(name for name, value in given.items() if value),
            *(["multi-label"] if multi_label else []),
        ]:
            raise UserError(
                f"--{name}: is for zero-shot classification: name the labels too, --labels 体育,财经"
            )
        return None
    if part is not None:
        raise UserError(
            "--part: is of a model of several tasks, which chooses among its own labels: without --labels"
        )
    from wenmai.inference.zero_shot import ZeroShotClassifier
    from wenmai.inference.zero_shot_predictor import ZeroShotPredictor

    return ZeroShotPredictor(
        ZeroShotClassifier(model),
        candidate_labels=_named(labels) if Path(labels).is_file() else labels,
        hypothesis_template=hypothesis_template,
        prompt=prompt,
        multi_label=multi_label,
        calibrate=_calibration(calibrate),
    )


def _named(path: str) -> dict[str, str]:
    """A label a line, or a label, a tab and its word."""
    pairs = [
        (label.strip(), (word if tab else label).strip())
        for label, tab, word in (line.partition("\t") for line in _lines(path))
    ]
    if len({label for label, _ in pairs}) < len(pairs):
        raise UserError(f"{path}: a label stands there twice")
    return dict(pairs)


def _calibration(value: str | None) -> bool | list[str] | None:
    if value is None or value in ("yes", "no"):
        return None if value is None else value == "yes"
    return _lines(value)


def _lines(path: str) -> list[str]:
    from wenmai.data.readers import read_records
    from wenmai.data.sources import Source

    return [str(record.data["text"]) for record in read_records(Source(path=path, format="text"))]
