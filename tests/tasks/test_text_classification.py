"""What text classification says of a training set that it can't learn from."""

from __future__ import annotations

from typing import Any

import pytest

from wenmai.errors import UserError
from wenmai.tasks.text_classification import TextClassification, TextClassificationConfig


@pytest.mark.parametrize(
    ("multi_label", "records", "message"),
    [
        (False, [{"text": "好", "label": "a"}], "needs at least two labels, the training set has \\['a'\\]"),
        (True, [{"text": "好", "labels": []}], "needs labels, the training set has none"),
    ],
)
def test_too_few_labels(multi_label: bool, records: list[dict[str, Any]], message: str) -> None:
    config = TextClassificationConfig(multi_label=multi_label)
    examples = [TextClassification.Example.model_validate(record) for record in records]
    with pytest.raises(UserError, match=message):
        TextClassification.collect_labels(config, examples)  # type: ignore[arg-type]
