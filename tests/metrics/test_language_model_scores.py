"""Loss and perplexity are over tokens, not over examples."""

from __future__ import annotations

import json
import math

import pytest

from wenmai.metrics.language_model import language_model_scores


def test_by_hand() -> None:
    values = language_model_scores([6.0, 1.0], [3, 1], [1, 1]).values()

    assert values["loss"] == 7 / 4, "not (6 / 3 + 1 / 1) / 2"
    assert values["negative_loss"] == -7 / 4
    assert values["perplexity"] == pytest.approx(math.exp(7 / 4))
    assert values["accuracy"] == 0.5


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    assert language_model_scores([5 * math.log(21128)], [5], [0]).values()["perplexity"] == pytest.approx(
        21128
    )


@pytest.mark.parametrize("rows", [[], [0.0], [0.0, 0.0]])
def test_without_tokens(rows: list[float]) -> None:
    values = language_model_scores(rows, rows, rows).values()
    assert values == {"loss": 0.0, "negative_loss": 0.0, "perplexity": 1.0, "accuracy": 0.0}
    assert math.copysign(1, values["negative_loss"]) == 1


def test_a_huge_loss_is_json_and_a_diverged_one_is_not_hidden() -> None:
    json.dumps(language_model_scores([1e6], [1], [0]).values(), allow_nan=False)
    assert math.isnan(language_model_scores([float("nan"), 1.0], [1, 1], [0, 0]).values()["loss"])
