"""Dropout by key: what it drops is random enough, exact in expectation, and nobody's business but the row's."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_backbone_folder
from wenmai.backbones.dropout import (
    WHOLE_ROW,
    KeyedDropout,
    Rate,
    RowKeys,
    batch_keys,
    head_keys,
    key_dropout,
    mixed,
    name_salt,
    noise,
    token_keys,
)
from wenmai.backbones.load import load_folder

ROWS = torch.randint(-(2**62), 2**62, (40,), generator=torch.Generator().manual_seed(1))


def bits(keys: Tensor, *, salt: int = 7, width: int = 256, rate: float = 0.5) -> Tensor:
    """1 where an element is kept."""
    return Rate.of(rate).kept(noise(keys, salt, width), torch.float64)


def tokens(rows: Tensor = ROWS, length: int = 60) -> Tensor:
    return token_keys(rows[:, None], torch.arange(length))


def test_mixing_is_splitmix64() -> None:
    # the first numbers of the published generator with seed 0: states are multiples of the golden ratio
    states = torch.tensor([1, 2]) * (0x9E3779B97F4A7C15 - (1 << 64))
    expected = [0xE220A8397B1DCDAF - (1 << 64), 0x6E789E6AA1B965F4]
    assert mixed(states).tolist() == expected


@pytest.mark.parametrize("rate", [0.1, 0.5, 1 / 3, 0.0007])
def test_share_dropped_is_the_rate(rate: float) -> None:
    kept = bits(tokens(), width=1000, rate=rate)
    deviation = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(1 - kept.mean().item() - rate) < 4 * deviation + 1 / 131072


def test_scale_keeps_the_expectation_of_the_rate_really_used() -> None:
    for rate in (0.1, 1 / 3, 0.9):
        steps = Rate.of(rate).steps
        every = torch.arange(-32768, 32768).to(torch.int16)
        assert Rate.of(rate).kept(every, torch.float64).sum() * Rate.of(rate).scale == 65536
        assert abs(steps / 65536 - rate) <= 1 / 131072
    assert Rate.of(1.0).kept(torch.tensor([-32768, 32766, 32767]).to(torch.int16), torch.int8).sum() == 1


def test_noise_is_uniform_in_every_bit_and_both_halves_of_a_word() -> None:
    drawn = noise(tokens(), 3, 512).flatten().to(torch.int64) & 0xFFFF
    for half in (drawn[::2], drawn[1::2]):
        for bit in range(16):
            share = ((half >> bit) & 1).double().mean()
            assert abs(share - 0.5) < 4 * 0.5 / len(half) ** 0.5
        counts = torch.bincount(half >> 8, minlength=256).double()
        chi2 = ((counts - len(half) / 256) ** 2 / (len(half) / 256)).sum()
        assert 150 < chi2 < 380  # 255 degrees of freedom, mean 255, deviation 23


def test_rows_features_modules_heads_and_neighbours_are_uncorrelated() -> None:
    keys = tokens()
    one = bits(keys) - 0.5
    others = {
        "another module": bits(keys, salt=8) - 0.5,
        "the next salt's complement": bits(keys, salt=~7) - 0.5,
        "the row's key plus one": bits(tokens(ROWS + 1)) - 0.5,
        "R-Drop's second pass": bits(tokens(ROWS + 0x5DEECE66D)) - 0.5,
        "the next token": one.roll(1, dims=1),
        "the next row": one.roll(1, dims=0),
        "the next feature": one.roll(1, dims=2),
        "the feature after": one.roll(2, dims=2),
        "half a row of features away": one.roll(128, dims=2),
    }
    bound = 4.5 / one.numel() ** 0.5
    for name, other in others.items():
        assert abs((one * other).mean().item() * 4) < bound, name
    heads = bits(head_keys(keys, 4), width=64) - 0.5
    assert abs((heads[:, :, 0] * heads[:, :, 1]).mean().item() * 4) < 4.5 / heads[:, :, 0].numel() ** 0.5


def test_masks_have_no_low_rank_pattern() -> None:
    signs = bits(tokens().flatten(), width=512).float() * 2 - 1  # (2400, 512)
    largest = torch.linalg.matrix_norm(signs, ord=2).item()
    # a random matrix of signs has its largest singular value near √rows + √columns (Marchenko and Pastur)
    assert largest < 1.02 * (signs.size(0) ** 0.5 + signs.size(1) ** 0.5)
    rows = signs.sum(dim=1)
    columns = signs.sum(dim=0)
    assert 0.9 < rows.var() / signs.size(1) < 1.1
    assert 0.8 < columns.var() / signs.size(0) < 1.2


def test_consecutive_keys_are_as_good_as_random_ones() -> None:
    keys = token_keys(torch.arange(50)[:, None], torch.arange(40))
    assert len(keys.unique()) == keys.numel()
    kept = bits(keys) - 0.5
    for shift in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1)):
        moved = kept.roll(shift, dims=(0, 1))
        assert abs((kept * moved).mean().item() * 4) < 4.5 / kept.numel() ** 0.5


def test_a_narrower_tensor_has_the_first_columns_of_a_wider_one() -> None:
    wide = noise(tokens(), 5, 64)
    torch.testing.assert_close(noise(tokens(), 5, 33), wide[..., :33])


def test_salts_come_from_names_alone() -> None:
    assert name_salt("head.dropout") == -666454503469083346  # or resumed runs would go on with other masks
    names = [f"encoder.layer.{i}.output.dropout" for i in range(500)]
    assert len({name_salt(name) for name in names}) == 500


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.first = nn.Dropout(0.25)
        self.inner = nn.Sequential(nn.Dropout(0.5))


def keyed() -> tuple[Two, RowKeys]:
    model, keys = Two(), RowKeys()
    key_dropout(model, keys)
    return model.train(), keys


def test_replaces_dropout_and_leaves_the_state_alone() -> None:
    model, _ = keyed()
    assert isinstance(model.first, KeyedDropout) and isinstance(model.inner[0], KeyedDropout)
    assert (model.first.p, model.inner[0].p) == (0.25, 0.5)
    assert list(model.state_dict()) == ["linear.weight", "linear.bias"]


def test_same_key_same_mask_wherever_the_row_stands() -> None:
    model, keys = keyed()
    row, place = torch.tensor([11, 22, 33]), torch.arange(6)
    padded = token_keys(row[:, None], place)
    ones = torch.ones(3, 6, 10)
    with keys.of(padded):
        together = model.first(ones)
        attention = model.first(torch.ones(3, 2, 6, 6))
    assert 0 < (together == 0).double().mean() < 0.6
    for i in (2, 0):
        with keys.of(padded[i : i + 1, :4]):
            torch.testing.assert_close(model.first(ones[:1, :4])[0], together[i, :4])
            alone = model.first(torch.ones(1, 2, 4, 4))[0]
            torch.testing.assert_close(alone, attention[i, :, :4, :4])
    with keys.of(padded.flatten()):
        torch.testing.assert_close(model.first(ones.flatten(0, 1)), together.flatten(0, 1))


def test_gradient_goes_through_what_was_kept() -> None:
    model, keys = keyed()
    x = torch.randn(3, 6, 10, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(3, 6, 10, dtype=torch.float64, requires_grad=True)
    with keys.of(token_keys(torch.arange(3)[:, None], torch.arange(6))):
        mask = model.first(torch.ones_like(x))
        assert set(mask.unique().tolist()) == {0.0, 4 / 3}
        torch.testing.assert_close(model.first(x), x * mask)
        torch.testing.assert_close(model.first.add(x, residual), x * mask + residual)
        assert torch.autograd.gradcheck(model.first, x)
        assert torch.autograd.gradcheck(model.first.add, (x, residual))


def test_without_a_key_for_the_shape_it_is_pytorchs() -> None:
    model, keys = keyed()
    x = torch.ones(3, 6, 10)
    with keys.of(token_keys(torch.arange(3)[:, None], torch.arange(5))):
        torch.manual_seed(0)
        ours = model.first(x)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, torch.dropout(x, 0.25, train=True))
    torch.testing.assert_close(model.eval().first(x), x)


def test_copies_have_keys_of_their_own() -> None:
    model, keys = keyed()
    copied = copy.deepcopy(model)
    tokens_BT = token_keys(torch.arange(3)[:, None], torch.arange(6))
    with keys.of(tokens_BT), copied.first.keys.of(tokens_BT):
        torch.testing.assert_close(copied.first(torch.ones(3, 6, 8)), model.first(torch.ones(3, 6, 8)))
    assert copied.first.keys is not keys


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_that_nobody_holds_is_gone_at_once(checkpointing: bool, tmp_path: Path) -> None:
    """Without waiting for Python to look for circles, which it does seldom: then several models are in memory."""
    gc.disable()
    try:
        backbone = load_folder(tiny_backbone_folder(tmp_path / "model"))[0]
        key_dropout(backbone, backbone.keys)
        if checkpointing:
            backbone.enable_gradient_checkpointing()
        words = weakref.ref(backbone.word_embeddings.weight)
        del backbone
        assert words() is None
    finally:
        gc.enable()


def test_keys_outlive_the_batch_in_a_remembering_function() -> None:
    model, keys = keyed()
    with keys.of(tokens()):
        later = keys.remembering(model.first)
        now = model.first(torch.ones(40, 60, 4))
    with keys.of(tokens(ROWS + 1)):
        torch.testing.assert_close(later(torch.ones(40, 60, 4)), now)


def test_keys_of_a_batch_count_real_tokens() -> None:
    right = {"key": torch.tensor([5]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
    left = {"key": torch.tensor([5]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    (right_BT, row_B), (left_BT, _) = batch_keys(right), batch_keys(left)
    torch.testing.assert_close(right_BT[0, :3], left_BT[0, 2:])
    torch.testing.assert_close(row_B, token_keys(torch.tensor([5]), torch.tensor(WHOLE_ROW)))
    assert row_B not in right_BT
    assert batch_keys({"attention_mask": torch.ones(1, 2)}) == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_precision_has_the_same_mask(dtype: torch.dtype) -> None:
    model, keys = keyed()
    with keys.of(tokens()):
        single = model.first(torch.ones(40, 60, 16))
        other = model.first(torch.ones(40, 60, 16, dtype=dtype))
    assert other.dtype == dtype
    torch.testing.assert_close(other == 0, single == 0)
