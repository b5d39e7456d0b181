"""Work in parts that are done once: a folder of finished parts survives a killed run and is gone after a whole one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wenmai.atomic import clear_unfinished, unwritable, write_text
from wenmai.errors import UserError
from wenmai.processes import in_order
from wenmai.progress import SILENT, Progress

_BLOCK = 1 << 20


class Parts:
    """The folder ``.NAME.parts`` beside an output, with the numbers of every part that is finished.

    Args:
        output: the file that the parts will make.
        key: all that decides the result, as plain values: settings, and the hash of every input.
        resume: go on where a run with the same key stopped.
        overwrite: throw away what an earlier run left, and its output.

    Raises:
        UserError: there is an output or an unfinished run and neither was asked for; or the key is another one.
    """

    def __init__(self, output: Path, key: dict[str, Any], *, resume: bool, overwrite: bool):
        self.folder = output.with_name(f".{output.name}.parts")
        self.report = report_path(output)
        self._key = json.loads(json.dumps(key))
        manifest = self.folder / "manifest.json"
        if output.is_dir():
            raise UserError(
                f"{output}: is a folder; name the file to write, such as {output / 'clean.jsonl'}"
            )
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
            for path in (output, self.report):
                path.unlink(missing_ok=True)
        self.done = output.exists() and self.report.exists() and not self.folder.exists()
        if (output.exists() or self.folder.exists()) and not resume:
            what = f"{output}: is there already" if output.exists() else f"{output}: a stopped run is there"
            raise UserError(f"{what}; --resume goes on with it, --overwrite throws it away")
        if self.done:
            self._compare(json.loads(self.report.read_text(encoding="utf-8")).get("made_from"), output)
            return
        if manifest.exists():
            self._compare(json.loads(manifest.read_text(encoding="utf-8")), output)
            clear_unfinished(self.folder)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        write_text(manifest, json.dumps(self._key, ensure_ascii=False, indent=1))

    def _compare(self, found: Any, output: Path) -> None:
        if found == self._key:
            return
        names = [
            name for name in self._key if not isinstance(found, dict) or found.get(name) != self._key[name]
        ]
        raise UserError(
            f"{output}: the earlier run had other {', '.join(names) or 'settings'}; "
            "--resume needs the same; --overwrite begins anew"
        )

    def each(
        self,
        stage: str,
        count: int,
        make: Callable[[int], dict[str, Any]],
        *,
        processes: int = 1,
        progress: Progress = SILENT,
    ) -> list[dict[str, Any]]:
        """What ``make`` says of every part, in order; finished parts are not made again.

        Args:
            stage: names the parts' files.
            make: writes what belongs to a part to :meth:`file`, each file at once, and returns plain values.
        """
        marks = [self.file(stage, i, "json") for i in range(count)]
        todo = [i for i in range(count) if not marks[i].exists()]

        def one(at: int) -> int:
            i = todo[at]
            write_text(marks[i], json.dumps(make(i), ensure_ascii=False))
            return i

        with progress.task(stage, count, "parts") as step:
            step.advance(count - len(todo))
            for _ in in_order(one, len(todo), processes):
                step.advance()
        return [json.loads(mark.read_text(encoding="utf-8")) for mark in marks]

    def file(self, stage: str, part: int, ending: str) -> Path:
        """Where something that belongs to a part is kept."""
        return self.folder / f"{stage}-{part:06d}.{ending}"

    def finish(self, report: dict[str, Any], outputs: Mapping[Path, Sequence[Path]]) -> dict[str, Any]:
        """Joins files of parts to outputs, writes the report, removes the folder.

        Raises:
            UserError: an output can't be written.
        """
        for output, pieces in outputs.items():
            join(pieces, output)
        report = {**report, "made_from": self._key}
        write_text(self.report, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        # only now: a run killed before finds all parts and joins them again
        shutil.rmtree(self.folder)
        return report

    def earlier_report(self) -> dict[str, Any]:
        """What the run that is done wrote."""
        report: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8"))
        return report


def report_path(output: Path) -> Path:
    """``clean.jsonl`` -> ``clean.report.json``."""
    return output.with_name(f"{output.stem}.report.json")


def join(pieces: Sequence[Path], output: Path) -> None:
    """One file of several, byte by byte.

    Raises:
        UserError: it can't be written.
    """
    with writing_bytes(output) as file:
        for piece in pieces:
            with piece.open("rb") as opened:
                shutil.copyfileobj(opened, file, _BLOCK)


@contextmanager
def writing_bytes(path: Path) -> Iterator[IO[bytes]]:
    """As :func:`wenmai.atomic.writing`, for bytes: whole and on the disk when the block ends, or not there.

    Raises:
        UserError: it can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink()
