"""What the user can mend. Every message names the place, what was given, what is allowed, what to do.

The command line turns a :class:`UserError` into one paragraph and exit code 2; anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_PROBLEMS = 1000


@dataclass(frozen=True)
class Problem:
    """One thing wrong at one place.

    Args:
        place: file and line (``train.jsonl:17``) or configuration key (``ner.yaml: train.epochs``).
        message: what was given, what is allowed, what to do.
        field: the field inside the record, for example ``entities[2].end``.
    """

    place: str
    message: str
    field: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.field}: {self.message}" if self.field else f"{self.place}: {self.message}"
        )


class UserError(Exception):
    """Base of all errors that the user, not the programmer, can mend.

    Attributes:
        told: whether another process of the same run tells it; None where processes have not compared theirs.
    """

    told: bool | None = None


class LeftAlone(UserError):
    """Another process of the run ended, for a reason that it told, and this one can't go on without it."""


class ProblemList(UserError):
    """Several problems, reported at once.

    Args:
        summary: one sentence that says what could not be done.
        problems: all of them; the first 1,000 are spelled out in the message.
    """

    def __init__(self, summary: str, problems: Sequence[Problem] = ()):
        self.summary = summary
        self.problems = list(problems)
        lines = [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"  ... and {len(self.problems) - SHOWN_PROBLEMS} more")
        super().__init__("\n".join([summary, *lines]))


class ConfigError(ProblemList):
    """The configuration can't be used: unknown keys, wrong types, conflicts."""


class DataError(ProblemList):
    """Rows of the user's files can't be used."""


class BundleError(UserError):
    """A model folder is missing, damaged or of another version."""
