"""``wenmai inspect``: how a run's model works on data, into ``inspection.json``, which the report draws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wenmai.atomic import write_text
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import bundle_folder, load_bundle, part_of
from wenmai.config import load_config
from wenmai.data.batching import BatchMaker, Plan, StepSize, measure
from wenmai.data.examples import read_examples
from wenmai.data.features import features_in_memory
from wenmai.data.rows import Batch, Row
from wenmai.data.sources import Source
from wenmai.data.split import load_splits
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress
from wenmai.tasks.multi_task import MultiTask
from wenmai.tasks.task import Task
from wenmai.training.inspect import inspect_model
from wenmai.training.machine import resolved_device
from wenmai.training.selection import evenly_spread
from wenmai.version import __version__

FILE = "inspection.json"
TOKENS_PER_BATCH = 2048


def inspect_run(
    run: Path,
    data: Source | None = None,
    *,
    part: str | None = None,
    patterns: Sequence[str] | None = None,
    examples: int = 64,
    backward: bool = True,
    output: Path | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Looks into a run's best model while it reads examples as in training, and writes ``inspection.json``.

    Args:
        run: a run folder or a bundle.
        data: examples; default: the run's dev set, or its training set if it has none.
        part: of a model of several tasks, the name of the one to look at.
        patterns: names of modules; see :func:`wenmai.training.inspect.watching`.
        examples: at most so many, evenly spread over the data.
        backward: gradients too, for which the examples need labels.
        output: the file; default: in the run folder.

    Returns:
        what the file holds.

    Raises:
        UserError: the model or the data can't be used, a pattern fits no module, or the file can't be written.
    """
    if examples < 1:
        raise UserError(f"--examples {examples}: expected 1 or more")
    folder = bundle_folder(run)
    home = folder.parent if (folder.parent / "config.yaml").is_file() else None
    if output is None and home is None:
        raise UserError(f"{folder}: lies in no run (no config.yaml beside it): name a file with --output")
    bundle = part_of(load_bundle(folder), part)
    if isinstance(bundle.task, MultiTask):
        raise UserError(
            f"{run}: holds several tasks, which are looked at one by one: name one with --part: "
            f"{', '.join(bundle.task.tasks)}"
        )
    found, name = _examples(data, home, bundle.task, part or "", labelled=backward)
    chosen = evenly_spread(found, examples)
    model = bundle.model.to(resolved_device(device))
    with progress.task("inspecting", len(chosen), "examples") as step:

        def counted() -> Iterator[Batch]:
            for batch in batches_of(chosen, bundle.task, bundle.tokenizer):
                yield {
                    key: value.to(model.backbone.word_embeddings.weight.device)
                    for key, value in batch.items()
                }
                step.advance(len(torch.unique(batch["group"])))

        inspection = inspect_model(model, counted(), patterns=patterns, backward=backward)
    content = inspection.to_json(
        wenmai=__version__, task=bundle.task.name, data=name, examples=len(chosen), backward=backward
    )
    target = output or (home or folder) / FILE
    write_text(target, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
    return content


def batches_of(
    examples: Sequence[Any], task: Task[Any, Any], tokenizer: Tokenizer, *, tokens: int = TOKENS_PER_BATCH
) -> Iterator[Batch]:
    """The examples in batches of about equal lengths, as training would make them; always the same ones."""

    def featurize(example: Any) -> list[Row]:
        return task.training_rows(example, tokenizer)

    features = features_in_memory(examples, featurize)
    units = measure(features, rows_stay_together=task.rows_stay_together)
    maker = BatchMaker(features, units, partial(task.augment, tokenizer=tokenizer), tokenizer.pad_id, seed=0)
    for part in Plan(units, StepSize(tokens=tokens), seed=0).steps(0):
        yield maker(part, 0)


def _examples(
    data: Source | None, home: Path | None, task: Task[Any, Any], part: str, *, labelled: bool
) -> tuple[Sequence[Any], str]:
    if data is not None:
        return read_examples(data, task.Example, require_labels=labelled), data.path
    if home is None:
        raise UserError("the bundle lies in no run, so it has no data of its own: name DATA to look at")
    own = load_config(home / "config.yaml").parts[part].data
    splits = load_splits(own, task.Example, cache=None, output=None)
    split = "dev" if "dev" in splits else "train"
    return splits[split], split
