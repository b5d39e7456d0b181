"""Cutting, processes, kills and order change nothing; earlier runs are told from finished ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus.texts import GOOD, made_up, texts_in, write_records
from wenmai.corpus.counting import merged
from wenmai.corpus.dedup import dedup
from wenmai.corpus.mixing import mix
from wenmai.corpus.running import Job
from wenmai.corpus.settings import CorpusConfig, DecontaminateConfig, DedupConfig, MixConfig, ReadingConfig
from wenmai.corpus.verbs import clean, decontaminate
from wenmai.errors import DataError, UserError

CONFIG = CorpusConfig.model_validate({"clean": {"repetition": {"top_ngrams": {}}}})
VERBS = ("clean", "dedup", "mix")


def raw(folder: Path, count: int = 120) -> Path:
    """Texts, among them some that are refused and some that come twice."""
    texts = made_up(count)
    texts[::10] = ["太短"] * len(texts[::10])
    texts[5::10] = [f"<b>{GOOD}</b>"] * len(texts[5::10])
    return write_records(folder / "in.jsonl", [{"text": text, "n": i} for i, text in enumerate(texts)])


def run(verb: str, folder: Path, name: str = "out", **job: Any) -> dict[str, Any]:
    given = folder / "in.jsonl"
    job = {"chunk_bytes": 6000, **job}
    made = Job([str(given)], folder / f"{name}.jsonl", **job)
    if verb == "clean":
        return clean(made, CONFIG)
    if verb == "dedup":
        return dedup(made, DedupConfig(near=False))
    sources = {"all": {"path": str(given)}}
    return mix(made, MixConfig.model_validate({"sources": sources, "characters": 9000}), 3)


def outputs(folder: Path, name: str = "out") -> list[bytes]:
    return [(folder / f"{name}{ending}").read_bytes() for ending in (".jsonl", ".report.json")]


@pytest.mark.parametrize("verb", VERBS)
def test_processes_change_nothing(tmp_path: Path, verb: str) -> None:
    raw(tmp_path)
    run(verb, tmp_path, "one")
    run(verb, tmp_path, "three", processes=3)
    assert outputs(tmp_path, "one") == outputs(tmp_path, "three")


@pytest.mark.parametrize("verb", VERBS)
def test_pieces_change_nothing_in_the_output(tmp_path: Path, verb: str) -> None:
    raw(tmp_path)
    run(verb, tmp_path, "small", chunk_bytes=3000)
    run(verb, tmp_path, "large", chunk_bytes=10**6)
    assert outputs(tmp_path, "small")[0] == outputs(tmp_path, "large")[0]


def test_order_changes_nothing_but_the_order(tmp_path: Path) -> None:
    given = raw(tmp_path)
    forward = run("clean", tmp_path)
    kept = texts_in(tmp_path / "out.jsonl")
    lines = given.read_text(encoding="utf-8").splitlines(keepends=True)
    given.write_text("".join(reversed(lines)), encoding="utf-8")
    backward = run("clean", tmp_path, overwrite=True)
    assert texts_in(tmp_path / "out.jsonl") == kept[::-1]
    assert forward["total"] == backward["total"]


def test_everything_is_counted_and_rejects_are_kept(tmp_path: Path) -> None:
    raw(tmp_path)
    report = run("clean", tmp_path, rejects=tmp_path / "rejects.jsonl")
    total = report["total"]
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert total["documents_in"] == 120 and total["documents_out"] == len(kept) == 108
    assert total["dropped"] == {"too_short": 12} and total["changed"] == {"markup_removed": 12}
    assert total["characters_out"] == sum(len(record["text"]) for record in kept)
    assert total["bytes_out"] == sum(len(record["text"].encode()) for record in kept)
    assert sorted(record["n"] for record in [*kept, *rejects]) == list(range(120))
    assert {one["reason"] for one in rejects} == {"too_short"} and rejects[0]["place"].endswith(":byte 0")
    assert report["sources"] == {str(tmp_path / "in.jsonl"): total}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
import wenmai.corpus.parts as parts
from corpus import test_running
real, left = parts.{target}, [{calls}]
def dying(*arguments, **options):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
parts.{target} = dying
test_running.run({verb!r}, Path({folder!r}), resume=True)
"""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("target", "calls"), [("write_text", 0), ("write_text", 2), ("join", 0)])
def test_killed_and_resumed_is_as_unbroken(tmp_path: Path, verb: str, target: str, calls: int) -> None:
    """Killed where a part is marked as done, and where the parts are joined."""
    raw(tmp_path)
    run(verb, tmp_path, "whole")
    code = KILLED.format(path=sys.path, target=target, calls=calls, verb=verb, folder=str(tmp_path))
    died = subprocess.run([sys.executable, "-c", code])
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.jsonl").exists() or target == "join"
    run(verb, tmp_path, resume=True)
    assert outputs(tmp_path) == outputs(tmp_path, "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_group_of_processes_killed_at_any_moment(tmp_path: Path) -> None:
    raw(tmp_path, 1500)
    run("clean", tmp_path, "whole", processes=2)
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; from corpus import test_running;"
        f"test_running.run('clean', Path({str(tmp_path)!r}), processes=2, resume=True)"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        done = tmp_path / ".out.jsonl.parts"
        before = len(list(done.glob("clean-*.json")))
        while process.poll() is None and len(list(done.glob("clean-*.json"))) < before + 8:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run("clean", tmp_path, processes=2, resume=True)
    assert outputs(tmp_path) == outputs(tmp_path, "whole")


def test_finished_parts_are_not_made_again(tmp_path: Path) -> None:
    raw(tmp_path)
    report = run("clean", tmp_path)
    stamp = (tmp_path / "out.jsonl").stat().st_mtime_ns
    assert run("clean", tmp_path, resume=True) == report
    assert (tmp_path / "out.jsonl").stat().st_mtime_ns == stamp


def test_an_earlier_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    given = raw(tmp_path)
    run("clean", tmp_path)
    with pytest.raises(
        UserError, match=r"out\.jsonl: is there already; --resume goes on with it, --overwrite"
    ):
        run("clean", tmp_path)
    with pytest.raises(UserError, match="the earlier run had other verb, settings"):
        run("dedup", tmp_path, resume=True)
    given.write_text(given.read_text("utf-8").replace("太短", "短"), encoding="utf-8")
    with pytest.raises(UserError, match="the earlier run had other inputs; --resume needs the same"):
        run("clean", tmp_path, resume=True)
    assert run("clean", tmp_path, overwrite=True)["total"]["documents_in"] == 120


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_output(overwrite: bool, tmp_path: Path) -> None:
    raw(tmp_path)
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UserError, match=r"out\.jsonl: is a folder; name the file to write"):
        run("clean", tmp_path, overwrite=overwrite)
    assert (tmp_path / "out.jsonl").is_dir()


