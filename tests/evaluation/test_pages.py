"""Pages drawn with their fields: from predictions of the command line, and in the report."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, layout_records
from wenmai.backbones.load import load_folder
from wenmai.bundle import save_bundle
from wenmai.cli import main
from wenmai.errors import UserError
from wenmai.evaluation.cases import as_case
from wenmai.evaluation.evaluate import evaluate
from wenmai.evaluation.pages import first_pages, is_page, page_figure, write_page
from wenmai.evaluation.report import save_figures, write_report
from wenmai.tasks.document_layout import DocumentLayout, DocumentLayoutConfig
from wenmai.tasks.layout_example import DocumentLayoutExample
from wenmai.tasks.model import build_model

LINE: dict[str, Any] = {
    "text": "姓名：王明",
    "width": 200,
    "height": 100,
    "words": [
        {"text": "姓名：", "start": 0, "end": 3, "box": [10, 10, 60, 30]},
        {"text": "王明", "start": 3, "end": 5, "box": [80, 10, 120, 30]},
        {"text": "", "start": 5, "end": 5, "box": [80, 50, 120, 60]},
    ],
    "entities": [
        {"start": 0, "end": 3, "label": "问题", "text": "姓名：", "words": [0], "box": [10, 10, 60, 30]},
        {"start": 3, "end": 5, "label": "回答", "text": "王明", "words": [1], "box": [80, 10, 120, 30]},
    ],
    "links": [{"key": 0, "value": 1, "score": 0.9}],
}


def test_words_fields_and_links_stand_in_their_places() -> None:
    figure = page_figure(LINE)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["姓名：", "王明"]
    assert axes.texts[1].get_position() == (100, 20)
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(frame.get_xy(), frame.get_width()) for frame in frames[::2]] == [((10, 10), 50), ((80, 10), 40)]
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == 1
    assert axes.get_ylim() == (100, 0)  # from the top
    legend = axes.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["回答", "问题"]


def test_missed_fields_are_dashed() -> None:
    def dashed(line: dict[str, Any]) -> int:
        return sum(patch.get_linestyle() == "--" for patch in page_figure(line).axes[0].patches)

    gold = [{"words": [0], "label": "问题"}, {"words": [1], "label": "问题"}]
    assert (dashed(LINE), dashed({**LINE, "gold": {"entities": gold}})) == (0, 1)
    assert not page_figure({**LINE, "entities": [], "links": []}).axes[0].patches


def test_a_case_is_right_if_fields_and_links_are() -> None:
    fields = [{key: entity[key] for key in ("start", "end", "label", "words")} for entity in LINE["entities"]]
    right = as_case({**LINE, "gold": {"entities": fields, "links": [{"key": 0, "value": 1}]}}, 1)
    assert (right["right"], right["kinds"], right["predicted"]) == (True, [], "(姓名： → 王明)")
    turned = as_case({**LINE, "gold": {"entities": fields[::-1], "links": [{"key": 0, "value": 1}]}}, 1)
    assert (turned["right"], turned["kinds"]) == (False, ["missed link", "spurious link"])
    assert turned["gold"] == "(王明 → 姓名：)"
    missed = as_case({**LINE, "links": [], "gold": {"entities": fields[:1], "links": []}}, 1)
    assert (missed["right"], missed["kinds"], missed["gold"]) == (False, ["spurious"], "(no link)")
    assert as_case(LINE, 1)["right"] is None


def test_pages_are_told_from_other_predictions() -> None:
    assert is_page(LINE) and not is_page({"text": "a", "entities": []})
    assert first_pages(iter([LINE, {**LINE, "words": []}, LINE, LINE]), 2) == [LINE, LINE]
    assert first_pages(iter([{"text": "a", "label": "b"}, LINE]), 2) == []
    with pytest.raises(UserError, match="--pages: draws the pages of document_layout"):
        write_page({"text": "a", "label": "b"}, Path("nowhere"), 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout")
    backbone = tiny_backbone_folder(folder / "backbone", texts=ALL_TEXTS)
    examples = [DocumentLayoutExample.model_validate(record) for record in layout_records()]
    config = DocumentLayoutConfig()
    task = DocumentLayout(config, DocumentLayout.collect_labels(config, examples))
    save_bundle(folder / "bundle", task, *build_model(task, *load_folder(backbone)))
    evaluate(folder / "bundle", examples[:4], output=folder / "run", resamples=3)
    return folder


def test_the_report_draws_the_first_pages(bundle: Path, tmp_path: Path) -> None:
    page = write_report([bundle / "run"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The first pages" in page and page.count("page 3 of run") == 1 and "page 4 of run" not in page
    assert {"page_1.svg", "page_3.png"} <= {
        path.name for path in save_figures(bundle / "run", tmp_path / "figures")
    }


def test_predict_draws_every_page(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "pages.jsonl"
    records = [{key: record[key] for key in ("words", "width", "height")} for record in layout_records()[:2]]
    asked.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert main(["predict", str(bundle / "bundle"), str(asked), "--pages", str(tmp_path / "drawn")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["page-1.svg", "page-2.svg"]
    for path in drawn:
        tree = ElementTree.parse(path)
        # outlines, not characters that another machine has no font for
        assert tree.getroot().tag.endswith("svg") and not tree.findall(".//{http://www.w3.org/2000/svg}text")
