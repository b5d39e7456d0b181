"""Hand-made predictions and the run folders that they make, scored by the real tasks and metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wenmai.evaluation.evaluate import evaluate_predictions, prediction_line
from wenmai.tasks.ner import Ner, NerConfig, NerExample
from wenmai.tasks.task import Task
from wenmai.tasks.text_classification import (
    TextClassification,
    TextClassificationConfig,
    TextClassificationExample,
)

LABELS = ["人名", "地名", "机构"]
KNOWN = frozenset({"地名\t北京", "人名\t王小明"})
CONFIG = """\
task: {name: ner, head: crf}
backbone: {model: 小模型}
data: {train: train.jsonl, dev: {path: dev.jsonl}}
train: {epochs: 2.0, learning_rate: 3.0e-5}
seed: 7
output: runs/demo
"""


def entity(start: int, end: int, label: str, score: float | None = None) -> dict[str, Any]:
    span = {"start": start, "end": end, "label": label}
    return span if score is None else {**span, "score": score}


NER = [
    # text, gold, predicted: right; wrong label inside nested gold; nothing right; emoji before the span
    ("王小明去北京。", [(0, 3, "人名"), (4, 6, "地名")], [(0, 3, "人名"), (4, 6, "地名")]),
    ("他在北京师范大学读书。", [(2, 4, "地名"), (2, 8, "机构")], [(2, 4, "地名"), (2, 8, "人名")]),
    ("今天天气很好，" * 8 + "张伟说。", [(56, 58, "人名")], [(55, 58, "人名"), (0, 2, "地名")]),
    ("😀𠮷野家</script><!--👨‍👩‍👧开业", [(1, 4, "机构")], [(1, 4, "机构")]),
    ("没有实体。", [], []),
]


def ner_pairs() -> tuple[Ner, list[NerExample], list[dict[str, Any]]]:
    examples = [
        NerExample.model_validate(
            {"id": f"例{i}", "text": text, "entities": [entity(*span) for span in gold]}
        )
        for i, (text, gold, _) in enumerate(NER)
    ]
    predictions = [
        {"id": f"例{i}", "text": text, "entities": [entity(*span, score=0.75) for span in found]}
        for i, (text, _, found) in enumerate(NER)
    ]
    return Ner(NerConfig(), LABELS), examples, predictions


def classification_pairs() -> tuple[
    TextClassification, list[TextClassificationExample], list[dict[str, Any]]
]:
    task = TextClassification(TextClassificationConfig(), ["好评", "差评"])
    rows = [("好吃", "好评", 0.9), ("难吃", "差评", 0.2), ("不推荐" * 30, "差评", 0.7), ("一般", "好评", 0.6)]
    examples = [TextClassificationExample(text=text, label=gold) for text, gold, _ in rows]
    predictions = [
        {
            "text": text,
            "label": "好评" if good > 0.5 else "差评",
            "score": max(good, 1 - good),
            "scores": {"好评": good, "差评": 1 - good},
        }
        for text, _, good in rows
    ]
    return task, examples, predictions


def write_run(
    folder: Path, task: Task[Any, Any], examples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> Path:
    """A run folder as training and evaluation leave it."""
    results = folder / "evaluation" / "test"
    results.mkdir(parents=True)
    scores = evaluate_predictions(task, examples, predictions, known=KNOWN, resamples=20)
    metrics = {"task": task.name, "split": "test", **scores, "unexpressible": 2, "data": "test.jsonl"}
    lines = [
        prediction_line(task, example, found, known=KNOWN)
        for example, found in zip(examples, predictions, strict=True)
    ]
    (results / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False))
    (results / "predictions.jsonl").write_text(
        "".join(f"{json.dumps(x, ensure_ascii=False)}\n" for x in lines)
    )
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in log(task.primary_metric)))
    return folder


def log(primary: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for step in range(1, 11):
        times = {"tokens_per_second": 100.0 * step, "waiting": 0.002 * step}
        events.append({"event": "train", "step": step, "loss": 2 / step, **times})
        if step % 5 == 0:
            metrics = {"precision": 0.5, "recall": 0.25, primary: 0.06 * step}
            events.append(
                {"event": "eval", "step": step, "metrics": metrics, "primary_metric": primary, "best": True}
            )
    return events
