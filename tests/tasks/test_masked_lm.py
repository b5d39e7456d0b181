"""What is masked: how much, whole words, anew each epoch, and the same whenever it is asked for again."""

from __future__ import annotations

import numpy as np
import pytest

from tiny import tiny_backbone_folder
from toy import ner_records
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import IGNORE, Row
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.text.words import segment_words

TEXTS = [record["text"] for record in ner_records()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=TEXTS))[1]


def drawn(task: MaskedLM, tokenizer: Tokenizer, repeats: int) -> list[tuple[Row, Row]]:
    """Rows as they are and as an epoch sees them."""
    rng = np.random.default_rng(0)
    rows = [row for text in TEXTS for row in task.featurize(MaskedLMExample(text=text), tokenizer)]
    return [(row, task.augment(row, rng, tokenizer)) for _ in range(repeats) for row in rows]


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_masked_share_and_fates(share: float, whole_words: bool, tokenizer: Tokenizer) -> None:
    if whole_words:
        pytest.importorskip("rjieba", reason="the package rjieba (extra wenmai[chinese]) is not installed")
    task = MaskedLM(MaskedLMConfig(mask_share=share, whole_words=whole_words), [])
    tokens = chosen = masked = kept = 0
    for plain, seen in drawn(task, tokenizer, 200):
        original, before = np.array(seen.targets["original"]), np.array(plain.inputs["input_ids"])
        after = np.array(seen.inputs["input_ids"])
        hit = original != IGNORE
        assert (original[hit] == before[hit]).all()
        assert (after[~hit] == before[~hit]).all()
        assert not hit[: plain.content[0]].any() and not hit[plain.content[1] :].any()
        tokens += plain.content[1] - plain.content[0]
        chosen += hit.sum()
        masked += (after[hit] == tokenizer.mask_id).sum()
        kept += (after[hit] == before[hit]).sum()
    assert chosen / tokens == pytest.approx(share, abs=0.005)
    assert masked / chosen == pytest.approx(0.8, abs=0.01)
    assert kept / chosen == pytest.approx(0.1, abs=0.01)


def test_words_stay_whole(tokenizer: Tokenizer) -> None:
    pytest.importorskip("rjieba", reason="the package rjieba (extra wenmai[chinese]) is not installed")
    task = MaskedLM(MaskedLMConfig(whole_words=True), [])
    rng = np.random.default_rng(0)
    longer = 0
    for text in TEXTS:
        (row,) = task.featurize(MaskedLMExample(text=text), tokenizer)
        for _ in range(20):
            hit = np.array(task.augment(row, rng, tokenizer).targets["original"]) != IGNORE
            at = {start: hit[i] for i, (start, _) in enumerate(row.offsets) if i in range(*row.content)}
            for start, end in segment_words(text, segmenter="rjieba"):
                assert len({bool(at[i]) for i in range(start, end)}) == 1, text[start:end]
                longer += bool(at[start]) and end - start > 1
    assert longer > 100


def test_epochs_differ_and_evaluation_does_not(tokenizer: Tokenizer) -> None:
    task = MaskedLM(MaskedLMConfig(), [])
    (row,) = task.featurize(MaskedLMExample(text=TEXTS[0]), tokenizer)
    first, again, other = (
        task.augment(row, np.random.default_rng([42, epoch, 7, 0]), tokenizer).targets["original"]
        for epoch in (0, 0, 1)
    )
    assert first == again != other
    example = MaskedLMExample(text=TEXTS[0])
    assert task.evaluation_rows(example, tokenizer) == task.evaluation_rows(example, tokenizer)
