"""The classifier tells good from raw text, the keep rule is GPT-3's, and draws belong to texts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from corpus.texts import made_up, texts_in, write_records
from wenmai.corpus import quality
from wenmai.corpus.documents import Document, draw
from wenmai.corpus.running import Job
from wenmai.corpus.settings import CorpusConfig
from wenmai.corpus.verbs import clean
from wenmai.errors import UserError

pytest.importorskip("sklearn")

BAD_WORDS = ("最新优惠价", "点我领红包", "加微信送礼", "全场包邮啦")

PHRASES = made_up(40, length=13, seed=99)
"""Good texts are made of these."""


def raw_texts(seed: int, count: int = 80) -> tuple[list[str], list[str]]:
    """Texts like the good ones, and advertisements."""
    rng = random.Random(seed)
    good = ["".join(rng.sample(PHRASES, 5)) for _ in range(count)]
    bad = ["，".join(rng.choices(BAD_WORDS, k=3)) + text[:30] for text in made_up(count, seed=seed + 1)]
    return good, bad


@pytest.fixture(scope="module")
def model() -> quality.QualityModel:
    good, bad = raw_texts(1)
    return quality.train(
        raw_texts(50)[0], [*good, *bad], buckets=1 << 12, regularization=10.0, alpha=9.0, seed=7
    )


def test_good_text_scores_higher(model: quality.QualityModel) -> None:
    good, bad = raw_texts(20)
    scores = [[model.score(text) for text in texts] for texts in (good, bad)]
    assert min(scores[0]) > max(scores[1])


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    good, bad = raw_texts(3, 20)
    model = quality.train(good, bad, buckets=256, regularization=2.0, alpha=1.0, seed=0)
    rows = np.zeros((40, 256))
    for row, text in zip(rows, [*good, *bad], strict=True):
        buckets, values = quality.features(text, 256)
        row[buckets] = values
    fitted = LogisticRegression(C=2.0, class_weight="balanced", max_iter=200).fit(rows, [1] * 20 + [0] * 20)
    ours = [model.score(text) for text in (*good, *bad)]
    assert ours == pytest.approx(fitted.predict_proba(rows)[:, 1], abs=1e-3)


def test_features_are_counts_of_runs() -> None:
    buckets, values = quality.features("一二一", 1 << 40)
    # one of: 一 twice, 二, 一二, 二一, 一二一
    assert sorted((values**2 * 6).round(6).tolist()) == [1, 1, 1, 1, 2] and len(buckets) == 5


@pytest.mark.parametrize("score", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("alpha", [1.0, 9.0])
def test_the_keep_rule_keeps_as_many_as_the_paper(score: float, alpha: float) -> None:
    uniforms = [draw(0, "test", str(i)) for i in range(4000)]
    kept = np.mean([quality.keeps(score, alpha, uniform) for uniform in uniforms])
    drawn = np.random.default_rng(0).pareto(alpha, 200_000)
    assert kept == pytest.approx((drawn > 1 - score).mean(), abs=0.03)


def test_a_saved_classifier_is_the_same(model: quality.QualityModel, tmp_path: Path) -> None:
    quality.save(model, tmp_path / "m.safetensors")
    loaded = quality.load(tmp_path / "m.safetensors")
    assert (loaded.bias, loaded.alpha, loaded.seed) == (model.bias, model.alpha, model.seed)
    texts = made_up(20, seed=70)
    assert [loaded(Document(text)) for text in texts] == [model(Document(text)) for text in texts]


def test_a_sample_does_not_depend_on_the_order() -> None:
    documents = [Document(text) for text in made_up(100)] * 2
    backward = quality.sampled(reversed(documents), 10, 5)
    assert quality.sampled(documents, 10, 5) == backward and len(set(backward)) == 10
    assert quality.sampled(documents, 10, 6) != backward
    assert len(quality.sampled(documents, 1000, 5)) == 100


def test_cleaning_leaves_out_what_is_bad(tmp_path: Path) -> None:
    good, bad = raw_texts(30)
    write_records(tmp_path / "in.jsonl", [*good, *bad])
    write_records(tmp_path / "good.jsonl", raw_texts(60)[0])
    tree = {
        "quality": {
            "good": [str(tmp_path / "good.jsonl")],
            "buckets": 4096,
            "regularization": 10,
            "alpha": 4,
        }
    }
    config = CorpusConfig.model_validate({"clean": tree})
    job = Job([str(tmp_path / "in.jsonl")], tmp_path / "out.jsonl", chunk_bytes=4000, processes=2)
    report = clean(job, config)
    kept = set(texts_in(tmp_path / "out.jsonl"))
    # a raw text like the good ones has a score of at most 2/3: by the rule 1 in 3 stays; of score 0, 1 in 16
    assert 2 * len(kept & set(bad)) < len(kept & set(good))
    assert set(report["total"]["dropped"]) == {"low_quality"}


def test_nothing_to_learn_from_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no good text is left to learn from"):
        quality.train([], ["一"], buckets=16, regularization=1, alpha=1, seed=0)
