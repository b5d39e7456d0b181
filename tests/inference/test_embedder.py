"""Vectors as arrays, and whitening: its formula, its bundle, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import wenmai
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, scored_pair_records, write_jsonl
from wenmai.cli import main
from wenmai.errors import UserError
from wenmai.inference.embedder import Embedder, open_embedder
from wenmai.inference.whitening import Moments, fit_whitening, save_embedder, whitening_matrix
from wenmai.tasks.embedding_example import TextEmbeddingConfig

TEXTS = sorted({text for record in scored_pair_records() for text in (record["text"], record["text_pair"])})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, hidden_size=16)


def embedder(folder: Path, **settings: object) -> Embedder:
    return open_embedder(folder, TextEmbeddingConfig.model_validate(settings), device="cpu")


def cosines(vectors_ND: np.ndarray) -> np.ndarray:
    unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return unit_ND @ unit_ND.T


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_of_an_encoder_are_those_of_feature_extraction(pooling: str, folder: Path) -> None:
    texts = [*TEXTS, "", *TEXTS[:2]]
    found = embedder(folder, pooling=pooling).vectors(texts)
    extract = wenmai.pipeline("feature-extraction", model=str(folder), pooling=pooling, normalize=True)
    np.testing.assert_allclose(found, extract.vectors(texts), atol=2e-6)
    assert embedder(folder).vectors([]).shape == (0, 16)


def test_prefix_length_and_width_count(folder: Path) -> None:
    text = "王小明昨天去了北京开会"
    whole = embedder(folder).vectors([text])
    prefixed = embedder(folder, prefix="北京").vectors([text])
    np.testing.assert_allclose(prefixed, embedder(folder).vectors(["北京" + text]), atol=1e-6)
    short = embedder(folder, max_length=8)
    np.testing.assert_allclose(short.vectors([text]), embedder(folder).vectors([text[:6]]), atol=1e-6)
    narrow = embedder(folder, width=4)
    assert narrow.width == 4
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4])
    np.testing.assert_allclose(narrow.vectors([text]), expected, atol=1e-6)
    with pytest.raises(UserError, match="reads 512 tokens at most, 600 were asked for"):
        embedder(folder, max_length=600)


def test_moments_in_blocks_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    vectors_ND = (rng.normal(size=(101, 5)) @ rng.normal(size=(5, 5)) + 1000).astype(np.float32)
    moments = Moments(5)
    for start, stop in ((0, 1), (1, 50), (50, 101)):
        moments.add(vectors_ND[start:stop])
    exact_ND = vectors_ND.astype(np.float64)
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean_D, exact_ND.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(exact_ND.T, bias=True), rtol=1e-9)


def test_whitening_is_the_formula_of_the_paper(folder: Path) -> None:
    made = embedder(folder)
    plain_ND = np.concatenate(list(made.blocks(TEXTS, plain=True))).astype(np.float64)
    mean_D = plain_ND.mean(axis=0)
    u, s, _ = np.linalg.svd(np.cov(plain_ND.T, bias=True))
    for width in (10, 3):
        # signs of eigenvectors do not show in cosines
        expected = cosines((plain_ND - mean_D) @ (u @ np.diag(1 / np.sqrt(s)))[:, :width])
        assert fit_whitening(made, iter(TEXTS), width=width) == len(TEXTS)
        found = made.vectors(TEXTS)
        assert found.shape == (len(TEXTS), width) and made.width == width
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(found @ found.T, expected, atol=2e-4)


def test_by_itself_it_keeps_all_directions_that_vary(folder: Path) -> None:
    made = embedder(folder)
    assert len(TEXTS) == 17
    fit_whitening(made, TEXTS)
    assert made.width == 15  # the last LayerNorm takes one away


def test_whitened_vectors_have_covariance_one() -> None:
    rng = np.random.default_rng(0)
    vectors_ND = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    moments = Moments(6)
    moments.add(vectors_ND.astype(np.float32))
    matrix_DK = whitening_matrix(moments.covariance(), 4)
    white_NK = (vectors_ND - vectors_ND.mean(axis=0)) @ matrix_DK
    np.testing.assert_allclose(np.cov(white_NK.T, bias=True), np.eye(4), atol=1e-5)
    kept = np.linalg.eigvalsh(moments.covariance())[::-1][:4]
    np.testing.assert_allclose((matrix_DK**2).sum(axis=0), 1 / kept)  # the largest first


def test_the_verb_writes_a_bundle_that_predicts_and_is_scored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_jsonl(tmp_path / "pairs.jsonl", scored_pair_records()))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*TEXTS, *TEXTS[:3]]), encoding="utf-8")
    out = tmp_path / "white"
    options = ["--output", str(out), "--width", "6", "--evaluate-on", "pairs", "--dev", data]
    assert main(["whiten", str(folder), data, *options]) == 0
    assert f"vectors of 6 numbers, whitened with {len(TEXTS)} texts" in capsys.readouterr().out
    assert not list(out.glob("*.bin")) and not list(out.glob("*.pt")) and not list(out.glob("*.pkl"))

    model = wenmai.load(out)
    found = model((TEXTS[0], TEXTS[1]))
    assert len(found["text_embedding"]) == 6 and isinstance(found["together"], bool)
    again = wenmai.pipeline("sentence-similarity", model=out)((TEXTS[0], TEXTS[1]))
    assert again == found
    made = open_embedder(out, device="cpu")
    np.testing.assert_allclose(made.vectors(TEXTS[:1])[0], found["text_embedding"], atol=2e-6)
    # the encoder inside is as it was
    features = wenmai.pipeline("feature-extraction", model=out).vectors(TEXTS[:2])
    np.testing.assert_allclose(
        features, wenmai.pipeline("feature-extraction", model=str(folder)).vectors(TEXTS[:2]), atol=1e-6
    )
    assert main(["evaluate", str(out), data, "--output", str(tmp_path / "scores")]) == 0
    report = json.loads((tmp_path / "scores/evaluation/test/metrics.json").read_text(encoding="utf-8"))
    assert report["primary_metric"] == "average_precision"
    assert report["accuracy"] == pytest.approx(report["best_threshold_accuracy"])

    capsys.readouterr()
    plain = tmp_path / "plain"
    command = ["whiten", str(folder), str(texts), "--output", str(plain), "--width", "2"]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["texts"], printed["width"]) == (len(TEXTS), 2)
    assert wenmai.load(plain).task.primary_metric == "spearman"
    assert main(command) == 2 and "is there already" in capsys.readouterr().err
    labelled = write_jsonl(tmp_path / "labelled.jsonl", [{"text": text, "label": "x"} for text in TEXTS])
    command = ["whiten", str(folder), str(labelled), "--output", str(tmp_path / "same"), "--width", "2"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == len(TEXTS)
    once_more = open_embedder(plain, device="cpu")
    fit_whitening(once_more, TEXTS, width=5)
    assert once_more.vectors(TEXTS).shape == (len(TEXTS), 5)


def test_what_whitening_refuses(folder: Path, tmp_path: Path) -> None:
    made = embedder(folder)
    with pytest.raises(UserError, match="vary in 2 directions only; give more different texts"):
        fit_whitening(made, ["北京", "上海", "手机"], width=3)
    with pytest.raises(UserError, match="expected 1 to 16"):
        fit_whitening(made, TEXTS, width=17)
    with pytest.raises(UserError, match="3 different texts can't tell how vectors of 16 numbers vary"):
        fit_whitening(made, TEXTS[:3])
    with pytest.raises(UserError, match="there are no texts"):
        fit_whitening(made, [])
    with pytest.raises(UserError, match="vary in 0 directions"):
        fit_whitening(made, ["北京"], width=1)
    assert made.head.matrix_DK is None
    save_embedder(made, tmp_path / "bundle")
    with pytest.raises(UserError, match="is there already"):
        save_embedder(made, tmp_path / "bundle")
    with pytest.raises(UserError, match="has its own pooling"):
        open_embedder(tmp_path / "bundle", TextEmbeddingConfig(pooling="cls"))
    assert torch.equal(
        torch.from_numpy(open_embedder(tmp_path / "bundle", device="cpu").vectors(TEXTS[:3])),
        torch.from_numpy(made.vectors(TEXTS[:3])),
    )
