"""Vectors of texts and tokens: those of transformers, by every pooling, with characters of the user's string."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import wenmai
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS
from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.errors import UserError
from wenmai.inference.features import FeatureExtractor
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig
from wenmai.tasks.model import Model

TEXTS = ["王小明在北京", "", "中文 Abc 12", "我们喜欢这家店。" * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, positions=40)


def hidden_of_transformers(folder: Path, text: str) -> np.ndarray:
    """(T, H), special tokens included."""
    batch = AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[0].numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_those_of_transformers(pooling: str, folder: Path) -> None:
    extract = wenmai.pipeline("feature-extraction", model=str(folder), pooling=pooling)
    vectors = extract.vectors(TEXTS)
    for text, vector_H, record in zip(TEXTS, vectors, extract(TEXTS), strict=True):
        hidden_TH = hidden_of_transformers(folder, text)
        expected = {"mean": hidden_TH.mean(axis=0), "cls": hidden_TH[0], "last": hidden_TH[-1]}[pooling]
        np.testing.assert_allclose(vector_H, expected, atol=2e-6)
        np.testing.assert_allclose(record["embedding"], expected, atol=3e-6)
        assert record["text"] == text


def test_tokens_come_with_their_characters(folder: Path) -> None:
    text = "王小明👨‍👩‍👧 Abc北京"
    found = FeatureExtractor(folder, tokens=True)({"text": text, "id": 3})
    assert found["id"] == 3
    assert all(text[token["start"] : token["end"]] == token["text"] != "" for token in found["tokens"])
    assert [token["text"] for token in found["tokens"]][:3] == ["王", "小", "明"]

    found = FeatureExtractor(folder, tokens=True)("王小明 Abc北京")
    hidden_TH = hidden_of_transformers(folder, "王小明 Abc北京")
    np.testing.assert_allclose(found["tokens"][0]["embedding"], hidden_TH[1], atol=3e-6)
    np.testing.assert_allclose(found["tokens"][-1]["embedding"], hidden_TH[-2], atol=3e-6)


def test_long_texts_are_read_to_their_end(folder: Path) -> None:
    text = "我们喜欢这家店。" * 30
    (found,) = FeatureExtractor(folder, tokens=True, pooling="last")([text])
    assert [token["start"] for token in found["tokens"]] == list(range(len(text)))
    other = FeatureExtractor(folder, pooling="last")(text[:-1] + "！")
    assert found["embedding"] != other["embedding"]


def test_unit_length_and_what_else_is_asked(folder: Path) -> None:
    vectors = FeatureExtractor(folder, normalize=True).vectors(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert FeatureExtractor(folder).vectors([]).shape == (0, 32)
    with pytest.raises(UserError, match="not for 7"):
        FeatureExtractor(folder)([7])


def test_a_bundle_is_an_encoder_too(folder: Path, tmp_path: Path) -> None:
    backbone, tokenizer = load_folder(folder)
    task = MaskedLM(MaskedLMConfig(), [])
    tokenizer.normalize = "nfkc"
    save_bundle(tmp_path / "bundle", task, Model(backbone, task.build_head(backbone)), tokenizer)
    opened = FeatureExtractor(tmp_path / "bundle")
    assert opened.tokenizer.normalize == "nfkc"
    np.testing.assert_array_equal(opened.vectors(TEXTS[:1]), FeatureExtractor(folder).vectors(TEXTS[:1]))
