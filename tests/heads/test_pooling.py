from __future__ import annotations

import pytest
import torch

from wenmai.heads.pooling import pool, tokens_pooled

HIDDEN = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 0]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("cls", [1.0, -4.0]),
        ("mean", [2.0, -3.0]),
        ("max", [3.0, -2.0]),
        ("last", [3.0, -2.0]),
        ("weighted_mean", [7 / 3, -8 / 3]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_by_hand_in_every_precision(how, expected, dtype):
    pooled = pool(HIDDEN.to(dtype), MASK, how)
    assert pooled.dtype == dtype
    assert pooled[0].tolist() == pytest.approx(expected, rel=torch.finfo(dtype).eps)


@pytest.mark.parametrize("how", ["mean", "max", "last", "weighted_mean"])
def test_what_stands_in_padding_is_of_no_account(how):
    spoiled = HIDDEN.clone()
    spoiled[0, 2] = torch.nan
    assert torch.equal(pool(spoiled, MASK, how), pool(HIDDEN, MASK, how))


@pytest.mark.parametrize("how", ["mean", "max", "last", "weighted_mean"])
def test_row_of_padding_is_zero(how):
    assert pool(HIDDEN, torch.zeros(1, 3), how).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("how", ["cls", "mean", "max", "last", "weighted_mean"])
def test_only_what_is_said_to_be_looked_at_is(how):
    read = tokens_pooled(MASK, how)
    spoiled = HIDDEN.clone()
    if read is not None:
        assert read.sum() == 1
        spoiled[~read] = torch.nan
    assert torch.equal(pool(spoiled, MASK, how), pool(HIDDEN, MASK, how))


def test_the_last_token_is_found_wherever_padding_is():
    mask = torch.tensor([[0, 1, 0, 1, 0]])
    assert pool(torch.arange(5.0).view(1, 5, 1), mask, "last").tolist() == [[3.0]]
    assert tokens_pooled(mask, "last").tolist() == [[False, False, False, True, False]]


def test_mean_of_many_half_precision_values_is_summed_in_fp32():
    hidden = torch.ones(1, 4096, 1, dtype=torch.float16) * 100
    assert pool(hidden, torch.ones(1, 4096), "mean").item() == 100


def test_places_count_from_the_first_token_wherever_padding_is():
    mask = torch.tensor([[0, 1, 0, 1, 0]])
    assert pool(torch.arange(5.0).view(1, 5, 1), mask, "weighted_mean")[0, 0] == pytest.approx(
        (1 + 2 * 3) / 3
    )
