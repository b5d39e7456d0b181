"""bert4torch's GlobalPointer for entities, and GPLinker from its parts for triples, on the rows of wenmai's tasks.

As its examples do: a ``BaseModel`` around ``build_transformer_model``, its pointer layers and losses, a shuffling
``DataLoader`` whose collate function pads with ``sequence_padding``, ``compile`` and ``fit``. Unlike them it gets
tokenized rows, a warm-up with linear decay and decay of matrices only, which is what the other side has. Scores above
0 are decoded as its examples do, and become characters by wenmai's own functions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from peers.bert4torch_fit import encoder_by_its_names  # first: stands in for torchvision
from peers.contest import MAX_GRAD_NORM, WARM_UP, Contest, Judge, Steps, groups_of

from bert4torch.layers import EfficientGlobalPointer, GlobalPointer  # isort: skip
from bert4torch.losses import (  # isort: skip
    MultilabelCategoricalCrossentropy,
    SparseMultilabelCategoricalCrossentropy,
)
from bert4torch.models import BaseModel, build_transformer_model  # isort: skip
from bert4torch.optimizers import get_linear_schedule_with_warmup  # isort: skip
from bert4torch.snippets import sequence_padding  # isort: skip
from torch4keras.callbacks import Callback  # isort: skip

from wenmai.data.rows import Row
from wenmai.tasks.span_decoding import decode_nested
from wenmai.tasks.task import Prediction
from wenmai.text.spans import to_character_span

HEAD_SIZE = 64
PREDICTED_AT_ONCE = 16


class Pointers(BaseModel):  # type: ignore[misc]
    """Encoder and pointer layers: one for entities, three for triples."""

    def __init__(self, encoder: Path, layers: Sequence[tuple[int, bool]], efficient: bool):
        """``layers``: of each its labels, and whether it points at spans (with positions, last behind first)."""
        super().__init__()
        self.bert = build_transformer_model(str(encoder), model="bert", verbose=0)
        kind = EfficientGlobalPointer if efficient else GlobalPointer
        hidden = self.bert.config["hidden_size"]
        self.pointers = nn.ModuleList(
            kind(hidden_size=hidden, heads=labels, head_size=HEAD_SIZE, RoPE=spans, tril_mask=spans)
            for labels, spans in layers
        )

    def forward(self, ids_BT: Tensor, types_BT: Tensor, mask_BT: Tensor) -> list[Tensor]:
        hidden_BTH = self.bert([ids_BT, types_BT])
        return [pointer(hidden_BTH, mask_BT) for pointer in self.pointers]


class JudgedAtHalves(Callback):  # type: ignore[misc]
    """Asks the judge after each of the two halves that ``fit`` is told are epochs."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def on_epoch_end(self, global_step: int, epoch: int, logs: Any = None) -> None:
        self.judge()


def entities(contest: Contest) -> dict[str, Any]:
    """GlobalPointer: a dense target, the multi-label cross-entropy over all spans of a label."""
    labels = contest.task.labels

    def target(batch: Sequence[Row], width: int) -> Tensor:
        dense_BLTT = torch.zeros(len(batch), len(labels), width, width)
        for place, row in enumerate(batch):
            for first, last, label in np.asarray(row.targets["spans"]).reshape(-1, 3).tolist():
                dense_BLTT[place, label, first, last] = 1
        return dense_BLTT

    def loss(outputs: list[Tensor], gold_BLTT: Tensor) -> Tensor:
        flat = outputs[0].flatten(2).flatten(0, 1), gold_BLTT.flatten(2).flatten(0, 1)
        found: Tensor = MultilabelCategoricalCrossentropy()(*flat)
        return found

    def decode(example: Any, rows: Sequence[Row], outputs: Sequence[list[Any]]) -> Prediction:
        found = decode_nested(
            [{"logits": out[0]} for out in outputs], rows, labels, nested=contest.task.config.nested
        )
        return {"entities": [{"start": s.start, "end": s.end, "label": s.label} for s, _ in found]}

    return _run(contest, [(len(labels), True)], target, loss, decode)


