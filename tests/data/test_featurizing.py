"""Rows are made once: found again by what decides them, made anew when anything of that changes or the file is bad."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from wenmai.data import featurizing
from wenmai.data.examples import Examples, read_examples
from wenmai.data.features import Features
from wenmai.data.featurizing import build_features, content_key, trim
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.processes import QUOTA, in_order, usable_cores


class Text(BaseModel):
    text: str


class Counting:
    """A featurizer that tells how many examples this process gave it."""

    def __init__(self, shift: int = 0) -> None:
        self.calls = 0
        self.shift = shift

    def __call__(self, example: Text) -> list[Row]:
        self.calls += 1
        return [Row(inputs={"input_ids": [ord(character) + self.shift for character in example.text]})]


def some_texts(count: int = 700, text: str = "第{}条") -> Examples[Text]:
    return read_examples([{"text": text.format(i)} for i in range(count)], Text)


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurizing, "SMALL_BYTES", 0)


def build(
    examples: Examples[Text], featurize: Callable[[Text], list[Row]], folder: Path | None, **options: Any
) -> Features:
    return build_features(
        examples, featurize, **{"key_parts": ["task"], "folder": folder, "processes": 1} | options
    )


def ids(found: Features) -> list[list[int]]:
    return [list(found.row(i, 0).inputs["input_ids"]) for i in range(len(found))]


def expected(examples: Examples[Text]) -> list[list[int]]:
    return [[ord(character) for character in example.text] for example in examples]


def test_the_second_run_makes_no_rows(tmp_path: Path) -> None:
    examples, first, second = some_texts(), Counting(), Counting()
    told: list[int] = []
    assert ids(build(examples, first, tmp_path, advance=told.append)) == expected(examples)
    assert first.calls == sum(told) == 700
    assert len(told) > 1
    told.clear()
    assert ids(build(some_texts(), second, tmp_path, advance=told.append)) == expected(examples)
    assert sum(told) == 700
    assert second.calls <= featurizing.CHECKED + 1
    assert len(list(tmp_path.iterdir())) == 1, "something is left beside the file"


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_make_the_same_rows(processes: int, tmp_path: Path) -> None:
    examples, here = some_texts(), Counting()
    told: list[int] = []
    found = build(examples, here, tmp_path, processes=processes, advance=told.append)
    assert ids(found) == expected(examples)
    assert sum(told) == 700
    assert here.calls == 0
    assert not multiprocessing.active_children()


def test_whatever_decides_the_rows_decides_the_name() -> None:
    examples = some_texts(300)
    names = {
        content_key(examples, ["task"])[0],
        content_key(examples, ["task", ""])[0],
        content_key(examples, ["other"])[0],
        content_key(some_texts(299), ["task"])[0],
        content_key(some_texts(300, "第{}条。"), ["task"])[0],
        content_key(examples.select(range(299, -1, -1)), ["task"])[0],
        content_key(examples.select([*range(299), 298]), ["task"])[0],
    }
    assert len(names) == 7
    assert content_key(some_texts(300), ["task"]) == content_key(examples, ["task"])
    # {"text": "第0条"} is 18 bytes, and 3 more than that with a number of three digits
    assert content_key(some_texts(1), ["task"])[1] == len('{"text": "第0条"}\n'.encode())


def test_the_codes_own_change_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(some_texts(2), ["task"])
    monkeypatch.setattr(featurizing, "_code", lambda: "changed")
    assert content_key(some_texts(2), ["task"]) != before


def test_rows_that_would_be_made_otherwise_now_are_made_anew(tmp_path: Path) -> None:
    """A library that the name does not know of may have changed."""
    examples, other = some_texts(), Counting(shift=1)
    build(examples, Counting(), tmp_path)
    found = build(examples, other, tmp_path)
    assert other.calls >= 700
    assert ids(found) == [[code + 1 for code in codes] for codes in expected(examples)]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:50] + b"?" + data[51:]])
def test_a_damaged_file_is_made_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    examples = some_texts()
    build(examples, Counting(), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = Counting()
    assert ids(build(examples, again, tmp_path)) == expected(examples)
    assert again.calls == 700
    assert ids(Features.open(path)) == expected(examples)


def test_a_small_set_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurizing, "SMALL_BYTES", 1 << 20)
    told: list[int] = []
    assert ids(build(some_texts(), Counting(), tmp_path, advance=told.append)) == expected(some_texts())
    assert sum(told) == 700
    assert not list(tmp_path.iterdir())


def test_without_a_cache_a_temporary_file_goes_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = build(some_texts(), Counting(), None)
    assert ids(found) == expected(some_texts())
    assert list(tmp_path.rglob("*.bin"))
    del found
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cant_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert ids(build(some_texts(), Counting(), tmp_path / "file" / "cache")) == expected(some_texts())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is at hand on Linux only")
def test_no_room_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return made(Path("/dev/full") if mode == "wb" else path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"can't be written: No space left on device"):
        build(some_texts(), Counting(), None)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_featurizer_is_its_own(tmp_path: Path) -> None:
    def refuses(example: Text) -> list[Row]:
        if example.text == "第600条":
            raise UserError("no mask token")
        return [Row(inputs={"input_ids": [1]})]

    with pytest.raises(UserError, match="no mask token"):
        build(some_texts(), refuses, tmp_path, processes=2)
    assert not list(tmp_path.iterdir()), "a half-written file or a lock is left"
    assert not multiprocessing.active_children()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("rows-a.bin", "rows-b.bin", "rows-c.bin", "rows-d.bin", "other.bin")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / ".rows-e.123.new").write_bytes(b"half")
    os.utime(tmp_path / ".rows-e.123.new", (1000, 1000))
    (tmp_path / ".rows-f.123.new").write_bytes(b"being written now")
    trim(tmp_path, keep=tmp_path / "rows-d.bin", most=250)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"rows-a.bin", "rows-d.bin", "other.bin", ".rows-f.123.new"}


def test_use_counts(tmp_path: Path) -> None:
    build(some_texts(), Counting(), tmp_path)
    (path,) = tmp_path.iterdir()
    os.utime(path, (1000, 1000))
    build(some_texts(), Counting(), tmp_path)
    assert path.stat().st_mtime > time.time() - 60


def test_of_two_runs_at_once_one_makes_the_rows(tmp_path: Path) -> None:
    context = get_context("fork")
    made = context.Value("i", 0)
    go = context.Event()

    def slowly(example: Text) -> list[Row]:
        with made.get_lock():
            made.value += 1
        time.sleep(0.0005)
        return [Row(inputs={"input_ids": [ord(character) for character in example.text]})]

    def run() -> None:
        go.wait()
        found = build(some_texts(), slowly, tmp_path)
        os._exit(0 if ids(found) == expected(some_texts()) else 1)

    runs = [context.Process(target=run) for _ in range(3)]
    for process in runs:
        process.start()
    go.set()
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0, 0]
    assert 700 <= made.value <= 700 + 3 * (featurizing.CHECKED + 1)


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from wenmai.data import featurizing
from wenmai.data.rows import Row
from test_featurizing import Counting, some_texts
featurizing.SMALL_BYTES = 0
inner = Counting()
def slowly(example):
    time.sleep(0.005)
    return inner(example)
print("starts", flush=True)
featurizing.build_features(some_texts(), slowly, key_parts=["task"], folder=Path(sys.argv[1]), processes=2)
"""


