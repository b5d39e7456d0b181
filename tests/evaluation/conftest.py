"""Run folders that the tests of reports only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import classification_pairs, ner_pairs, write_run


@pytest.fixture(scope="session")
def ner_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "实体", *ner_pairs())


@pytest.fixture(scope="session")
def reviews_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "reviews", *classification_pairs())
