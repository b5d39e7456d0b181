"""What the doctor says: findings with their places and remedies, and facts about each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]

PLACES = 10
"""Places shown of a finding."""


@dataclass
class Finding:
    """One kind of thing that was found, with where and what to do.

    Args:
        code: stable name for programs.
        count: how often it was found.
        places: the first ``PLACES`` of them, ``file:line`` and what stands there.
    """

    severity: Severity
    code: str
    message: str
    remedy: str
    count: int = 0
    places: list[str] = field(default_factory=list)

    def at(self, place: str, detail: str = "") -> None:
        """Counts one more."""
        self.count += 1
        if len(self.places) < PLACES:
            self.places.append(f"{place}: {detail}" if detail else place)


@dataclass
class SplitFacts:
    """What is worth knowing about a split.

    Args:
        lengths: first length of a bin, in characters -> examples.
        longest: characters.
        tokenized: examples that the following three were counted on.
        windowed: examples that need more than one row.
        tokens, unknown_tokens: special tokens not counted.
    """

    name: str
    examples: int = 0
    unlabelled: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    median_length: int = 0
    longest: int = 0
    tokenized: int = 0
    windowed: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    unknown_characters: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """All that the doctor has to say."""

    splits: list[SplitFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def counts(self) -> dict[Severity, int]:
        """Severity -> number of findings."""
        found = Counter(finding.severity for finding in self.findings)
        return {"error": found["error"], "warning": found["warning"], "info": found["info"]}

    def to_json(self) -> dict[str, Any]:
        return {"healthy": self.healthy, **asdict(self)}


class Findings:
    """Findings by code and split, made when the first place turns up."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, split: str, finding: Finding, place: str, detail: str = "") -> None:
        self._found.setdefault((split, finding.code), finding).at(place, detail)

    def all(self) -> list[Finding]:
        return _worst_first(self._found.values())


def joined(reports: Mapping[str, Report]) -> Report:
    """The reports of several tasks as one: their splits are called ``TASK/SPLIT``, their findings say the task."""
    return Report(
        splits=[
            replace(split, name=f"{name}/{split.name}")
            for name, own in reports.items()
            for split in own.splits
        ],
        findings=_worst_first(
            replace(finding, message=f"{name}: {finding.message}")
            for name, own in reports.items()
            for finding in own.findings
        ),
    )


def _worst_first(findings: Iterable[Finding]) -> list[Finding]:
    severities = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: severities.index(finding.severity))
