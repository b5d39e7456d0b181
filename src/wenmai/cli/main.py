"""From the arguments of the process to an exit code: signals, full disks, broken pipes, errors of the user and bugs."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

from wenmai.cli.app import app, rank
from wenmai.errors import LeftAlone, UserError
from wenmai.training.stopping import EARLIER
from wenmai.version import __version__

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: what stands behind ``wenmai``; default: those of the process.

    Returns:
        the exit code.
    """
    # threads that sleep while they wait: on a machine that others share, spinning for each other costs most of the time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _terminating():
            code = _run(sys.argv[1:] if arguments is None else list(arguments))
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()  # whoever reads has read enough
        return 0
    except LeftAlone:
        return 128 + signal.SIGTERM
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if _to_tell(error):
            print(f"error: {message}", file=sys.stderr)
        return 2
    except Terminated:
        return _stopped("stopped by SIGTERM", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        return _stopped("stopped by Ctrl-C", 128 + signal.SIGINT)
    except OSError as error:
        # files are written through wenmai.atomic, which names them: this was standard output
        if error.errno not in DISK_FULL:
            return _bug()
        _drop_output()
        return _stopped(f"error: the output can't be written: {error.strerror}; free some space first", 2)
    except Exception:
        return _bug()


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("wenmai", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def _to_tell(error: Exception) -> bool:
    """Whether this process of a run tells the error; where they have not compared, one of each machine does."""
    told = error.told if isinstance(error, UserError) else None
    return _first_here() if told is None else not told


def _first_here() -> bool:
    return int(os.environ.get("LOCAL_RANK", rank())) == 0


def _drop_output() -> None:
    """What is still in the buffer can't be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(message: str, code: int) -> int:
    if _first_here() or code == 1:
        print(message, file=sys.stderr)
    return code


def _bug() -> int:
    return _stopped(f"{traceback.format_exc()}\nThis is a bug in wenmai {__version__}; please report it.", 1)


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM ends a verb as Ctrl-C does, so that files in the making are cleared away."""

    def stop(signum: int, frame: FrameType | None) -> None:
        EARLIER.append(signum)
        raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt

    EARLIER.clear()
    # whoever started this process may want Ctrl-C to be ignored
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        wanted.append(signal.SIGINT)
    try:
        before = {signum: signal.signal(signum, stop) for signum in wanted}
    except ValueError:
        yield  # not the main thread
        return
    try:
        yield
    except Exception as error:
        # what the handler raised may have come up as some library's own error
        if EARLIER and not isinstance(error, typer.Exit):
            raise (Terminated if EARLIER[-1] == signal.SIGTERM else KeyboardInterrupt) from error
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        EARLIER.clear()
