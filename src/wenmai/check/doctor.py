"""The doctor before training: what is wrong, doubtful or worth knowing about the data of a run.

Everything streams: of a row only its length and its hashes stay in memory.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.check.findings import Finding, Findings, Report, SplitFacts, joined
from wenmai.check.repetitions import Seen, find_leakage, find_repetitions
from wenmai.check.unknown import unknown_characters, unknown_tokens
from wenmai.config import PartConfig, RunConfig
from wenmai.data.examples import Examples
from wenmai.data.split import load_splits
from wenmai.errors import UserError
from wenmai.progress import SILENT, Progress
from wenmai.tasks import TASKS
from wenmai.tasks.model import with_own_tokens
from wenmai.tasks.task import Example, Task, TaskConfig
from wenmai.text.spans import Span, overlapping

INPUT_FIELDS = ("text", "text_pair", "question", "context", "choices", "anchor", "positive", "negatives")
"""What a model reads of a record; what is left, without ``id``, is gold."""
SPANS = ("entities", "slots")
PLACES = ("subject", "object")
"""Parts of its text that a record asks about: not gold either, and the same text with others is another question."""
LENGTH_BINS = (0, 50, 100, 150, 200, 500, 1000)
TOKENIZED = 50_000
"""Rows of a split that are tokenized, evenly spread over it: rates need no more."""
FEW_EXAMPLES = 5
IMBALANCE = 20.0


def check(config: RunConfig, *, progress: Progress = SILENT) -> Report:
    """Looks at the data of a run; writes nothing.

    Rows that can't be read are findings too: the rest is looked at all the same.

    Raises:
        UserError: the data can't be read at all.
    """
    reports = {}
    for name, part in config.parts.items():
        report, found = Report(), Findings()
        with TemporaryDirectory() as folder:
            splits = _load(part, Path(folder), found)
            _look(part, config.backbone, splits, report, found, progress)
        report.findings = found.all()
        reports[name] = report
    return joined(reports) if config.tasks else reports[""]


def _load(part: PartConfig, cache: Path, found: Findings) -> dict[str, Examples[Any]]:
    tolerant = part.data.model_copy(update={"on_error": "skip"})
    example = TASKS[part.task.name].Example
    splits = load_splits(tolerant, example, cache=cache, output=None, require_labels=False)
    skipped = part.data.on_error == "skip"
    finding = Finding(
        "warning" if skipped else "error",
        "bad_rows",
        "rows that can't be used" + (" and are skipped" if skipped else ""),
        "correct them, or set data.on_error: skip to train on the others",
    )
    # splits held out of the same file share its rejects
    for problem in dict.fromkeys(problem for rows in splits.values() for problem in rows.rejects):
        detail = f"{problem.field}: {problem.message}" if problem.field else problem.message
        found.add("", finding, problem.place, detail)
    return splits


def _look(
    part: PartConfig,
    encoder: BackboneConfig,
    splits: dict[str, Examples[Any]],
    report: Report,
    found: Findings,
    progress: Progress,
) -> None:
    seen = []
    for name, rows in splits.items():
        with progress.task(f"checking {name}", len(rows), "rows") as step:
            facts, split = _read(name, rows, part.task, found, step.advance)
        report.splits.append(facts)
        seen.append(split)
        find_repetitions(split, found)
    for i, first in enumerate(seen):
        for second in seen[i + 1 :]:
            find_leakage(first, second, found)
    _balance(report.splits[0], found)
    try:
        backbone, tokenizer = load_backbone(encoder)
    except UserError as error:
        remedy = "see above; nothing was tokenized"
        found.add("", Finding("error", "backbone", str(error), remedy), "backbone.model", encoder.title)
        return
    _against_model(part.task, encoder, splits, report, backbone, tokenizer, found, progress)


def _read(
    name: str, rows: Examples[Any], task: TaskConfig, found: Findings, advance: Callable[[], None]
) -> tuple[SplitFacts, Seen]:
    """One pass over a split: everything that a row shows by itself."""
    facts, split = SplitFacts(name, examples=len(rows)), Seen(name, rows)
    nested = task.model_dump().get("nested")
    labels: Counter[str] = Counter()
    measured = array("L")
    for index, example in enumerate(rows):
        record = example.model_dump(exclude_none=True, exclude={"id"})
        texts = texts_of(record)
        asked = [f"{record[key]['start']}:{record[key]['end']}" for key in PLACES if key in record]
        split.add([*texts, *asked], [record[key] for key in record if key not in (*INPUT_FIELDS, *PLACES)])
        measured.append(example.length)
        labels.update(labels_of(record))
        _look_at_texts(name, texts, rows, index, found)
        if not (example.learnable if name == "train" else example.labelled):
            facts.unlabelled += 1
            found.add(name, _unlabelled(name, example), rows.place(index))
        for key in SPANS:
            if key in record:
                _look_at_spans(name, record["text"], record[key], nested, rows, index, found)
        for guess in example.guesses:
            found.add(name, _guessed(name), rows.place(index), guess)
        for answer in record.get("answers") or ():
            _look_at_answer(name, record, answer, rows, index, found)
        advance()
    lengths = np.array(measured)
    if len(lengths):
        edges = [*LENGTH_BINS, np.inf]
        facts.lengths = dict(zip(LENGTH_BINS, np.histogram(lengths, edges)[0].tolist(), strict=True))
        facts.median_length, facts.longest = int(np.median(lengths)), int(lengths.max())
    facts.labels = dict(labels.most_common())
    return facts, split


def _look_at_texts(name: str, texts: list[str], rows: Examples[Any], index: int, found: Findings) -> None:
    if not all(text.strip() for text in texts):
        finding = Finding(
            "warning",
            "empty_text",
            f"{name}: texts without a visible character",
            "remove these rows or fill them in",
        )
        found.add(name, finding, rows.place(index))
    broken = next((text for text in texts if "\ufffd" in text), None)
    if broken is not None:
        finding = Finding(
            "warning",
            "broken_characters",
            f"{name}: texts with U+FFFD, what a wrong decoding leaves behind",
            "set data.encoding to what the file is in (gb18030 for much Chinese), or remove what was lost before",
        )
        at = broken.index("\ufffd")
        found.add(name, finding, rows.place(index), repr(broken[max(0, at - 10) : at + 10]))


def _look_at_spans(
    name: str,
    text: str,
    labelled: Sequence[dict[str, Any]],
    nested: bool | None,
    rows: Examples[Any],
    index: int,
    found: Findings,
) -> None:
    """Args: nested: whether spans may overlap; None: the task has no choice."""
    spans = [Span(entity["start"], entity["end"], entity["label"]) for entity in labelled]
    for span in spans:
        surface = text[span.start : span.end]
        if surface != surface.strip():
            finding = Finding(
                "warning",
                "span_with_whitespace",
                f"{name}: spans that begin or end with whitespace",
                "move the offsets inwards: the model would have to learn the stray space",
            )
            found.add(
                name, finding, rows.place(index), f"{surface!r} at {span.start}:{span.end} ({span.label})"
            )
    if len(set(spans)) < len(spans):
        finding = Finding(
            "warning", "repeated_span", f"{name}: the same span twice in a row", "remove one of them"
        )
        found.add(name, finding, rows.place(index))
    for left, right in overlapping(spans):
        finding = Finding(
            "info" if nested else "warning",
            "overlapping_spans",
            f"{name}: spans that overlap or lie inside each other",
            "nothing to do: task.nested is true"
            if nested
            else "set task.head: global_pointer and task.nested: true, or only the outermost is learned"
            if nested is not None
            else "remove one of them: a token has one tag, so only the outermost is learned",
        )
        detail = " and ".join(
            f"{text[span.start : span.end]!r} at {span.start}:{span.end} ({span.label})"
            for span in (left, right)
        )
        found.add(name, finding, rows.place(index), detail)


def _guessed(name: str) -> Finding:
    return Finding(
        "info",
        "guessed_places",
        f"{name}: what records leave open, settled by a rule",
        "nothing, if the rule at the rows is right; else say it in the record",
    )


def _look_at_answer(
    name: str,
    record: dict[str, Any],
    answer: dict[str, Any],
    rows: Examples[Any],
    index: int,
    found: Findings,
) -> None:
    places = 1 if "start" in answer else record["context"].count(answer["text"])
    if places > 1:
        finding = Finding(
            "info",
            "answer_in_several_places",
            f"{name}: answers that stand in several places, and the data does not say in which they answer",
            "nothing, all of them are learned; or give their start",
        )
        found.add(name, finding, rows.place(index), f"{answer['text']!r} in {places} places")


def _unlabelled(name: str, example: Example) -> Finding:
    remedy = "training and scores need labelled rows; check data.columns, or remove these rows"
    return Finding(
        "error" if name == "train" else "warning", "unlabelled", f"{name}: rows without gold", remedy
    )


def _balance(train: SplitFacts, found: Findings) -> None:
    if not train.labels:
        return
    rare = {label: count for label, count in train.labels.items() if count < FEW_EXAMPLES}
    for label, count in rare.items():
        finding = Finding(
            "warning",
            "few_examples",
            f"train: labels with fewer than {FEW_EXAMPLES} examples",
            "add examples, merge the label with another (data.label_map), or drop it",
        )
        found.add("train", finding, f"{label!r}", f"{count}")
    counts = list(train.labels.items())
    (most, most_count), (least, least_count) = counts[0], counts[-1]
    if most_count > IMBALANCE * least_count:
        finding = Finding(
            "info",
            "imbalance",
            f"train: the most frequent label is {most_count / least_count:.0f} times as frequent as the rarest",
            "look at the macro average and the scores per label, not at the accuracy alone",
        )
        found.add("train", finding, f"{most!r} {most_count}, {least!r} {least_count}")


def _against_model(
    settings: TaskConfig,
    encoder: BackboneConfig,
    splits: dict[str, Examples[Any]],
    report: Report,
    backbone: Backbone,
    tokenizer: Tokenizer,
    found: Findings,
    progress: Progress,
) -> None:
    """What the task and its backbone make of the rows: unknown labels, lost labels, unknown tokens, windows."""
    if settings.max_length > tokenizer.max_length:
        finding = Finding(
            "error",
            "max_length",
            f"task.max_length is {settings.max_length}, the backbone reads {tokenizer.max_length} tokens at most",
            f"set task.max_length to {tokenizer.max_length} or less, or give the model more (backbone.positions)",
        )
        found.add("", finding, "task.max_length")
    longer = encoder.positions
    if longer is not None and settings.max_length < longer.to:
        finding = Finding(
            "warning",
            "unused_positions",
            f"backbone.positions.to is {longer.to}, but rows have {settings.max_length} tokens at most",
            f"set task.max_length to {longer.to}, or backbone.positions.to to {settings.max_length}",
        )
        found.add("", finding, "task.max_length")
    task_class: Any = TASKS[settings.name]
    try:
        labels = task_class.collect_labels(settings, _labelled(splits["train"]))
    except UserError as error:
        found.add("train", Finding("error", "no_classes", str(error), "see above"), "train")
        return
    task: Task[Any, Any] = task_class(settings, labels)
    tokenizer = with_own_tokens(task, backbone, tokenizer)
    for facts in report.splits:
        rows = splits[facts.name]
        for index, example in enumerate(rows):
            problems = (
                task.training_problems(example) if facts.name == "train" else task.label_problems(example)
            )
            for problem in problems:
                finding = Finding(
                    "error",
                    "unusable_label",
                    f"{facts.name}: labels that can't be used",
                    "correct the label, map it with data.label_map, or add training examples that have it",
                )
                found.add(facts.name, finding, rows.place(index), problem)
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(TOKENIZED, len(rows))).astype(np.int64)).tolist()
        unknown: Counter[str] = Counter()
        with progress.task(f"tokenizing {facts.name}", len(chosen), "rows") as step:
            for index in chosen:
                _tokenize(rows[index], rows.place(index), facts, task, tokenizer, unknown, found)
                step.advance()
        facts.unknown_characters = dict(unknown.most_common(20))
        _unknown_tokens(facts, found)


def _tokenize(
    example: Example,
    place: str,
    facts: SplitFacts,
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    unknown: Counter[str],
    found: Findings,
) -> None:
    rows = task.featurize(example, tokenizer)
    special = tokenizer.special_ids - {tokenizer.unk_id}
    ids = [token for row in rows for token in row.inputs["input_ids"] if token not in special]
    text = getattr(example, "context", None) or getattr(example, "text", None) or ""
    unknown_here = 0 if tokenizer.unk_id is None else unknown_tokens(rows, text, tokenizer)
    facts.tokenized += 1
    facts.tokens += len(ids)
    facts.unknown_tokens += unknown_here
    facts.windowed += len(rows) > 1 and not task.rows_stay_together
    if unknown_here:
        unknown += unknown_characters(texts_of(example.model_dump(exclude_none=True)), tokenizer)
    for lost in task.lost_labels(example, tokenizer):
        finding = Finding(
            "warning",
            "lost_labels",
            f"{facts.name}: gold that the model's rows can't express",
            "follow the advice at the rows, or raise task.max_length",
        )
        found.add(facts.name, finding, place, lost)


def _unknown_tokens(facts: SplitFacts, found: Findings) -> None:
    if not facts.unknown_tokens:
        return
    share = facts.unknown_tokens / facts.tokens
    finding = Finding(
        "warning" if share > 0.01 else "info",
        "unknown_tokens",
        f"{facts.name}: {share:.2%} of the tokens are unknown to the backbone's vocabulary",
        "normalise these characters, or take a backbone that knows them"
        if share > 0.01
        else "nothing, unless these characters matter for your labels",
    )
    for character, count in facts.unknown_characters.items():
        found.add(facts.name, finding, f"{character!r} U+{ord(character):04X}", f"{count}")


def texts_of(record: dict[str, Any]) -> list[str]:
    """The texts of a record that a model reads."""
    found: list[str] = []
    for name in INPUT_FIELDS:
        value = record.get(name)
        found += [value] if isinstance(value, str) else value or []
    return found


def labels_of(record: dict[str, Any]) -> list[str]:
    """The class names of a record: its ``label``, ``labels`` or ``intents``, those of its spans, what its words are."""
    found = [record["label"]] if isinstance(record.get("label"), str) else []
    found += [*(record.get("labels") or ()), *(record.get("intents") or ())]
    found += [relation["predicate"] for relation in record.get("relations") or ()]
    for word in record.get("words") or ():
        found += [word[key] for key in ("upos", "relation") if word.get(key) is not None]
    return found + [span["label"] for key in SPANS for span in record.get(key) or ()]


def _labelled(rows: Examples[Any]) -> Iterator[Example]:
    return (example for example in rows if example.labelled)
