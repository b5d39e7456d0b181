"""What all tests share: where the real data is, one thread, no network, and how files are shared out to workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

SLOWEST = (
    "training/test_parallel.py",
    "tasks/test_life_cycle.py",
    "training/test_launch.py",
    "training/test_every_option.py",
    "test_readme.py",
    "training/test_crash.py",
    "training/test_resume.py",
    "experiments/test_tuning.py",
)
"""Files that take long. They come first: at the end one worker would have to wait for another."""

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real corpora beside the checkout (../shared/data)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {CHECKOUT / "tests" / name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(SLOWEST)))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under ``-n`` every file goes to one worker as a whole, so that the models which its tests share are made once."""
    from xdist.scheduler import LoadFileScheduling

    if config.getvalue("dist") != "load":
        return None
    config.option.loadscopereorder = False  # the order is that of the collection
    return LoadFileScheduling(config, log)
