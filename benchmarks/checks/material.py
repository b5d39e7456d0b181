"""What the correctness checks run on: newspaper sentences with labels of every kind, and tiny encoders.

The labels are made from the text and its entities, so that each means something, but nothing here is about quality.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from peers.encoder import SIZES, Architecture, encoder_folder
from wenmai.config import RunConfig, load_config
from wenmai.samples import sample_records

MAX_LENGTH = 64
KINDS = ("LOC", "ORG", "PER")


def records(count: int) -> list[dict[str, Any]]:
    """Sentences of 12 to 60 characters that hold an entity: ``{"text", "entities"}``."""
    found = (sample.data for sample in sample_records("peoples_daily", "train"))
    return list(islice((r for r in found if 12 <= len(r["text"]) <= 60 and r["entities"]), count))


def classified(record: dict[str, Any]) -> dict[str, Any]:
    return {"text": record["text"], "label": record["entities"][0]["label"]}


def multi_classified(record: dict[str, Any]) -> dict[str, Any]:
    return {"text": record["text"], "labels": sorted({entity["label"] for entity in record["entities"]})}


def rated(record: dict[str, Any]) -> dict[str, Any]:
    """Two halves of a text and a number."""
    half = len(record["text"]) // 2
    share = sum(entity["end"] - entity["start"] for entity in record["entities"]) / len(record["text"])
    return {"text": record["text"][:half], "text_pair": record["text"][half:], "label": round(5 * share, 2)}


def triple(record: dict[str, Any]) -> dict[str, Any]:
    half = len(record["text"]) // 2
    return {"anchor": record["text"][:half], "positive": record["text"][half:], "negatives": []}


def scored(record: dict[str, Any]) -> dict[str, Any]:
    pair = rated(record)
    return {"text": pair["text"], "text_pair": pair["text_pair"], "score": pair["label"]}


def plain(record: dict[str, Any]) -> dict[str, Any]:
    return {"text": record["text"]}


def tiny_encoder(folder: Path, architecture: Architecture, records: Sequence[dict[str, Any]]) -> Path:
    """A two-layer encoder of 32 dimensions; made once a folder."""
    path = folder / architecture
    if not path.is_dir():
        texts = [record["text"] for record in records]
        encoder_folder(path, texts, SIZES["tiny"], architecture=architecture, vocabulary=3000, positions=128)
    return path


def configuration(
    folder: Path,
    encoder: Path,
    task: dict[str, Any],
    data: Sequence[dict[str, Any]],
    *,
    dropout: float,
    **train: Any,
) -> RunConfig:
    """A run in ``folder/run``; its task gets the dropout rate too, where it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in data)
    with_dropout = {"dropout": dropout} if task["name"] not in ("masked_lm", "text_embedding") else {}
    tree = {
        "task": {"max_length": MAX_LENGTH, **with_dropout, **task},
        "backbone": {"model": str(encoder), "dropout": dropout},
        "data": {"train": str(folder / "data.jsonl")},
        "train": {"save_steps": 10**6, **train},
        "precision": "fp32",
        "device": "cpu",
        "trackers": [],
        "seed": 1,
        "output": str(folder / "run"),
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return load_config(path)
