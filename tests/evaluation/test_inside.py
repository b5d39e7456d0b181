"""What was seen inside a model, drawn: the section of the report and its figures."""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from test_report import Page
from test_report_browser import look_at

from wenmai.errors import UserError
from wenmai.evaluation.canvas import to_svg
from wenmai.evaluation.inside import attention_heatmap, histogram_heatmap, short_name
from wenmai.evaluation.report import save_figures, write_report
from wenmai.training.inspection import Attention, Inspection, ModuleRecord, Units, Values

LAYER = "backbone.model.encoder.layer.{}.intermediate.intermediate_act_fn"


def values(*numbers: float) -> Values:
    found = Values()
    found.add(torch.tensor(numbers))
    return found


def seen(layers: int = 2, *, broken: bool = False) -> dict[str, Any]:
    """Two layers: in the first, unit 1 of 3 is dead; head 1 of the second looks at one token only."""
    inspection = Inspection(steps=1, tokens=40)
    for layer in range(layers):
        units = Units("soft")
        units.add(torch.tensor([[0.5, 0.0 if layer == 0 else 0.3, -0.1]]))
        outputs = values(0.5, 0.75, 0.0, -1.5, *([math.nan] if broken else []))
        name = LAYER.format(layer)
        step = {"output_gradient_norm": 0.25, "weight_gradient_norm": None}
        inspection.modules[name] = ModuleRecord(name, "GELU", [step], outputs, values(1e-3, -2e-3), units)
        attention = inspection.attention[layer] = Attention()
        uniform, hard = torch.full((4, 4), 0.25), torch.eye(4)
        attention.add(torch.stack([uniform, hard if layer else uniform])[None], torch.ones(1, 4))
    return inspection.to_json(examples=7, data="<dev>", task="ner", backward=True)


@pytest.fixture
def run(ner_run: Path, tmp_path: Path) -> Path:
    """A run that was looked into but never evaluated."""
    folder = tmp_path / "looked-into"
    folder.mkdir()
    shutil.copy(ner_run / "log.jsonl", folder)
    (folder / "inspection.json").write_text(json.dumps(seen()), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_section_is_there_with_its_numbers(run: Path, tmp_path: Path) -> None:
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "<h2>Inside the model</h2>" in page.source
    assert page.source.count("<svg ") == 1 + 3
    assert "Seen on 7 examples of <dev> (40 tokens)" in page.text
    assert len(page.ids) == len(set(page.ids)) and page.loads == []
    (row,) = re.findall(r"<tr><th scope=row>[^<]*layer\.0[^<]*</th>(<td>3</td>.*?)</tr>", page.source)
    assert re.findall(r"<td>(.*?)</td>", row) == ["3", "1", "33.3%", "1"]
    # mean, std, min, max, zeros, non-finite, gradients of the output and of no weights
    (row,) = re.findall(r"<tr><th scope=row>[^<]*layer\.1[^<]*</th>(.*?)</tr>", page.source)
    assert re.findall(r"<td>(.*?)</td>", row) == [
        "-0.0625",
        "0.873",
        "-1.5",
        "0.75",
        "0.25",
        "0",
        "0.25",
        "–",
    ]
    assert "Infinite" not in page.text


def test_what_is_no_number_is_shouted(run: Path, tmp_path: Path) -> None:
    (run / "inspection.json").write_text(json.dumps(seen(broken=True)), encoding="utf-8")
    page = Page(write_report([run], tmp_path / "report.html"))
    assert f"no numbers at all in {LAYER.format(0)}, {LAYER.format(1)}." in page.text


def test_without_dead_units_it_says_so(run: Path, tmp_path: Path) -> None:
    content = seen()
    content["modules"] = content["modules"][1:]
    (run / "inspection.json").write_text(json.dumps(content), encoding="utf-8")
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "None of the 3 units of 1 activation functions is dead." in page.text


def test_without_a_look_there_is_no_section(run: Path, tmp_path: Path) -> None:
    (run / "inspection.json").unlink()
    assert "Inside the model" not in Page(write_report([run], tmp_path / "report.html")).source


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"histogram_octaves": [0, 1], "modules": [{}]}'])
def test_a_damaged_file_is_named(run: Path, tmp_path: Path, content: str) -> None:
    (run / "inspection.json").write_text(content)
    with pytest.raises(UserError, match=r"inspection\.json: can't be used .* run `wenmai inspect` again"):
        write_report([run], tmp_path / "report.html")


def test_figures_as_files(run: Path, tmp_path: Path) -> None:
    names = {path.name for path in save_figures(run, tmp_path / "figures")}
    assert {"activations.png", "gradients.svg", "attention.png"} <= names


def test_a_row_shows_where_the_values_lie() -> None:
    content = seen(layers=1)
    figure = histogram_heatmap(content, "outputs")
    axes = figure.axes[0]
    (mesh,) = axes.collections
    shown = np.ma.filled(mesh.get_array().reshape(1, -1), 0.0)[0]
    # columns: -[1,2)  -[1/2,1)  0  [1/2,1)  [1,2); two of four values are in [1/2, 1)
    assert shown.tolist() == [0.5, 0.0, 0.5, 1.0, 0.0]
    ticks = dict(zip([t.get_text() for t in axes.get_xticklabels()], axes.get_xticks().tolist(), strict=True))
    assert ticks["0"] == 2.5
    assert ticks["1"] == 4 and ticks["-1"] == 1  # where the columns of 1 and -1 begin, seen from 0


def test_attention_bears_its_numbers() -> None:
    figure = attention_heatmap(seen()["attention"])
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["1.00", "1.00", "1.00", "0.00"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1"]


def test_figures_have_no_text_that_needs_a_font() -> None:
    for figure in (histogram_heatmap(seen(), "gradients"), attention_heatmap(seen()["attention"])):
        assert "<text" not in to_svg(figure)
        assert all(text.get_text() != "" for text in figure.findobj(Text) if text in figure.axes[0].texts)


def test_long_names_keep_their_end() -> None:
    assert short_name("backbone.model.encoder.layer.0") == "layer.0"
    shown = short_name("backbone.model.encoder.layer.11.attention.output.LayerNorm.some.more")
    assert len(shown) == 40 and shown.startswith("…") and shown.endswith("LayerNorm.some.more")


def test_in_a_real_browser(run: Path, ner_run: Path, tmp_path: Path) -> None:
    shutil.copytree(ner_run / "evaluation", run / "evaluation")
    page = write_report([run], tmp_path / "report.html")
    found = look_at(page)
    assert found["complaints"] == [] and found["overflow"] == 0
    assert [url for url in found["requests"] if not url.startswith("data:")] == [f"file://{page}"]
