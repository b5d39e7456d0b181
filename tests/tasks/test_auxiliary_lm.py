"""GPT-1's second loss: its formula, the same in any micro-batches, refused where there is nothing to foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tiny import decoder_folder, tiny_backbone_folder
from toy import ALL_TEXTS, classification_records
from wenmai.backbones.load import load_folder
from wenmai.data.rows import IGNORE, collate
from wenmai.errors import UserError
from wenmai.heads.auxiliary_lm import WithLanguageModel
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model

LABELS = ["好评", "差评"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def test_is_the_mean_over_each_rows_tokens_added_over_rows(folder: Path) -> None:
    backbone, tokenizer = load_folder(decoder_folder(folder))
    task_type = TASKS["text_classification"]
    task = task_type(task_type.Config(pooling="last", auxiliary_lm=0.5), LABELS)  # type: ignore[call-arg]
    plain = task_type(task_type.Config(pooling="last"), LABELS)  # type: ignore[call-arg]
    model = Model(backbone, task.build_head(backbone)).eval()
    assert isinstance(model.head, WithLanguageModel)
    rows = [
        row
        for record in classification_records()[::7]
        for row in task.featurize(task.Example.model_validate(record), tokenizer)
    ]
    batch = collate(rows, tokenizer.pad_id)
    batch["label"][1] = IGNORE
    loss, count = model.head.loss(model(batch, "train"), batch)
    alone = Model(backbone, plain.build_head(backbone)).eval()
    alone.head.load_state_dict(model.head.decision.state_dict())
    expected, rows_counted = alone.head.loss(alone(batch, "train"), batch)
    logits = backbone(batch) @ backbone.word_embeddings.weight.T
    for i, row in enumerate(rows):
        if i != 1:
            ids = torch.tensor(row.inputs["input_ids"])
            expected = expected + 0.5 * cross_entropy(logits[i, : len(ids) - 1], ids[1:])
    assert count == rows_counted == len(rows) - 1
    torch.testing.assert_close(loss, expected)


def test_an_encoder_has_nothing_to_foretell(folder: Path) -> None:
    for name in ("text_classification", "text_matching"):
        task = TASKS[name](TASKS[name].Config(auxiliary_lm=0.5), LABELS)  # type: ignore[call-arg]
        with pytest.raises(UserError, match=r"task\.auxiliary_lm: 0\.5 given, but a bert sees what follows"):
            task.build_head(load_folder(folder)[0])
