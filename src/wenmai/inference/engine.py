"""A model over many examples: sorted by length, batched by tokens, answered in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Batch, Row, collate
from wenmai.inference.generation import continuations
from wenmai.tasks.generation import Generation
from wenmai.tasks.model import Model
from wenmai.tasks.task import Example, Prediction, RowOutputs, Task

TOKENS_PER_BATCH = 4096
EXAMPLES_AT_ONCE = 1024
"""Examples that are sorted together: bounds the memory and the wait for the first answer."""


def predictions(
    model: Model,
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    examples: Iterable[Example],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    examples_at_once: int = EXAMPLES_AT_ONCE,
) -> Iterator[Prediction]:
    """Predictions one by one, in the order of the examples; a labelled example is scored (``evaluation_rows``).

    The model is put into evaluation mode and back. Memory is bounded by ``examples_at_once``, not by their number.
    """
    source = iter(examples)
    was_training = model.training
    model.eval()
    try:
        while chunk := list(islice(source, examples_at_once)):
            yield from _chunk(model, task, tokenizer, chunk, tokens_per_batch)
    finally:
        model.train(was_training)


def _chunk(
    model: Model,
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tokens_per_batch: int,
) -> list[Prediction]:
    generation = task.generation()
    if generation is not None and not any(example.labelled for example in examples):
        return _written(model, task, tokenizer, examples, generation, tokens_per_batch)
    rows = [
        task.evaluation_rows(example, tokenizer) if example.labelled else task.featurize(example, tokenizer)
        for example in examples
    ]
    places = [(i, j) for i, own in enumerate(rows) for j in range(len(own))]
    places.sort(key=lambda place: (_kind(rows[place[0]][place[1]]), len(rows[place[0]][place[1]])))
    waiting: dict[int, dict[int, RowOutputs]] = {}
    done: list[Prediction] = [{}] * len(examples)
    alike = (list(own) for _, own in groupby(places, key=lambda place: _kind(rows[place[0]][place[1]])))
    for batch in (batch for own in alike for batch in within_budget(own, rows, tokens_per_batch)):
        for (i, j), outputs in zip(batch, _outputs(model, tokenizer, batch, rows), strict=True):
            own = waiting.setdefault(i, {})
            own[j] = outputs
            if len(own) == len(rows[i]):
                done[i] = _answered(task, tokenizer, waiting.pop(i), rows[i], examples[i])
    return done


def _kind(row: Row) -> tuple[list[str], list[str]]:
    """What the row holds: rows of labelled and of unlabelled examples, and of several tasks, are batched apart."""
    return sorted(row.inputs), sorted(row.targets)


def _answered(
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    outputs: Mapping[int, RowOutputs],
    rows: Sequence[Row],
    example: Example,
) -> Prediction:
    prediction = task.answer([outputs[j] for j in range(len(rows))], rows, example, tokenizer)
    return _with_id(prediction, example)


def _written(
    model: Model,
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    generation: Generation,
    tokens_per_batch: int,
) -> list[Prediction]:
    prompts = [list(task.featurize(example, tokenizer)[-1].inputs["input_ids"]) for example in examples]
    found = continuations(model, tokenizer, prompts, generation, tokens_per_batch=tokens_per_batch)
    texts = [tokenizer.continuation(prompt, ids) for prompt, ids in zip(prompts, found, strict=True)]
    return [
        _with_id(task.written(text, example), example) for text, example in zip(texts, examples, strict=True)
    ]


def _with_id(prediction: Prediction, example: Example) -> Prediction:
    return prediction if example.id is None else {"id": example.id, **prediction}


def within_budget(
    places: Sequence[tuple[int, int]], rows: Sequence[Sequence[Row]], tokens: int
) -> Iterator[list[tuple[int, int]]]:
    """Batches of at most so many tokens, padding counted, of rows given by (example, row) in order of their length."""
    batch: list[tuple[int, int]] = []
    for place in places:
        # sorted by length, so this row is the longest so far
        if batch and len(rows[place[0]][place[1]]) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def mean_of_rows(
    rows: Sequence[Sequence[Row]],
    forward: Callable[[Batch], Tensor],
    pad_id: int,
    device: torch.device | str,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> NDArray[np.float64]:
    """What a function of batches says of each item, the mean over the item's rows: (N, L).

    Args:
        rows: of each of the N items; at least one item, and one row each.
        forward: a batch of B rows -> (B, L).
    """
    places = [(i, j) for i, own in enumerate(rows) for j in range(len(own))]
    places.sort(key=lambda place: len(rows[place[0]][place[1]]))
    sums_NL: NDArray[np.float64] | None = None
    for batch in within_budget(places, rows, tokens_per_batch):
        found_BL = _forward([rows[i][j] for i, j in batch], forward, pad_id, device)
        if sums_NL is None:
            sums_NL = np.zeros((len(rows), found_BL.shape[1]))
        np.add.at(sums_NL, [i for i, _ in batch], found_BL)
    assert sums_NL is not None, "at least one row"
    counts_N1 = np.array([[len(own)] for own in rows], dtype=np.float64)
    mean_NL: NDArray[np.float64] = sums_NL / counts_N1
    return mean_NL


@torch.inference_mode()
def _forward(
    rows: Sequence[Row], forward: Callable[[Batch], Tensor], pad_id: int, device: torch.device | str
) -> NDArray[np.float64]:
    batch = {key: value.to(device) for key, value in collate(rows, pad_id).items()}
    found_BL: NDArray[np.float64] = forward(batch).double().cpu().numpy()
    return found_BL


@torch.inference_mode()
def _outputs(
    model: Model, tokenizer: Tokenizer, places: Sequence[tuple[int, int]], rows: Sequence[Sequence[Row]]
) -> Iterator[RowOutputs]:
    chosen = [rows[i][j] for i, j in places]
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collate(chosen, tokenizer.pad_id).items()}
    found = model(batch, "evaluate")
    arrays = {name: value.float().cpu().numpy() for name, value in found.items()}
    axes = model.head.token_axes
    for at, (i, j) in enumerate(places):
        length = len(rows[i][j])
        yield {name: _unpadded(array[at], axes.get(name, ()), length) for name, array in arrays.items()}


def _unpadded(array: NDArray[np.float32], axes: tuple[int, ...], length: int) -> NDArray[np.float32]:
    """``axes`` count the batch dimension, which ``array`` no longer has."""
    for axis in axes:
        array = array[(slice(None),) * (axis - 1) + (slice(0, length),)]
    return array
