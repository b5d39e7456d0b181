"""Made-up documents: different ones share nearly nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

ALPHABET = "".join(chr(0x4E00 + 7 * i) for i in range(2500))
GOOD = "天色渐渐暗了下来，山谷里的风也停了。他沿着小路慢慢往回走，想起白天听到的那些话。"


def made_up(count: int, *, length: int = 60, seed: int = 0) -> list[str]:
    """Texts of sentences of random characters."""
    rng = random.Random(seed)
    return [
        "".join("".join(rng.choices(ALPHABET, k=12)) + "。" for _ in range(max(1, length // 13)))
        for _ in range(count)
    ]


def edited(text: str, share: float, seed: int) -> str:
    """A copy with so many of its characters replaced."""
    rng = random.Random(seed)
    chosen = set(rng.sample(range(len(text)), round(share * len(text))))
    return "".join(rng.choice(ALPHABET) if i in chosen else c for i, c in enumerate(text))


def write_records(path: Path, records: list[Any]) -> Path:
    """As jsonl; a text stands for a record with nothing else."""
    lines = (
        json.dumps({"text": one} if isinstance(one, str) else one, ensure_ascii=False) for one in records
    )
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def texts_in(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
