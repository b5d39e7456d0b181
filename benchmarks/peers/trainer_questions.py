"""Extractive question answering as the example of transformers does it, on the records of wenmai.

Question and context share a row; a long context takes several, ``doc_stride`` tokens apart in overlap. A window that
does not hold the whole answer points to ``[CLS]``. Of the best starts and ends of all windows, those pairs are kept
that lie in the context, are in order and not too long; the highest sum of both scores is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, DataCollatorWithPadding, set_seed

from peers.contest import Contest
from peers.trainer_loop import Feature, in_batches, trained
from wenmai.tasks.task import Prediction

BEST = 20
CONTEXT = 1
"""Number of the sequence of a pair that is the context."""


def run(contest: Contest) -> dict[str, Any]:
    set_seed(contest.seed)
    tokenizer = AutoTokenizer.from_pretrained(contest.encoder)
    model = AutoModelForQuestionAnswering.from_pretrained(contest.encoder)
    collator = DataCollatorWithPadding(tokenizer)
    config = contest.task.config
    inputs = tokenizer.model_input_names

    def windows(example: Any) -> Any:
        return tokenizer(
            example.question.lstrip(),
            example.context,
            truncation="only_second",
            max_length=config.max_length,
            stride=config.window_overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    def rows_of(found: Any) -> list[Feature]:
        return [{name: found[name][i] for name in inputs} for i in range(len(found["input_ids"]))]

    def features(example: Any) -> list[Feature]:
        found = windows(example)
        rows = rows_of(found)
        for i, row in enumerate(rows):
            row["start_positions"], row["end_positions"] = _target(
                found["offset_mapping"][i], found.sequence_ids(i), example.places
            )
        return rows

    def predict(examples: Sequence[Any]) -> list[Prediction]:
        encoded = [windows(example) for example in examples]
        rows = [rows_of(found) for found in encoded]
        outputs = iter(in_batches(model, [row for some in rows for row in some], collator))
        predictions = []
        for example, found, some in zip(examples, encoded, rows, strict=True):
            best = (-np.inf, "")
            for i in range(len(some)):
                output = next(outputs)
                offsets = [
                    place if sequence == CONTEXT else None
                    for place, sequence in zip(found["offset_mapping"][i], found.sequence_ids(i), strict=True)
                ]
                best = max(
                    best,
                    _best_span(
                        output["start_logits"].numpy(),
                        output["end_logits"].numpy(),
                        offsets,
                        example.context,
                        config.max_answer_length,
                    ),
                )
            predictions.append({"answer": best[1]})
        return predictions

    rows = [row for example in contest.train for row in features(example)]
    return trained(contest, model, rows, collator, predict)


def _target(
    offsets: Sequence[tuple[int, int]], sequences: Sequence[int | None], places: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """First and last token of the answer; ``[CLS]`` where the window does not hold all of it."""
    inside = [i for i, sequence in enumerate(sequences) if sequence == CONTEXT]
    if not places or not inside:
        return 0, 0
    start, end = places[0]
    if offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    first = max(i for i in inside if offsets[i][0] <= start)
    last = min(i for i in inside if offsets[i][1] >= end)
    return first, max(first, last)


def _best_span(
    start_T: Any, end_T: Any, offsets: Sequence[tuple[int, int] | None], context: str, longest: int
) -> tuple[float, str]:
    best = (-np.inf, "")
    for first in np.argsort(-start_T)[:BEST].tolist():
        for last in np.argsort(-end_T)[:BEST].tolist():
            begin, end = offsets[first], offsets[last]
            if begin is None or end is None or not 0 <= last - first < longest:
                continue
            best = max(best, (float(start_T[first] + end_T[last]), context[begin[0] : end[1]]))
    return best
