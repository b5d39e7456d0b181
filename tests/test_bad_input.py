"""Bad input of every kind: exit code 2, one paragraph that names the place and the remedy, no traceback.

Everything goes through the entry of the command line. A case prepares files in an empty folder that has a good
configuration, good data and a tiny backbone, and says which command runs and what its error must hold.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from own_process import Command
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, write_jsonl
from wenmai.cli import main

GOOD = [
    {"text": f"王小明第{i}次去了北京", "entities": [{"start": 0, "end": 3, "label": "人名"}]}
    for i in range(8)
]


@dataclass(frozen=True)
class Case:
    """What is wrong, what is run, and the pieces that its error must hold."""

    name: str
    prepare: Callable[[Path], object]
    says: tuple[str, ...]
    command: str = "train run.yaml"


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def rows(*bad: dict[str, Any], name: str = "train.jsonl") -> Callable[[Path], object]:
    """Good rows with bad ones after the second."""
    return lambda folder: write_jsonl(folder / name, [*GOOD[:2], *bad, *GOOD[2:]])


def lines(*bad: str, name: str = "train.jsonl") -> Callable[[Path], object]:
    good = [json.dumps(row, ensure_ascii=False) for row in GOOD]
    return write(name, "\n".join([*good[:2], *bad, *good[2:]]) + "\n")


def config(**changes: Any) -> Callable[[Path], object]:
    """The good configuration with sections changed."""

    def prepare(folder: Path) -> None:
        tree = json.loads((folder / "run.yaml").read_text(encoding="utf-8"))
        for section, values in changes.items():
            tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
        (folder / "run.yaml").write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")

    return prepare


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [step(folder) for step in steps]


def nothing(folder: Path) -> None:
    pass


def entity(start: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"text": "李建国去了上海", "entities": [{"start": start, "end": end, "label": "人名", **more}]}


def table(content: str | bytes, **data: Any) -> Callable[[Path], object]:
    """A table of texts and labels as training data."""
    return both(
        write("train.csv", content),
        config(task={"name": "text_classification"}, data={"train": "train.csv", "dev": None, **data}),
    )


CLASSES = {"name": "text_classification", "max_length": 64}
MATCHING = {"name": "text_embedding", "objective": "cosent", "max_length": 64}


def scored(score: str) -> Callable[[Path], object]:
    row = '{"text": "甲", "text_pair": "乙", "score": %s}\n'
    return both(
        write("train.jsonl", row % "0.5" + row % score),
        lambda folder: (folder / "run.yaml").write_text(
            json.dumps(
                {
                    "task": MATCHING,
                    "backbone": {"model": "backbone"},
                    "data": {"train": "train.jsonl"},
                    "output": "run",
                }
            )
        ),
    )


DATA_CASES = [
    Case("missing file", config(data={"train": "trian.jsonl"}), ("trian.jsonl", "train.jsonl")),
    Case("missing folder", config(data={"root": "nowhere"}), ("nowhere/train.jsonl: does not exist",)),
    Case("empty file", write("train.jsonl", ""), ("train.jsonl", "is empty")),
    Case(
        "wrong encoding",
        write("train.jsonl", json.dumps(GOOD[0], ensure_ascii=False).encode("gb18030")),
        ("train.jsonl:1", "utf-8", "data.encoding"),
    ),
    Case("unknown encoding", config(data={"encoding": "utf-9"}), ("utf-9", "encoding")),
    Case("truncated JSON", lines('{"text": "李建国去了'), ("train.jsonl:3", "JSON")),
    Case("a list where a record is expected", lines("[1, 2]"), ("train.jsonl:3", "a list")),
    Case("missing field", rows({"txt": "李建国", "entities": []}), ("train.jsonl:3", "text", "txt")),
    Case(
        "wrong type of a field",
        rows({"text": 5, "entities": []}),
        ("train.jsonl:3", "text", "a text is expected"),
    ),
    Case("unlabelled row", rows({"text": "李建国"}), ("train.jsonl:3", "label")),
    Case(
        "span outside the text",
        rows(entity(0, 99)),
        ("train.jsonl:3", "99", "outside the text (7 characters)"),
    ),
    Case("end before start", rows(entity(3, 1)), ("train.jsonl:3", "start 3", "0 <= start < end")),
    Case("negative start", rows(entity(-1, 2)), ("train.jsonl:3", "start -1")),
    Case(
        "surface that is elsewhere",
        rows(entity(0, 2, text="李建国")),
        ("train.jsonl:3", "'李建'", "'李建国'"),
    ),
    Case(
        "entity without a label",
        rows({"text": "上海", "entities": [{"start": 0, "end": 2}]}),
        ("train.jsonl:3", "label"),
    ),
    Case("unknown field of an entity", rows(entity(0, 3, lable="x")), ("train.jsonl:3", "lable")),
    Case("half of an emoji", lines('{"text": "\\ud83d", "entities": []}'), ("train.jsonl:3", "surrogate")),
    Case("NaN score", scored("NaN"), ("train.jsonl:2", "NaN")),
    Case("infinite score", scored("1e999"), ("train.jsonl:2",)),
    Case(
        "unknown label in dev",
        rows({"text": "在上海", "entities": [{"start": 1, "end": 3, "label": "地方"}]}, name="dev.jsonl"),
        ("dev.jsonl:3", "'地方'", "does not occur in the training set"),
    ),
    Case(
        "no entities at all",
        lambda folder: write_jsonl(folder / "train.jsonl", [{"text": "无", "entities": []}] * 3),
        ("the training set has none",),
    ),
    Case(
        "one class only",
        both(
            lambda folder: write_jsonl(folder / "train.jsonl", [{"text": "好", "label": "好"}] * 3),
            config(task=CLASSES, data={"dev": None}),
        ),
        ("at least two labels", "['好']"),
    ),
    Case("duplicate header", table("text,label,text\na,b,c\n"), ("train.csv", "text")),
    Case("wrong column count", table("text,label\n好,好\n坏,坏,坏\n"), ("train.csv:3", "3")),
    Case("missing column", table("review,label\n好,好\n坏,坏\n"), ("train.csv", "text", "review")),
    Case(
        "unknown column",
        table("review,label\n好,好\n坏,坏\n", columns={"text": "reveiw", "label": "label"}),
        ("reveiw", "review"),
    ),
    Case(
        "all rows bad",
        both(lines("{", "}", name="x"), write("train.jsonl", "{\n}\n[\n")),
        ("train.jsonl:1", "train.jsonl:2", "train.jsonl:3"),
    ),
    Case(
        "all rows bad and skipped",
        both(write("train.jsonl", "{\n}\n"), config(data={"on_error": "skip"})),
        ("train.jsonl", "no usable record"),
    ),
    Case(
        "unknown sample",
        config(data={"train": "sample:peoples_dayly/train"}),
        ("peoples_dayly", "sample:peoples_daily/train"),
    ),
    Case(
        "rows that are not there",
        config(data={"train": {"path": "train.jsonl", "rows": [100, 200]}}),
        ("train.jsonl", "rows"),
    ),
    Case(
        "split that leaves nothing",
        config(data={"dev": None, "split": {"dev": 0.6, "test": 0.6}}),
        ("0.6", "training"),
    ),
    Case("brat that is a file", config(data={"format": "brat"}), ("train.jsonl", "brat is a folder")),
]

CONFIG_CASES = [
    Case("missing configuration", nothing, ("nope.yaml: No such file",), "train nope.yaml"),
    Case("unknown key", config(train={"epohcs": 3}), ("run.yaml: train.epohcs", "did you mean 'epochs'")),
    Case(
        "unknown key on the command line",
        nothing,
        ("command line: trian", "did you mean 'train'"),
        "train run.yaml trian.epochs=3",
    ),
    Case(
        "wrong type",
        config(train={"epochs": "many"}),
        ("run.yaml: train.epochs", "expected a number", '"many"'),
    ),
    Case(
        "conflicting keys",
        config(train={"tokens_per_step": 64, "examples_per_step": 4}),
        ("run.yaml: train", "exclude each other"),
    ),
    Case(
        "keys of another task",
        config(task={"pooling": "mean"}),
        ("run.yaml: task.pooling", "allowed: name, max_length, head"),
    ),
    Case("YAML syntax", write("run.yaml", "task: {name: ner\noutput: x\n"), ("run.yaml:2", "not YAML")),
    Case("duplicate YAML key", write("run.yaml", "seed: 1\noutput: x\nseed: 2\n"), ("run.yaml:3", "line 1")),
    Case("unknown task", config(task={"name": "nerr"}), ("run.yaml: task.name", "did you mean 'ner'")),
    Case(
        "nested entities with one tag a token",
        config(task={"nested": True}),
        ("run.yaml: task", "global_pointer"),
    ),
    Case(
        "unknown metric",
        config(train={"metric_for_best_model": "f2"}),
        ("metric_for_best_model", "'f2'", "f1"),
    ),
    Case("more tokens than positions", config(task={"max_length": 1024}), ("task.max_length", "512")),
    Case("unknown verb", nothing, ("No such command 'trian'",), "trian run.yaml"),
    Case("unknown option", nothing, ("No such option",), "train run.yaml --overwrit"),
    Case("a value without a key", nothing, ("command line: 5", "expected key=value"), "train run.yaml 5"),
]

BACKBONE_CASES = [
    Case("unknown backbone folder", config(backbone={"model": "./backbon"}), ("./backbon",)),
    Case(
        "hub that is out of reach",
        config(backbone={"model": "some-owner/some-model"}),
        ("some-owner/some-model", "HF_HUB_OFFLINE"),
    ),
    Case(
        "backbone without weights",
        lambda folder: (folder / "backbone" / "model.safetensors").unlink(),
        ("backbone", "model.safetensors"),
    ),
    Case("backbone with fewer layers", config(backbone={"layers": 9}), ("9", "2")),
]

OUTPUT_CASES = [
    Case("existing run", write("run/config.yaml", "{}"), ("run", "--resume", "--overwrite")),
    Case(
        "existing folder of another kind",
        write("run/notes.txt", "x"),
        ("run", "--overwrite leaves it alone"),
        "train run.yaml --overwrite",
    ),
    Case("output that is a file", write("run", "x"), ("run", "is a file", "set output")),
    Case(
        "output below a file",
        both(write("plain", "x"), config(output="plain/run")),
        ("plain/run", "can't be made", "set output"),
    ),
    Case(
        "init into a file that is there",
        nothing,
        ("run.yaml", "is there already"),
        "init ner --output run.yaml",
    ),
    Case(
        "init below a file",
        nothing,
        ("train.jsonl/x.yaml", "can't be written"),
        "init ner --output train.jsonl/x.yaml",
    ),
    Case("init of an unknown task", nothing, ("'nerr'", "did you mean 'ner'"), "init nerr"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good configuration, data and backbone, and in ``trained`` a run."""
    folder = tmp_path_factory.mktemp("good")
    tiny_backbone_folder(folder / "backbone", texts=ALL_TEXTS)
    write_jsonl(folder / "train.jsonl", GOOD)
    write_jsonl(folder / "dev.jsonl", GOOD)
    tree = {
        "task": {"name": "ner", "max_length": 64, "window_overlap": 8},
        "backbone": {"model": "./backbone"},
        "data": {"train": "train.jsonl", "dev": "dev.jsonl"},
        "train": {"max_steps": 1},
        "device": "cpu",
        "trackers": [],
        "output": "run",
    }
    (folder / "run.yaml").write_text(json.dumps(tree), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "run.yaml", "output=trained", "--no-evaluate", "--json"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template as the current folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return main(command.split())


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must be refused; what it said."""
    capsys.readouterr()
    code = run(command)
    shown = capsys.readouterr()
    assert code == 2, f"exit code {code}: {shown.err}"
    assert shown.out == ""
    check_error(shown.err)
    return shown.err


def check_error(text: str) -> None:
    assert text.startswith("error: ")
    assert "Traceback" not in text and ".py" not in text
    assert "\n\n" not in text.strip(), "one paragraph"
    assert "site-packages" not in text


def run_case(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    case.prepare(folder)
    said = refused(case.command, capsys)
    for piece in case.says:
        assert piece in said, f"{piece!r} is missing in: {said}"
    return said


@pytest.mark.parametrize("case", DATA_CASES, ids=lambda case: case.name)
def test_bad_data(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_case(case, folder, capsys)
    assert not (folder / "run" / "bundle").exists()


@pytest.mark.parametrize("case", [*CONFIG_CASES, *BACKBONE_CASES, *OUTPUT_CASES], ids=lambda case: case.name)
def test_bad_configuration_backbone_and_output(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_case(case, folder, capsys)


def damaged_weights(folder: Path) -> None:
    path = folder / "trained" / "bundle" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def header_that_lies(folder: Path) -> None:
    (folder / "trained" / "bundle" / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")


def manifest(**changes: Any) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        path = folder / "trained" / "bundle" / "wenmai.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        found.update(changes)
        path.write_text(json.dumps(found), encoding="utf-8")

    return prepare


PREDICT = "predict trained input.txt"
BUNDLE_CASES = [
    Case("no such bundle", nothing, ("nowhere: no such folder",), "predict nowhere input.txt"),
    Case(
        "a folder that is no bundle",
        nothing,
        ("backbone: is no bundle", "wenmai.json"),
        "predict backbone input.txt",
    ),
    Case(
        "truncated weights",
        damaged_weights,
        ("trained/bundle", "can't be read", "train or copy it again"),
        PREDICT,
    ),
    Case(
        "weights that are no weights",
        header_that_lies,
        ("trained/bundle", "can't be read", "train or copy it again"),
        PREDICT,
    ),
    Case(
        "missing weights",
        lambda f: (f / "trained/bundle/model.safetensors").unlink(),
        ("trained/bundle",),
        PREDICT,
    ),
    Case(
        "missing manifest",
        lambda f: (f / "trained/bundle/wenmai.json").unlink(),
        ("trained", "wenmai.json"),
        PREDICT,
    ),
    Case(
        "manifest that is no JSON",
        write("trained/bundle/wenmai.json", "{"),
        ("wenmai.json", "damaged"),
        PREDICT,
    ),
    Case("future format", manifest(format=99), ("format 99", "upgrade"), PREDICT),
    Case(
        "missing tokenizer",
        lambda f: (f / "trained/bundle/tokenizer.json").unlink(),
        ("trained/bundle",),
        PREDICT,
    ),
    Case("damaged tokenizer", write("trained/bundle/tokenizer.json", "{"), ("trained/bundle",), PREDICT),
    Case(
        "damaged model configuration", write("trained/bundle/config.json", "{"), ("trained/bundle",), PREDICT
    ),
    Case("missing input", nothing, ("nowhere.txt", "No such file"), "predict trained nowhere.txt"),
    Case(
        "input in another encoding",
        write("input.txt", "上海".encode("gb18030")),
        ("input.txt:1", "--encoding"),
        PREDICT,
    ),
    Case("unknown encoding of the input", nothing, ("utf-9",), f"{PREDICT} --encoding utf-9"),
    Case(
        "input that is not JSON",
        write("in.jsonl", '{"text": "好"}\n{"text": '),
        ("in.jsonl:2", "JSON"),
        "predict trained in.jsonl",
    ),
    Case(
        "input of another kind",
        write("in.jsonl", '{"text": "好"}\n{"title": "好"}'),
        ("in.jsonl:2", "ner predicts for"),
        "predict trained in.jsonl",
    ),
    Case(
        "predictions below a file",
        nothing,
        ("input.txt/out", "can't be written"),
        f"{PREDICT} --output input.txt/out",
    ),
    Case(
        "evaluation without labels",
        write("new.jsonl", '{"text": "好"}'),
        ("new.jsonl:1", "label"),
        "evaluate trained new.jsonl",
    ),
    Case("evaluation of no file", nothing, ("new.jsonl",), "evaluate trained new.jsonl"),
    Case("unknown sample split", nothing, ("sample:reviews/tset",), "evaluate trained sample:reviews/tset"),
    Case(
        "unknown reading option",
        nothing,
        ("formt", "did you mean 'format'"),
        "evaluate trained train.jsonl formt=csv",
    ),
    Case("split name that is a path", nothing, ("../x",), "evaluate trained train.jsonl --split ../x"),
    Case(
        "slices that shrink",
        nothing,
        ("--slices 50,0", "growing"),
        "evaluate trained train.jsonl --slices 50,0",
    ),
    Case("report of no run", nothing, ("backbone",), "report backbone"),
]


@pytest.mark.parametrize("case", BUNDLE_CASES, ids=lambda case: case.name)
def test_bad_bundles_and_inputs(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "input.txt").write_text("王小明去了北京\n", encoding="utf-8")
    run_case(case, folder, capsys)


def test_all_bad_rows_of_all_files_are_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows(entity(0, 99), entity(5, 2), {"entities": []})(folder)
    rows(entity("a", 2), name="dev.jsonl")(folder)
    said = refused("train run.yaml", capsys)
    for place in ("train.jsonl:3", "train.jsonl:4", "train.jsonl:5", "dev.jsonl:3"):
        assert place in said


def test_good_rows_are_used_and_bad_ones_written_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(json.dumps(entity(0, 99), ensure_ascii=False), '{"text": "断')(folder)
    assert run("train run.yaml data.on_error=skip --no-evaluate --json") == 0
    rejects = [
        json.loads(line)
        for line in (folder / "run" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(reject["path"], reject["line"]) for reject in rejects] == [
        ("train.jsonl", 3),
        ("train.jsonl", 4),
    ]
    assert "outside the text" in rejects[0]["reason"]
    assert rejects[0]["record"] == entity(0, 99)
    assert rejects[1]["record"] == '{"text": "断'
    assert run("check run.yaml data.on_error=skip data.dev=null --json") == 0
    capsys.readouterr()
    assert run("check run.yaml data.dev=null --json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["splits"][0]["examples"] == len(GOOD)
    assert report["findings"][0]["count"] == 2


def test_a_line_of_a_megabyte_and_an_empty_text_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"text": "王小明" + "好" * 350_000, "entities": [{"start": 0, "end": 3, "label": "人名"}]}
    assert len(json.dumps(long, ensure_ascii=False).encode()) > 1_000_000
    rows(long, {"text": "", "entities": []})(folder)
    assert run("check run.yaml data.dev=null --json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"][0]["longest"] == 350_003
    assert {finding["code"] for finding in report["findings"]} == {"empty_text"}


def test_resume_without_a_checkpoint_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train run.yaml --resume --no-evaluate --json") == 0


def test_resume_with_another_configuration_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused("train run.yaml output=trained seed=7 --resume", capsys)
    assert "trained" in said and "--overwrite" in said


def test_a_damaged_checkpoint_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder / "trained" / "checkpoint").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    assert "checkpoint" in refused("train run.yaml output=trained --resume", capsys)


def test_a_disk_that_fills_up_while_predicting(folder: Path) -> None:
    (folder / "input.txt").write_text("王小明去了北京\n" * 200, encoding="utf-8")
    (folder / "out.jsonl").write_text("the old one", encoding="utf-8")
    command = Command(
        "predict", "trained", "input.txt", "--output", "out.jsonl", folder=folder, file_size=4096
    )
    assert command.wait() == 2, command.err
    check_error(command.err)
    assert "out.jsonl: can't be written" in command.err and "free some space" in command.err
    assert (folder / "out.jsonl").read_text(encoding="utf-8") == "the old one"
    assert not list(folder.glob(".out.jsonl*"))


def test_a_disk_that_fills_up_while_training(folder: Path) -> None:
    command = Command("train", "run.yaml", folder=folder, file_size=20_000)
    assert command.wait() == 2, command.err
    check_error(command.err)
    assert "run" in command.err and "can't be written" in command.err
    assert not (folder / "run" / "bundle").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_standard_output(folder: Path) -> None:
    command = Command("init", "ner", folder=folder, stdout=Path("/dev/full"))
    assert command.wait() == 2
    check_error(command.err)
    assert "the output can't be written: No space left" in command.err


def test_enough_kinds_are_tried() -> None:
    cases = [*DATA_CASES, *CONFIG_CASES, *BACKBONE_CASES, *OUTPUT_CASES, *BUNDLE_CASES]
    assert len({case.name for case in cases}) == len(cases) >= 25
