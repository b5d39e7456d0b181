from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from handmade import NER

from wenmai.errors import UserError
from wenmai.evaluation.report import save_figures, write_report


class Page(HTMLParser):
    """Elements that load something, ids, and the text that is shown."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.shown: list[str] = []
        self.inside: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inside.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            if name in values and not values[name].startswith(("#", "data:")):
                self.loads.append(f"{tag} {values[name]}")

    def handle_data(self, data: str) -> None:
        if self.inside[-1:] not in (["script"], ["style"]):
            self.shown.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.shown))

    @property
    def data(self) -> list[dict[str, object]]:
        found = re.search(
            r'<script type="application/json" id="cases">(.*?)</script>', self.source, re.DOTALL
        )
        assert found
        loaded: list[dict[str, object]] = json.loads(found[1])
        return loaded


@pytest.fixture(scope="module")
def page(ner_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report([ner_run], tmp_path_factory.mktemp("page") / "report.html"))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert page.loads == []
    assert not re.search(r"@import|url\((?!#|[\"']?data:)", page.source)
    assert len(page.ids) == len(set(page.ids))


def test_headline_figures_are_those_of_the_file(page: Page, ner_run: Path) -> None:
    metrics = json.loads((ner_run / "evaluation/test/metrics.json").read_text())
    low, high = metrics["f1_interval"]
    assert f"f1 {metrics['f1']:.3f} {low:.3f}–{high:.3f}" in page.text
    assert "5 examples of test (test.jsonl)" in page.text
    assert "2 labels of the data are beyond the model" in page.text
    assert "550 (median)" in page.text  # tokens per second 100 ... 1000
    assert "小模型" in page.text and "dev.jsonl" in page.text


def test_texts_cannot_break_out_of_the_data(page: Page) -> None:
    (chosen,) = page.data
    cases = chosen["cases"]
    assert isinstance(cases, list)
    assert {case["texts"][0][1] for case in cases} == {text for text, _, _ in NER}
    assert page.source.count("</script>") == 2


def test_every_part_is_there(page: Page) -> None:
    for title in ("Training", "By length of the text", "By entity", "By label", "Confusion and confidence"):
        assert f"<h2>{title}</h2>" in page.source
    assert page.source.count("<svg ") == 7


def test_figures_follow_the_theme(page: Page) -> None:
    for svg in re.findall(r"<svg .*?</svg>", page.source, re.DOTALL):
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert 'role="img"' in svg and "aria-label=" in svg


def test_runs_side_by_side(ner_run: Path, reviews_run: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / ner_run.name
    shutil.copytree(ner_run, twin)
    metrics = twin / "evaluation/test/metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "f1": 0.999}))
    page = Page(write_report([ner_run, twin, reviews_run], tmp_path / "all.html"))
    assert [chosen["name"] for chosen in page.data] == [
        f"{ner_run} · test",
        f"{twin} · test",
        "reviews · test",
    ]
    assert re.findall(r'<td class="best">([\d.]+)', page.source) == ["0.999"]
    assert len(page.ids) == len(set(page.ids))


def test_missing_parts_name_the_command(ner_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "fresh"
    run.mkdir()
    shutil.copy(ner_run / "log.jsonl", run)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert f"wenmai evaluate {run} DATA" in page.text
    assert "By label" not in page.source and page.data == []
    shutil.copytree(ner_run / "evaluation", run / "evaluation")
    (run / "log.jsonl").unlink()
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "wenmai train CONFIG" in page.text and "By label" in page.source


def test_what_has_nothing_to_set_beside_it_is_told(ner_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "short"
    shutil.copytree(ner_run, run)
    path = run / "evaluation" / "test" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["slices"]["length"] = {"0-50": metrics["slices"]["length"]["0-50"]}
    path.write_text(json.dumps(metrics))
    events = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join(event for event in events if '"step": 10' not in event) + "\n")
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "All texts are in one slice: 0-50 characters; wenmai evaluate cuts elsewhere" in page.text
    assert "by length of short" not in page.source
    assert "Thin: every logged step; bold: moving average." in page.text and "The ring marks" not in page.text


def test_what_one_of_several_tasks_finds_is_called_by_its_name(ner_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "several"
    shutil.copytree(ner_run, run)
    (run / "config.yaml").write_text("tasks: {s: {task: {name: slot_filling}}}\n")
    path = run / "evaluation" / "test" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "slot_filling", "part": "s"}))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "By slot" in page.text and "number of gold slots" in page.text and "By entity" not in page.text


def test_a_half_written_log_line_is_left_out(ner_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    shutil.copytree(ner_run, run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    assert write_report([run], tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("evaluation/test/metrics.json", "{"),
        ("evaluation/test/metrics.json", '{"primary_metric": "f1"}'),
        ("evaluation/test/metrics.json", "[]"),
        ("evaluation/test/predictions.jsonl", "{}\n{\n"),
        ("config.yaml", "a: [1\n"),
    ],
)
def test_damaged_files_are_named(ner_run: Path, tmp_path: Path, file: str, content: str) -> None:
    run = tmp_path / "damaged"
    shutil.copytree(ner_run, run)
    (run / file).write_text(content)
    with pytest.raises(UserError, match=Path(file).name):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(UserError, match="is no run"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="at least one"):
        write_report([], tmp_path / "report.html")


def test_figures_as_files(ner_run: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    (figures / "own").mkdir(parents=True)
    (figures / "own" / "notes.txt").write_text("keep me")
    (figures / "labels.png").write_text("an old one")
    files = save_figures(ner_run, figures)
    names = [
        "learning_curves",
        "by_length",
        "by_entity_length",
        "by_seen",
        "labels",
        "confusion",
        "calibration",
    ]
    assert sorted(path.stem for path in files if path.suffix == ".png") == sorted(names)
    assert all(path.stat().st_size > 1000 for path in files) and len(files) == 14
    # the folder may hold anything: nothing of it is thrown away
    assert (figures / "own" / "notes.txt").read_text() == "keep me"
    assert sorted(figures.iterdir()) == sorted([*files, figures / "own"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        save_figures(ner_run, tmp_path / "file")
