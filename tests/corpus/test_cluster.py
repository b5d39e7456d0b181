"""The same steps in datatrove and in Ray leave the same documents as here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpus.texts import GOOD, made_up, texts_in, write_records
from wenmai.corpus.cluster import datatrove_step, ray_map, steps_of
from wenmai.corpus.running import Job
from wenmai.corpus.settings import CorpusConfig
from wenmai.corpus.verbs import clean
from wenmai.errors import UserError

TEXTS = [*made_up(30), "太短", f"<p>{GOOD}</p>", "This is English, and no more than that.", "哈哈哈" * 20]


@pytest.fixture
def local(tmp_path: Path) -> list[str]:
    given = write_records(tmp_path / "in.jsonl", TEXTS)
    clean(Job([str(given)], tmp_path / "out.jsonl"), CorpusConfig())
    return texts_in(tmp_path / "out.jsonl")


def test_batches_of_columns(local: list[str]) -> None:
    batch = {"text": np.array(TEXTS, object), "n": np.arange(len(TEXTS))}
    found = ray_map(steps_of(CorpusConfig()))(batch)
    kept = [text for text, reason in zip(found["text"], found["reason"], strict=True) if not reason]
    assert kept == local
    assert found["reason"].tolist()[-3:] == ["", "not_chinese", "frequent_run"]
    assert found["n"].tolist() == list(range(len(TEXTS)))


@pytest.mark.slow
def test_ray_data(local: list[str]) -> None:
    ray = pytest.importorskip("ray", reason="needs wenmai[ray]")
    pytest.importorskip("ray.data", reason="needs wenmai[ray]")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"text": text} for text in TEXTS])
        found = rows.map_batches(ray_map(steps_of(CorpusConfig()))).take_all()
    finally:
        ray.shutdown()
    assert sorted(row["text"] for row in found if not row["reason"]) == sorted(local)


def test_datatrove(local: list[str]) -> None:
    data = pytest.importorskip("datatrove.data", reason="needs wenmai[datatrove]")
    step = datatrove_step(steps_of(CorpusConfig()))
    given = [data.Document(text=text, id=str(i)) for i, text in enumerate(TEXTS)]
    assert [document.text for document in step.run(iter(given))] == local
    assert step.stats["dropped_too_short"].total == 1


def test_what_a_cluster_can_not_do_is_told() -> None:
    config = CorpusConfig.model_validate({"clean": {"quality": {"good": ["a"]}}})
    with pytest.raises(UserError, match=r"append wenmai\.corpus\.quality\.load"):
        steps_of(config)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datatrove.pipeline.base", None)
    with pytest.raises(UserError, match=r"wenmai\[datatrove\]"):
        datatrove_step([])