def triples(contest: Contest) -> dict[str, Any]:
    """GPLinker: entities, first tokens and last tokens of both ends; the sparse loss over the gold pairs."""
    predicates = contest.task.labels

    def target(batch: Sequence[Row], width: int) -> list[Tensor]:
        made: list[list[list[set[tuple[int, int]]]]] = [[], [], []]
        for row in batch:
            gold = np.asarray(row.targets["triples"]).reshape(-1, 7).tolist()
            own = [[set() for _ in range(count)] for count in (2, len(predicates), len(predicates))]
            for s_first, s_last, predicate, o_first, o_last, *_ in gold:
                own[0][0].add((s_first, s_last))
                own[0][1].add((o_first, o_last))
                own[1][predicate].add((s_first, o_first))
                own[2][predicate].add((s_last, o_last))
            for kind, pairs in zip(made, own, strict=True):
                kind.append(pairs)
        return [_flat_places(kind, width) for kind in made]

    def loss(outputs: list[Tensor], gold: list[Tensor]) -> Tensor:
        cost = SparseMultilabelCategoricalCrossentropy(mask_zero=True)
        parts = [
            cost(scores.flatten(2), places).sum(dim=1).mean()
            for scores, places in zip(outputs, gold, strict=True)
        ]
        return torch.stack(parts).mean()

    def decode(example: Any, rows: Sequence[Row], outputs: Sequence[list[Any]]) -> Prediction:
        relations = []
        for row, (spans, firsts, lasts) in zip(rows, outputs, strict=True):
            begin, stop = row.content
            inside = np.zeros(spans.shape[1:], dtype=bool)
            inside[begin:stop, begin:stop] = True
            subjects, objects = (np.argwhere((spans[role] > 0) & inside).tolist() for role in (0, 1))
            for s_first, s_last in subjects:
                for o_first, o_last in objects:
                    linked = (firsts[:, s_first, o_first] > 0) & (lasts[:, s_last, o_last] > 0)
                    for predicate in np.flatnonzero(linked).tolist():
                        ends = [
                            dict(
                                zip(
                                    ("start", "end"),
                                    to_character_span(first, last + 1, row.offsets),
                                    strict=True,
                                )
                            )
                            for first, last in ((s_first, s_last), (o_first, o_last))
                        ]
                        relations.append(
                            {"subject": ends[0], "predicate": predicates[predicate], "object": ends[1]}
                        )
        return {"relations": relations}

    layers = [(2, True), (len(predicates), False), (len(predicates), False)]
    return _run(contest, layers, target, loss, decode)


def _flat_places(pairs: Sequence[Sequence[set[tuple[int, int]]]], width: int) -> Tensor:
    """Gold pairs (B, labels, N) as places in the flattened square of tokens; 0, which no pair is, fills up."""
    most = max(1, *(len(own) for row in pairs for own in row))
    flat = [[[first * width + last for first, last in sorted(own)] for own in row] for row in pairs]
    return torch.tensor([[own + [0] * (most - len(own)) for own in row] for row in flat])


def _run(
    contest: Contest, layers: Sequence[tuple[int, bool]], target: Any, loss: Any, decode: Any
) -> dict[str, Any]:
    torch.manual_seed(contest.seed)
    encoder = encoder_by_its_names(contest.encoder, contest.scratch / "bert4torch")
    model = Pointers(encoder, layers, contest.options.get("efficient", True))
    rows = [row for example in contest.train for row in contest.task.featurize(example, contest.tokenizer)]
    plan = Steps.of([len(row) for row in rows], contest)
    read = 0

    def inputs(batch: Sequence[Row]) -> list[Tensor]:
        ids = [row.inputs["input_ids"] for row in batch]
        ids_BT = torch.tensor(sequence_padding(ids, value=contest.tokenizer.pad_id))
        lengths_B = torch.tensor([len(own) for own in ids])
        mask_BT = (torch.arange(ids_BT.shape[1]) < lengths_B[:, None]).long()
        return [ids_BT, torch.zeros_like(ids_BT), mask_BT]

    def collate(batch: list[Row]) -> tuple[list[Tensor], Any]:
        nonlocal read
        found = inputs(batch)
        read += int(found[2].sum())
        return found, target(batch, found[0].shape[1])

    def predict(examples: Sequence[Any]) -> list[Prediction]:
        model.eval()
        own = [contest.task.featurize(example, contest.tokenizer) for example in examples]
        flat = [row for some in own for row in some]
        outputs: list[list[Any]] = [[]] * len(flat)
        order = sorted(range(len(flat)), key=lambda i: len(flat[i]))
        with torch.no_grad():
            for start in range(0, len(order), PREDICTED_AT_ONCE):
                part = order[start : start + PREDICTED_AT_ONCE]
                found = model(*inputs([flat[i] for i in part]))
                for place, i in enumerate(part):
                    size = len(flat[i])
                    outputs[i] = [scores[place, :, :size, :size].numpy() for scores in found]
        several = iter(outputs)
        return [
            decode(example, some, [next(several) for _ in some])
            for example, some in zip(examples, own, strict=True)
        ]

    judge = Judge(contest, model, predict)
    half = max(1, plan.steps // 2)
    optimizer = torch.optim.AdamW(groups_of(contest, model.bert, model), fused=True)
    model.compile(
        loss=loss,
        optimizer=optimizer,
        scheduler=get_linear_schedule_with_warmup(optimizer, round(2 * half * WARM_UP), 2 * half),
        clip_grad_norm=MAX_GRAD_NORM,
    )
    batches = DataLoader(rows, batch_size=plan.rows_a_step, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    started = time.perf_counter()
    model.fit(batches, steps_per_epoch=half, epochs=2, callbacks=[JudgedAtHalves(judge)], verbose=0)
    return judge.result(tokens=read, steps=2 * half, started=started)
