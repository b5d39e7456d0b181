"""Similar words instead of the mask token: which ones, how often, and the same whenever they are drawn."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tiny import tiny_backbone_folder
from toy import ner_records
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import RunConfig, load_config
from wenmai.data.draws import row_keys
from wenmai.data.rows import IGNORE, Arrays, stack
from wenmai.errors import DataError, UserError
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.tasks.similar_words import nearest, read_similar_words
from wenmai.training.setup import prepare

TEXTS = [record["text"] for record in ner_records()]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=TEXTS)


@pytest.fixture(scope="module")
def tokenizer(backbone: Path) -> Tokenizer:
    return load_folder(backbone)[1]


def vectors(tokenizer: Tokenizer) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((tokenizer.vocab_size, 16), dtype=np.float32)


def a_task(tokenizer: Tokenizer, *, known: bool = True, **options: Any) -> MaskedLM:
    task = MaskedLM(MaskedLMConfig(correction="similar", mask_share=0.4, **options), [])
    task.prepare_draws(tokenizer, vectors(tokenizer) if known else None)
    return task


def a_batch(task: MaskedLM, tokenizer: Tokenizer, *, repeats: int = 1) -> Arrays:
    rows = [row for text in TEXTS for row in task.featurize(MaskedLMExample(text=text), tokenizer)] * repeats
    numbers = np.arange(len(rows))
    return stack(rows, tokenizer.pad_id) | {"key": row_keys(1, 0, numbers, numbers)}


def test_nearest_are_those_of_the_highest_cosine() -> None:
    found = np.random.default_rng(1).standard_normal((1200, 12), dtype=np.float32)
    found[3] = 0
    ordinary = np.setdiff1d(np.arange(1200), [0, 7])
    table = nearest(found, ordinary, 5)
    assert (table[[0, 7]] == -1).all()
    for token in (1, 2, 600, 1199):
        length = np.linalg.norm(found, axis=1)
        cosine = found @ found[token] / np.where(length > 0, length, 1)
        cosine[[0, 7, token]] = -np.inf
        assert set(table[token].tolist()) == set(np.argsort(cosine)[-5:].tolist())
    assert (nearest(found[:3], np.array([1, 2]), 5) == [[-1], [2], [1]]).all()
    assert (nearest(found[:3], np.array([1]), 5) == -1).all()


def test_shares_of_similar_random_and_kept_tokens(tokenizer: Tokenizer) -> None:
    task = a_task(tokenizer)
    batch = a_batch(task, tokenizer, repeats=30_000 // len(TEXTS))
    before = batch["input_ids"].copy()
    seen = task.augment(batch, tokenizer)
    hit = seen["original"] != IGNORE
    table = nearest(vectors(tokenizer), tokenizer.ordinary_ids)
    similar = (table[before[hit]] == seen["input_ids"][hit][:, None]).any(axis=1)
    by_chance = table.shape[1] / len(tokenizer.ordinary_ids)
    assert similar.mean() == pytest.approx(0.8 + 0.1 * by_chance, abs=0.01)
    assert (seen["input_ids"][hit] == before[hit]).mean() == pytest.approx(
        0.1 + 0.1 / len(tokenizer.ordinary_ids), abs=0.01
    )
    assert not (seen["input_ids"] == tokenizer.mask_id).any()
    # all neighbours are as likely
    counts = np.bincount(np.nonzero(table[before[hit]] == seen["input_ids"][hit][:, None])[1])
    assert counts.min() / counts.max() > 0.9


def test_words_of_the_file_are_replaced_as_wholes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "similar.txt"
    characters = sorted(
        {character for text in TEXTS for character in text if "\u4e00" <= character <= "\u9fff"}
    )
    word, first, second, short = (
        "".join(characters[:2]),
        "".join(characters[2:4]),
        "".join(characters[4:6]),
        "一",
    )
    file.write_text(f"{word}\t{first} {short} {second}\n\n", encoding="utf-8")
    task = a_task(
        tokenizer, known=False, masking="whole_word", segmenter="script", similar_words=str(file), mask_probability=1,
        random_probability=0,
    )  # fmt: skip
    (row,) = task.featurize(MaskedLMExample(text=word * 40), tokenizer)
    row.targets["words"] = np.where(np.array(row.targets["words"]) == IGNORE, IGNORE, np.arange(len(row)) % 2)
    numbers = np.arange(50)
    batch = stack([row] * 50, tokenizer.pad_id) | {"key": row_keys(1, 0, numbers, numbers)}
    seen = task.augment(batch, tokenizer)
    start, stop = row.content
    pairs = seen["input_ids"][:, start:stop].reshape(50, -1, 2)
    hit = seen["original"][:, start:stop].reshape(50, -1, 2) != IGNORE
    assert (hit[..., 0] == hit[..., 1]).all()
    expected = [tokenizer.encode(one).ids for one in (first, second)]
    found = pairs[hit[..., 0]].tolist()
    assert all(pair in expected for pair in found)
    assert found.count(expected[0]) / len(found) == pytest.approx(0.5, abs=0.08)


def test_draws_depend_on_nothing_but_the_key(tokenizer: Tokenizer) -> None:
    pytest.importorskip("rjieba", reason="the package rjieba (extra wenmai[chinese]) is not installed")
    task = a_task(tokenizer, masking="ngram")
    whole = a_batch(task, tokenizer)
    every = task.augment({name: array.copy() for name, array in whole.items()}, tokenizer)
    elsewhere = pickle.loads(pickle.dumps(task))  # as a worker gets it that is not forked
    for row in (0, 3, len(TEXTS) - 1):
        width = int(whole["attention_mask"][row].sum())
        alone = {name: array[[row]] for name, array in whole.items()}
        alone = {name: array[:, :width] if array.ndim == 2 else array for name, array in alone.items()}
        seen = elsewhere.augment(alone, tokenizer)
        assert (seen["input_ids"][0] == every["input_ids"][row, :width]).all()
        assert (seen["original"][0] == every["original"][row, :width]).all()


def test_evaluation_does_not_know_the_backbone(tokenizer: Tokenizer) -> None:
    example = MaskedLMExample(text=TEXTS[0])
    new = MaskedLM(MaskedLMConfig(correction="similar", mask_share=0.4), [])
    rows, again = (task.evaluation_rows(example, tokenizer) for task in (a_task(tokenizer), new))
    assert [row.inputs for row in rows] == [row.inputs for row in again]
    assert [row.targets for row in rows] == [row.targets for row in again]
    assert tokenizer.mask_id not in rows[0].inputs["input_ids"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("大\t小 中\n没有\n", r"similar.txt:2.*'没有': expected a word, a tab"),
        ("大\t北京\n", "names no similar word"),
    ],
)
def test_files_that_say_nothing_are_refused(
    content: str, message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "similar.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises((DataError, UserError), match=message):
        read_similar_words(file, tokenizer)
    with pytest.raises(UserError, match=r"nowhere.txt can't be read"):
        read_similar_words(tmp_path / "nowhere.txt", tokenizer)


def test_a_file_without_correction_is_refused() -> None:
    with pytest.raises(ValueError, match="similar_words is read for correction: similar only"):
        MaskedLMConfig(similar_words="a.txt")


def a_run(tmp_path: Path, backbone: Path, **task: Any) -> RunConfig:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    tree = {
        "task": {"name": "masked_lm", "correction": "similar", **task},
        "backbone": {"model": str(backbone)},
        "data": {"train": str(data), "dev": str(data), "cache": "off"},
        "output": str(tmp_path / "run"),
    }
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(tree), encoding="utf-8")
    return load_config(file)


def test_a_run_prepares_the_words_before_its_workers(backbone: Path, tmp_path: Path) -> None:
    config = a_run(tmp_path, backbone)
    batches = [prepare(config).maker(np.arange(4), 0) for _ in range(2)]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    network, tokenizer = load_folder(backbone)
    table = nearest(network.word_embeddings.weight.detach().numpy(), tokenizer.ordinary_ids)
    hit = batches[0]["original"] != IGNORE
    pairs = zip(batches[0]["original"][hit].tolist(), batches[0]["input_ids"][hit].tolist(), strict=True)
    assert np.mean([seen in table[original] for original, seen in pairs]) > 0.6


def test_random_embeddings_know_no_similar_words(backbone: Path, tmp_path: Path) -> None:
    config = a_run(tmp_path, backbone)
    random = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": "random"})})
    with pytest.raises(UserError, match="random weights know none: start from a pretrained backbone"):
        prepare(random)


def test_a_run_does_not_go_on_with_another_file(backbone: Path, tmp_path: Path) -> None:
    file = tmp_path / "similar.txt"
    found = []
    for content in ("大\t小\n", "大\t中\n"):
        file.write_text(content, encoding="utf-8")
        found.append(prepare(a_run(tmp_path, backbone, similar_words=str(file))).fingerprint)
    assert found[0] != found[1]
