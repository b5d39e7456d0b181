"""Models that come with wenmai: a name to the folder inside the installed package."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

E5_NAME = "e5-small"
MODELS = Path(__file__).resolve().parent.parent / "models"
"""One folder a model, named like it: a bundle, which is a normal Hugging Face folder too. Weights are in fp16."""


def shipped_folder(name: str | Path, *, root: Path = MODELS) -> Path | None:
    """The folder of a shipped model, or None if none has exactly this name.

    The name alone always means the shipped model, also where the working directory has a folder of that name, so that
    a command does the same everywhere; any longer path means a folder.

    Args:
        name: as the user gave it.
        root: where the models are.
    """
    return root / name if str(name) in shipped_models(root=root) else None


def shipped_models(*, root: Path = MODELS) -> list[str]:
    """The names of the shipped models, sorted."""
    return sorted(path.parent.name for path in root.glob("*/config.json"))


def no_hub_needed(name: str | Path, *, root: Path = MODELS) -> str:
    """For error messages: the models that need no hub, and which of them was perhaps meant."""
    names = [*shipped_models(root=root), E5_NAME]
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.7)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{' or '.join(names)}, which need{'s' if len(names) == 1 else ''} no hub{meant}"
