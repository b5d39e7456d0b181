"""The report in a real browser, used as a reader would use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from handmade import NER, ner_pairs, write_run

from wenmai.evaluation.report import write_report

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = CHECKOUT / ".browser" / "node_modules"


def look_at(page: Path) -> dict[str, Any]:
    """What a browser shows of the page: see ``report_page.cjs``."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser or not shutil.which("node"):
        pytest.skip("needs chromium and node on the path")
    if not (MODULES / "playwright-core").is_dir():
        pytest.skip("needs `npm install --prefix .browser playwright-core` in the checkout")
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("report_page.cjs")), str(page), browser],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="module")
def page(ner_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([ner_run], tmp_path_factory.mktemp("browser") / "report.html")


@pytest.fixture(scope="module")
def seen(page: Path) -> dict[str, Any]:
    return look_at(page)


def test_the_console_stays_empty_and_nothing_is_fetched(seen: dict[str, Any], page: Path) -> None:
    assert seen["complaints"] == []
    assert [url for url in seen["requests"] if not url.startswith("data:")] == [f"file://{page}"]


def test_texts_are_shown_as_they_are(seen: dict[str, Any]) -> None:
    wrong_first = [NER[line - 1][0] for line in seen["all"]]
    assert seen["texts"] == wrong_first


def test_marked_characters_are_the_surface_of_the_span(seen: dict[str, Any]) -> None:
    """Nested spans, and spans behind characters that take two UTF-16 units."""
    for line, spans in zip(seen["all"], seen["spans"], strict=True):
        text, gold, predicted = NER[line - 1]
        expected = {
            (start, end, label): ("✓" if span in predicted else "−")
            if (span := (start, end, label)) in gold
            else "+"
            for start, end, label in [*gold, *predicted]
        }
        assert sorted((span["label"], span["lit"]) for span in spans) == sorted(
            (f"{mark} {label}", text[start:end]) for (start, end, label), mark in expected.items()
        )
        assert all(span["listed"] == span["lit"] for span in spans)


def test_filters_choose(seen: dict[str, Any]) -> None:
    assert seen["atFirst"] == [2, 3]  # only errors
    assert seen["all"] == [2, 3, 1, 4, 5] and seen["count"] == "5 examples"
    assert seen["wrongBoundary"] == [3]
    assert seen["afterReset"] == [2, 3]
    assert seen["organisations"] == [2, 4]
    assert seen["long"] == [3]
    assert seen["known"] == [1]
    assert seen["search"] == [2]
    assert seen["nowhere"] == "0 examples"
    assert seen["byKeyboard"] == [2, 3]


def test_pointing_at_a_span_lights_it_in_the_text(seen: dict[str, Any]) -> None:
    assert seen["lit"] == ["王小明"]


def test_chinese_is_drawn_and_not_hollow(seen: dict[str, Any]) -> None:
    assert seen["glyphs"] == 4  # three characters and a hollow box: four different pictures


def test_a_narrow_screen_scrolls_only_downwards(seen: dict[str, Any]) -> None:
    assert seen["overflow"] == 0


def test_pages_turn(tmp_path: Path) -> None:
    task, examples, predictions = ner_pairs()
    seen = look_at(
        write_report(
            [write_run(tmp_path / "many", task, examples * 15, predictions * 15)], tmp_path / "report.html"
        )
    )
    assert seen["pages"] == ["Page 1 of 2", "Page 2 of 2"]
    assert len(seen["atFirst"]) == 20 and len(seen["second"]) == 10
    assert not set(seen["atFirst"]) & set(seen["second"])