@pytest.mark.parametrize("written", ["output", "rejects", "report"])
def test_what_is_read_is_never_written_over(tmp_path: Path, written: str) -> None:
    raw = tmp_path / ("raw.report.json" if written == "report" else "raw.jsonl")
    raw.write_text('{"text": "' + GOOD + '"}\n', encoding="utf-8")
    output = {"output": raw, "rejects": tmp_path / "clean.jsonl", "report": tmp_path / "raw.jsonl"}[written]
    rejects = raw if written == "rejects" else None
    job = Job([str(raw)], output, rejects=rejects, overwrite=True)
    with pytest.raises(UserError, match="is one of the files that are read"):
        clean(job, CorpusConfig())
    with pytest.raises(UserError, match="is one of the files that are read"):
        config = CorpusConfig(decontaminate=DecontaminateConfig(test_sets=[str(raw)]))
        decontaminate(replace(job, inputs=[str(write_records(tmp_path / "other.jsonl", [GOOD]))]), config)
    assert GOOD in raw.read_text(encoding="utf-8")


def test_rejects_of_an_earlier_run_stay_unless_asked(tmp_path: Path) -> None:
    raw, rejects = write_records(tmp_path / "raw.jsonl", [GOOD, "短"]), tmp_path / "rejects.jsonl"
    rejects.write_text("mine\n", encoding="utf-8")
    job = Job([str(raw)], tmp_path / "clean.jsonl", rejects=rejects)
    with pytest.raises(UserError, match=r"rejects\.jsonl: is there already"):
        clean(job, CorpusConfig())
    assert rejects.read_text(encoding="utf-8") == "mine\n"
    with pytest.raises(UserError, match="is the output itself"):
        clean(replace(job, rejects=job.output), CorpusConfig())
    clean(replace(job, overwrite=True), CorpusConfig())
    assert "too_short" in rejects.read_text(encoding="utf-8")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.parquet").write_bytes(b"PAR1" + bytes(range(256)) * 40 + b"\0" * 300)
    with pytest.raises(UserError, match=r"raw\.parquet: is no text \(it has 340 zero bytes"):
        clean(Job([str(tmp_path / "raw.parquet")], tmp_path / "clean.jsonl"), CorpusConfig())


def test_a_source_that_can_not_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"content": "好"}\nnot json\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"none of its documents can be read \(not_json: 1, no_text: 1\)"):
        run("clean", tmp_path)


@pytest.mark.parametrize("unit", ["line", "document"])
def test_text_is_written_as_it_is_read(tmp_path: Path, unit: Any) -> None:
    text = f"{GOOD}\n\n他在山上看见了很多云。" if unit == "document" else GOOD
    write_records(tmp_path / "in.jsonl", [text, "山谷里的风也停了一会儿，他往回走。"])
    reading = ReadingConfig(unit=unit)
    first = Job([str(tmp_path / "in.jsonl")], tmp_path / "a.txt", reading=reading)
    again = Job([str(tmp_path / "a.txt")], tmp_path / "b.txt", reading=reading)
    assert (
        clean(first, CONFIG)["total"]["documents_out"] == clean(again, CONFIG)["total"]["documents_in"] == 2
    )
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_an_output_needs_a_known_ending(tmp_path: Path) -> None:
    raw(tmp_path)
    with pytest.raises(UserError, match=r"ends in \.jsonl .* or \.txt"):
        clean(Job([str(tmp_path / "in.jsonl")], tmp_path / "out.csv"), CONFIG)


def test_counts_add_up() -> None:
    counts = [{"a": 1, "t": {"x": 1}}, {"t": {"x": 2, "y": 1}, "b": 5}]
    assert merged(counts) == {"a": 1, "t": {"x": 3, "y": 1}, "b": 5}
