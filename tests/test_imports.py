"""The dependency rule of the design: imports point down, and cheap entries stay cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "wenmai"

LEVELS = {
    "text": 0, "errors": 0, "metrics": 0, "atomic": 0, "progress": 0, "processes": 0, "version": 0,
    "data": 1, "corpus": 1, "heads": 1, "backbones": 1, "samples": 0,
    "tasks": 2,
    "config": 3, "bundle": 3,
    "inference": 4,
    "training": 5, "evaluation": 5, "check": 5,
    "experiments": 6, "search": 6, "serve": 6,
    "cli": 7, "terminal": 7, "__init__": 8, "__main__": 8,
}  # fmt: skip
ALONE = {"transformers", "tokenizers", "peft"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    assert own in LEVELS, f"{own} has no level: add it to the design and here"
    for name in imported(path):
        if not name.startswith("wenmai."):
            continue
        other = name.split(".")[1]
        if other not in LEVELS:
            continue  # a name of the package itself, such as __version__
        assert LEVELS[other] <= LEVELS[own], f"{own} (level {LEVELS[own]}) imports {name} above it"
        if LEVELS[own] == LEVELS[other] and own != other:
            assert LEVELS[own] in (0, 3, 7), f"{own} imports its sibling {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_backbones_know_transformers(path: Path) -> None:
    if part(path) != "backbones":
        assert not {name.split(".")[0] for name in imported(path)} & ALONE


@pytest.mark.parametrize("path", [p for p in modules() if part(p) in ("text", "errors", "metrics", "atomic")])
def test_level_zero_has_no_torch(path: Path) -> None:
    assert "torch" not in {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("statement", ["import wenmai", "import wenmai.text", "import wenmai.cli"])
def test_light_imports_leave_torch_alone(statement: str) -> None:
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(SOURCE)): n
        for path in modules()
        if (n := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_only_the_command_line_prints() -> None:
    printing = [
        path.name
        for path in modules()
        if part(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing
