"""Heads that are not learned by gradients: fitted to what the encoder says of the whole training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wenmai.data.rows import Row, collate
from wenmai.heads.head import Outputs
from wenmai.heads.multi_task import MultiTaskHead, wanted
from wenmai.inference.engine import TOKENS_PER_BATCH, within_budget
from wenmai.training.setup import Prepared
from wenmai.training.task_data import tasks_by_name


@torch.no_grad()
def fit_head(work: Prepared) -> None:
    """Fits the head to the training set under the weights of now, where it is one of that kind; of several tasks each
    head of that kind to its own.

    The same in every process, and a function of weights and data alone, so a run that is resumed fits the same.
    """
    whole = work.model.head
    heads = whole.heads if isinstance(whole, MultiTaskHead) else {"": whole}
    for (name, task), own in zip(tasks_by_name(work.task).items(), work.sets, strict=True):
        if heads[name].fitted:
            rows = [task.featurize(example, work.tokenizer) for example in own.examples]
            heads[name].fit(*_answers(work, rows, name))


def _answers(work: Prepared, rows: Sequence[Sequence[Row]], name: str) -> tuple[Outputs, dict[str, Tensor]]:
    """The outputs and the targets of all rows.

    Args:
        name: of the task among several; empty for a single one.
    """
    model = work.model
    places = [(i, j) for i, own in enumerate(rows) for j in range(len(own))]
    places.sort(key=lambda place: len(rows[place[0]][place[1]]))
    device = next(model.parameters()).device
    found: list[Outputs] = []
    targets: list[dict[str, Tensor]] = []
    training = model.training
    model.eval()
    try:
        for part in within_budget(places, rows, TOKENS_PER_BATCH):
            chosen = [rows[i][j] for i, j in part]
            batch = {key: value.to(device) for key, value in collate(chosen, work.tokenizer.pad_id).items()}
            targets.append({key: batch[key] for key in chosen[0].targets})
            if name:
                batch[wanted(name)] = torch.ones(len(chosen), dtype=torch.long, device=device)
            start = f"{name}/" if name else ""
            found.append({key.removeprefix(start): value for key, value in model(batch).items()})
    finally:
        model.train(training)
    return _together(found), _together(targets)


def _together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
