"""Files that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wenmai.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """An open text file that takes the place of ``path`` when the block ends without an error.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    with _replacing(path, "w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def _replacing(path: Path, mode: str, **how: str) -> Iterator[IO[Any]]:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open(mode, **how) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # its folder may be the very thing that can't be written
            beside.unlink()


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content at once."""
    with writing(path) as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """As :func:`write_text`."""
    with _replacing(path, "wb") as file:
        file.write(content)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of ``path`` when the block ends without an error.

    A folder can't be renamed over another one, so the old one is moved aside first; :func:`recover_folder` puts back
    whichever is whole if the process dies between the two renames.
    """
    beside, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        _reach_the_disk(beside)
        recover_folder(path)
        if path.exists():
            path.rename(old)
        beside.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if path.exists():
            shutil.rmtree(beside, ignore_errors=True)


def clear_unfinished(folder: Path) -> None:
    """Removes what a killed process left of files in the making, anywhere below the folder."""
    for path in folder.rglob(".*.new"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _reach_the_disk(folder: Path) -> None:
    """Waits until a folder's files are on the disk: a rename may get there before what it names, and power may fail."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def recover_folder(path: Path) -> None:
    """Undoes a replacement that was cut off between its two renames."""
    path = path.absolute()  # "." has no name
    old = path.parent / f".{path.name}.old"
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


def unwritable(path: Path, error: OSError) -> UserError:
    """The user's side of an error while writing."""
    reason = error.strerror or str(error)
    return UserError(f"{path}: can't be written: {reason}; free some space or choose another output folder")
