"""Trains once in peace; then in a child process again and again, struck down at random moments until a run is through.

A driver of its own, not part of pytest's process: the run in peace imports all that training needs, and every attempt
is a fork, so that an attempt costs no start of Python. Prints what happened as JSON::

    python crashing.py CONFIG_IN_PEACE CONFIG_UNDER_FIRE SEED
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

from wenmai.cli import main

STRIKES = ("SIGKILL", "SIGTERM", "SIGINT", "disk")
EXPECTED = {"SIGKILL": {-9}, "SIGTERM": {143}, "SIGINT": {130}, "disk": {2}}
LONGEST = 1.2
ATTEMPT_MAY_TAKE = 60.0


def attempt(config: str) -> int:
    """Forks a child that trains; returns its number."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(f"{config}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os._exit(main(["train", config, "--resume", "--no-evaluate"]))
    return child


def strike(child: int, how: str) -> None:
    """Does nothing to a child that has just ended by itself."""
    if how == "disk":
        # from now on no file can be written beyond 4 KiB, as on a full disk, also in the middle of a checkpoint
        with suppress(ProcessLookupError):
            resource.prlimit(
                child, resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )
    else:
        os.kill(child, getattr(signal, how))


def ended(child: int, within: float = ATTEMPT_MAY_TAKE, processor: float = math.inf) -> int | None:
    """The exit code, negative for a signal; None if it still runs after so many seconds, or so many processor seconds.

    Moments are told by the processor's time, so that a child gets as far on a busy machine as on an idle one.
    """
    end = time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end or processor_seconds(child) >= processor:
            return None
        time.sleep(0.002)


def processor_seconds(child: int) -> float:
    user, system = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def said(config: str) -> str:
    """The end of what the last child wrote to its standard error."""
    return Path(f"{config}.stderr").read_text(encoding="utf-8")[-1000:]


def strike_until_done(config: str, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    struck = dict.fromkeys(STRIKES, 0)
    wrong: list[str] = []
    while True:
        how = rng.choice(STRIKES)
        child = attempt(config)
        code = ended(child, processor=rng.uniform(0.05, LONGEST))
        if code is None:
            strike(child, how)
            code = ended(child)
            if code is None:
                os.kill(child, signal.SIGKILL)
                wrong.append(f"{how}: went on for {ATTEMPT_MAY_TAKE:.0f} s")
            elif code in EXPECTED[how]:
                struck[how] += 1
            elif code != 0:
                wrong.append(f"{how}: exit code {code}: {said(config)}")
        elif code != 0:
            wrong.append(f"nothing was done to it: exit code {code}: {said(config)}")
        if code == 0 or wrong:
            return {"struck": struck, "wrong": wrong}


if __name__ == "__main__":
    # what a shell starts in the background is told to ignore Ctrl-C, and so would be all that is forked here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_peace, under_fire, seed = sys.argv[1:]
    with redirect_stdout(sys.stderr):
        if code := main(["train", in_peace, "--no-evaluate"]):
            sys.exit(code)
    sys.stdout.write(json.dumps(strike_until_done(under_fire, int(seed))))
