"""The files that the user names, in order, and pieces of them that can be read one without the other."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wenmai.atomic import unwritable
from wenmai.corpus.encodings import SAMPLE_BYTES, detect, refuse_binary, refuse_wide
from wenmai.errors import DataError, Problem, UserError

CHUNK_BYTES = 8 << 20
"""A piece of work, and what a killed run loses at most per process."""
_BLOCK = 1 << 20
_ENDINGS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")


@dataclass(frozen=True)
class Input:
    """A file.

    Args:
        path: where its bytes are, unpacked.
        name: as the user knows it.
        source: what the user named: the file itself, or a folder around it.
    """

    path: Path
    name: str
    source: str
    encoding: str
    lines_of_json: bool
    size: int


@dataclass(frozen=True)
class Chunk:
    """The documents of a file that begin in bytes [start, stop)."""

    input: Input
    start: int
    stop: int


def find_files(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """Source and path of every file, in the order given; those of a folder by name.

    Raises:
        DataError: something is missing or empty, or a folder holds no text; all such problems at once.
    """
    found: list[tuple[str, Path]] = []
    problems: list[Problem] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file()
            )
            inside = [file for file in inside if not file.name.startswith(".")]
            found += [(given, file) for file in inside]
            if not inside:
                problems.append(
                    Problem(given, f"is a folder without files that end in {', '.join(_ENDINGS)}")
                )
        elif not path.is_file():
            problems.append(Problem(given, "does not exist; give files or folders of text"))
        else:
            found.append((given, path))
    problems += [
        Problem(str(path), "is empty: at least one document is needed; remove it from the list")
        for _, path in found
        if path.stat().st_size == 0
    ]
    if problems or not found:
        raise DataError("the corpus can't be read", problems or [Problem("corpus", "no files are given")])
    return found


def unpack(paths: Sequence[str], folder: Path, encoding: str) -> list[Input]:
    """Looks at every file; what is packed with gzip is unpacked into a folder first.

    Raises:
        UserError: a file is in UTF-16, is no text, or is no whole gzip file.
    """
    inputs = []
    for number, (source, path) in enumerate(find_files(paths)):
        bare = path.name.removesuffix(".gz")
        real = _unpacked(path, folder / f"unpacked-{number:06d}") if bare != path.name else path
        with real.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
        refuse_wide(sample, str(path))
        refuse_binary(sample, str(path))
        lines_of_json = bare.endswith(".jsonl")
        found = ("utf-8" if lines_of_json else detect(sample)) if encoding == "auto" else encoding
        inputs.append(Input(real, str(path), source, found, lines_of_json, real.stat().st_size))
    return inputs


def chunks_of(inputs: Sequence[Input], chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """Pieces of about equal size, in order."""
    return [
        Chunk(file, start, min(start + chunk_bytes, file.size))
        for file in inputs
        for start in range(0, file.size, chunk_bytes)
    ]


def content_of(paths: Sequence[str]) -> list[list[str]]:
    """Name and hash of the content of every file: what a resumed run compares."""
    return [[str(path), _hash(path)] for _, path in find_files(paths)] if paths else []


def _hash(path: Path) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for block in _blocks(path):
        hashed.update(block)
    return hashed.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _unpacked(path: Path, target: Path) -> Path:
    """A resumed run finds it done."""
    if target.exists():
        return target
    beside = target.with_name(f".{target.name}.new")
    try:
        with gzip.open(path) as packed, beside.open("wb") as file:
            shutil.copyfileobj(packed, file, _BLOCK)
        beside.replace(target)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: is not a whole gzip file ({error}); copy it again") from None
    except OSError as error:
        raise unwritable(target, error) from error
    return target
