"""``wenmai train --processes 2`` from outside: what it prints, how it ends, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config, write_jsonl
from wenmai.errors import UserError
from wenmai.training.journal import read_log
from wenmai.training.launch import exit_code

COMMAND = [sys.executable, "-m", "wenmai", "train"]
LONGEST = 120


@pytest.fixture
def config(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)
    toy_config(tmp_path, "ner-softmax", backbone, epochs=1, logging_steps=1)
    return tmp_path / "config.yaml"


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(config), *arguments, "--processes", "2"],
        env={key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def in_the_middle(config: Path, *arguments: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run that has done some steps, and the processes that train."""
    started = start(config, "train.epochs=100000", "train.eval_steps=1000000", "--no-evaluate", *arguments)
    log = config.parent / "run" / "log.jsonl"
    wait_until(lambda: started.poll() is not None or (log.exists() and len(read_log(log)) >= 5))
    assert started.poll() is None, started.communicate()
    family = psutil.Process(started.pid).children(recursive=True)
    return started, [process for process in family if process.environ().get("RANK")]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.slow
def test_results_are_told_once(config: Path) -> None:
    done = start(config, "--json")
    out, err = done.communicate(timeout=LONGEST)
    assert done.returncode == 0, err
    found = json.loads(out)
    assert found["metrics"]["dev"]["examples"] == 22
    run = config.parent / "run"
    assert {"bundle", "checkpoint", "evaluation", "report.html"} <= {path.name for path in run.iterdir()}
    assert not (run / "cache").exists()
    assert "OMP_NUM_THREADS" not in err and "torch" not in err


def test_sigterm_saves_and_ends_all(config: Path) -> None:
    launcher, processes = in_the_middle(config, "train.num_workers=1")
    assert len({process.environ()["RANK"] for process in processes}) == 2
    threads = {process.environ()["OMP_NUM_THREADS"] for process in processes}
    assert threads == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    launcher.send_signal(signal.SIGTERM)
    out, err = launcher.communicate(timeout=LONGEST)
    assert launcher.returncode == 143, err
    assert out == "" and err.strip().splitlines()[-1].startswith("stopped after step ")
    assert err.count("stopped after step") == 1 and "Traceback" not in err
    wait_until(lambda: gone(processes))
    state = json.loads((config.parent / "run" / "checkpoint" / "state.json").read_text())["state"]
    assert f"stopped after step {state['step']} of" in err and not state["finished"]


@pytest.mark.slow
def test_ctrl_c_twice_still_saves(config: Path) -> None:
    launcher, processes = in_the_middle(config)
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.1)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=LONGEST)
    assert launcher.returncode == 130 and err.count("stopped after step") == 1, err
    wait_until(lambda: gone(processes))
    assert (config.parent / "run" / "checkpoint" / "state.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_ends_the_others(config: Path, rank: str) -> None:
    launcher, processes = in_the_middle(config)
    struck = time.monotonic()
    next(process for process in processes if process.environ()["RANK"] == rank).kill()
    _, err = launcher.communicate(timeout=LONGEST)
    assert time.monotonic() - struck < 30
    assert launcher.returncode == 2
    assert [line for line in err.splitlines() if line.startswith("error:")] == [
        f"error: process {rank} of the run was killed by SIGKILL: memory may have run out; lower "
        "train.tokens_per_micro_batch or --processes, and go on with --resume"
    ]
    assert "Traceback" not in err
    wait_until(lambda: gone(processes))


@pytest.mark.slow
def test_what_the_user_can_mend_is_told_once(config: Path) -> None:
    bad = write_jsonl(
        config.parent / "bad.jsonl",
        [{"text": "王小明", "entities": [{"start": 0, "end": 9, "label": "人名"}]}],
    )
    for override, message in (
        (f"data.train={bad}", "bad.jsonl:1"),
        ("data.train=nowhere.jsonl", "nowhere.jsonl"),
        (
            "train.parallel=fsdp train.ema_decay=0.9",
            "train.ema_decay: can't be used with train.parallel: fsdp",
        ),
        ("train.learning_rate=1.0e+30 train.warmup_steps=0", "so the model can't learn on"),
    ):
        done = start(config, *override.split(), "--overwrite")
        out, err = done.communicate(timeout=LONGEST)
        assert (done.returncode, out) == (2, ""), err
        assert err.count("error: ") == 1 and err.count(message) >= 1 and "Traceback" not in err, err


@pytest.mark.slow
def test_several_seeds(config: Path) -> None:
    done = start(config, "train.seeds=[1,2]", "--json")
    out, err = done.communicate(timeout=LONGEST)
    assert done.returncode == 0, err
    assert len(json.loads(out)["runs"]) == 2


def test_exit_codes() -> None:
    killed, ended, left_alone = -signal.SIGKILL, -signal.SIGTERM, 143
    assert exit_code({0: 2, 1: ended}) == exit_code({0: left_alone, 1: 2}) == 2
    assert exit_code({0: 2, 1: 1}) == 1
    assert exit_code({0: 2, 1: killed}) == 2, "the launcher kills what does not end by itself"
    with pytest.raises(UserError, match="process 1 of the run was killed by SIGKILL"):
        exit_code({0: left_alone, 1: killed})