def test_a_killed_run_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not list(tmp_path.glob(".rows-*.new")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        # the pipe closes when the last of its processes is gone: those that made rows end too
        process.stdout.read()
    assert not list(tmp_path.glob("rows-*.bin"))
    again = Counting()
    assert ids(build(some_texts(), again, tmp_path)) == expected(some_texts())
    assert again.calls == 700


def test_results_come_in_order_whatever_happens_to_a_process() -> None:
    here = os.getpid()

    def work(number: int) -> tuple[int, bool]:
        if number == 4 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5 and os.getpid() != here:
            raise RuntimeError("only there")
        return number * number, os.getpid() == here

    found = list(in_order(work, 9, 3))
    assert [square for square, _ in found] == [number * number for number in range(9)]
    assert [number for number, (_, made_here) in enumerate(found) if made_here] == [4, 5, 7, 8]


def test_processes_work_at_the_same_time() -> None:
    def worked(number: int) -> tuple[float, float]:
        started = time.monotonic()
        time.sleep(0.1)
        return started, time.monotonic()

    times = [*in_order(worked, 16, 8)]
    assert len(times) == 16
    # by the clock that all processes share: how many were at work when one of them began
    at_once = [sum(start <= began < end for start, end in times) for began, _ in times]
    assert max(at_once) > 1


def test_processes_are_not_waited_for_when_nobody_asks_any_more() -> None:
    started = time.perf_counter()
    results = in_order(lambda number: time.sleep(0.01 if number < 2 else 30) or number, 4, 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - started < 10
    assert not multiprocessing.active_children()


def test_a_daemon_works_alone() -> None:
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(
        target=lambda: sending.send(list(in_order(lambda number: number + 1, 3, 2))), daemon=True
    )
    process.start()
    assert receiving.recv() == [1, 2, 3]
    process.join()


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_containers_quota_counts(
    quota: str, cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert QUOTA.is_absolute()
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("wenmai.processes.QUOTA", tmp_path / "cpu.max")
    assert usable_cores() == (cores or len(os.sched_getaffinity(0)))
