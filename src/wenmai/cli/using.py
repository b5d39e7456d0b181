"""Verbs that use a model or look at data: score, draw, compare, predict, show samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wenmai.cli.app import (
    REPORT,
    AsJson,
    BundleFolder,
    Part,
    app,
    note,
    numbers,
    print_json,
    print_metrics,
    print_rich,
    progress,
)
from wenmai.cli.zero_shot import (
    CalibrateOption,
    HypothesisOption,
    LabelsOption,
    MultiLabelOption,
    PromptOption,
    zero_shot,
)


@app.command()
def evaluate(
    bundle: BundleFolder,
    data: Annotated[str, typer.Argument(metavar="DATA", help="file, folder or sample:NAME/SPLIT")],
    reading: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="how to read it: format=conll")
    ] = None,
    part: Part = None,
    split: Annotated[
        str, typer.Option(help="name of the results: evaluation/SPLIT, with --part evaluation/PART-SPLIT")
    ] = "test",
    output: Annotated[Path | None, typer.Option(help="folder of the results; default: in the run")] = None,
    slices: Annotated[
        str, typer.Option(help="where text lengths are cut, in characters")
    ] = "0,50,100,150,200",
    labels: LabelsOption = None,
    hypothesis_template: HypothesisOption = None,
    prompt: PromptOption = None,
    multi_label: MultiLabelOption = False,
    calibrate: CalibrateOption = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on labelled data.

    Writes metrics.json and predictions.jsonl into evaluation/SPLIT of the run. With --labels the model chooses among
    labels that it has not learned: a model for inference or a masked language model (zero-shot classification).
    """
    from wenmai.config import load_source
    from wenmai.evaluation.evaluate import evaluate as score
    from wenmai.evaluation.zero_shot import evaluate_zero_shot

    source = load_source(data, reading or [])
    predictor = zero_shot(
        bundle,
        labels,
        hypothesis_template=hypothesis_template,
        prompt=prompt,
        multi_label=multi_label,
        calibrate=calibrate,
        part=part,
    )
    cut, shown = numbers(slices), progress()
    if predictor is not None:
        metrics = evaluate_zero_shot(
            predictor, source, split=split, output=output, slices=cut, progress=shown
        )
    else:
        metrics = score(bundle, source, part=part, split=split, output=output, slices=cut, progress=shown)
    if as_json:
        print_json(metrics)
    else:
        print_metrics(metrics, f"{data}: {metrics['examples']} examples")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders, side by side on one page")],
    output: Annotated[
        Path | None, typer.Option(help="the page; default: report.html in the first run")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="folder for the first run's plots as PNG and SVG")
    ] = None,
) -> None:
    """Draw runs as one self-contained HTML page.

    Learning curves, scores by length and label, confusion, and the errors in their texts.
    """
    from wenmai.evaluation.report import save_figures, write_report
    from wenmai.evaluation.seeds import runs_of

    single = [run for folder in runs for run in runs_of(folder)]
    print(write_report(single, output or runs[0] / REPORT))
    if figures is not None:
        for path in save_figures(single[0], figures):
            print(path)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or one of several seeds")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="another one, scored on the same examples")],
    split: Annotated[str, typer.Option(help="which results: evaluation/SPLIT of both")] = "test",
    show: Annotated[int, typer.Option(min=0, help="examples to show that only one gets right")] = 5,
    as_json: AsJson = False,
) -> None:
    """Test whether one run is better than another.

    A paired test on the same examples: over all of them, by length, label and the task's own slices.
    """
    from wenmai.cli import run_tables
    from wenmai.evaluation.compare import compare as test

    found = test(first, second, split=split, shown=show)
    if as_json:
        print_json(found)
    else:
        print_rich(run_tables.comparison(found))


@app.command()
def predict(
    bundle: BundleFolder,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="texts or JSONL; - is standard input")] = "-",
    part: Part = None,
    line_format: Annotated[
        Literal["auto", "text", "jsonl"], typer.Option("--format", help="what a line of FILE is")
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="of FILE")] = "utf-8",
    output: Annotated[Path | None, typer.Option(help="write to this file; default: print")] = None,
    output_format: Annotated[
        Literal["json", "conllu", "ltp"],
        typer.Option(help="how it is written; conllu and ltp are for dependency_parsing"),
    ] = "json",
    labels: LabelsOption = None,
    hypothesis_template: HypothesisOption = None,
    prompt: PromptOption = None,
    multi_label: MultiLabelOption = False,
    calibrate: CalibrateOption = None,
    pages: Annotated[
        Path | None,
        typer.Option(
            help="folder that gets page-N.svg, the N-th page drawn with its fields: for document_layout"
        ),
    ] = None,
) -> None:
    """Predict for texts or records, one JSON line each.

    In the order of the input, in bounded memory: FILE may be a pipe that never ends. With --labels the model chooses
    among labels that it has not learned (zero-shot classification).
    """
    from wenmai.atomic import writing
    from wenmai.inference.input import as_examples, read_items
    from wenmai.inference.output import Passes, writer
    from wenmai.inference.predictor import load

    predictor = zero_shot(
        bundle,
        labels,
        hypothesis_template=hypothesis_template,
        prompt=prompt,
        multi_label=multi_label,
        calibrate=calibrate,
        part=part,
    ) or load(bundle, part=part)
    written = writer(output_format, predictor.task)
    predictions = predictor.predict_examples(
        as_examples(read_items(file, line_format, encoding), predictor.task)
    )
    if pages is not None:
        predictions = _drawn(predictions, pages)
    passes = Passes()
    with (
        progress().task("predicting", None, "lines") as step,
        nullcontext() if output is None else writing(output) as target,
    ):
        for prediction in predictions:
            if target is None:
                print(written(prediction), end="")
            else:
                target.write(written(prediction))
            passes.saw(prediction)
            step.advance()
    if passes.alone:
        note(str(passes))


def _drawn(predictions: Iterator[Any], folder: Path) -> Iterator[Any]:
    """The same predictions, each once its page is drawn."""
    from wenmai.evaluation.pages import write_page

    for number, prediction in enumerate(predictions, start=1):
        write_page(prediction, folder, number)
        yield prediction


@app.command()
def samples(
    name: Annotated[str | None, typer.Argument(metavar="[NAME/SPLIT]", help="print its records")] = None,
) -> None:
    """List the sample data of installed packages, or print it."""
    from wenmai.samples import SAMPLES, SPLITS, sample_records

    if name is None:
        for sample in SAMPLES:
            for split in SPLITS:
                print(f"sample:{sample}/{split}")
        return
    sample, _, split = name.removeprefix("sample:").partition("/")
    for record in sample_records(sample, split or "train"):
        print(json.dumps(record.data, ensure_ascii=False))
