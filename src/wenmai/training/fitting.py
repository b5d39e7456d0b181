"""Heads that are not learned by gradients: fitted to what the encoder says of the whole training set."""

from __future__ import annotations

import torch
from torch import Tensor

from wenmai.data.rows import collate
from wenmai.heads.head import Outputs
from wenmai.inference.engine import TOKENS_PER_BATCH, within_budget
from wenmai.training.setup import Prepared


@torch.no_grad()
def fit_head(work: Prepared) -> None:
    """Fits the head to the training set under the weights of now, where it is one of that kind.

    The same in every process, and a function of weights and data alone, so a run that is resumed fits the same.
    """
    model = work.model
    if not model.head.fitted:
        return
    rows = [work.task.featurize(example, work.tokenizer) for example in work.data["train"]]
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
            found.append(model(batch))
            targets.append({name: batch[name] for name in chosen[0].targets})
        model.head.fit(_together(found), _together(targets))
    finally:
        model.train(training)


def _together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
