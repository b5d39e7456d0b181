"""Gold triples survive rows -> targets -> decode for both heads, through windows and sentences, in long documents."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from fresh import unbiased
from tiny import tiny_backbone_folder
from toy import PEOPLE, PLACES, toy_config, triple_records
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.bundle import load_bundle
from wenmai.config import changed
from wenmai.data.draws import row_keys
from wenmai.data.rows import IGNORE, Row, stack
from wenmai.errors import UserError
from wenmai.evaluation.evaluate import evaluate
from wenmai.inference.engine import predictions
from wenmai.tasks.model import Model
from wenmai.tasks.relation_extraction import (
    RelationExtraction,
    RelationExtractionConfig,
    RelationExtractionExample,
)
from wenmai.tasks.task import RowOutputs
from wenmai.tasks.triple_decoding import CANDIDATES, surer
from wenmai.tasks.windows import sentence_bounds, window_bounds
from wenmai.text.sentences import split_sentences
from wenmai.training.journal import read_log
from wenmai.training.trainer import train

PREDICATES = ["住在", "生于"]
TYPES = ["object\t人名", "object\t地名", "subject\t人名", "subject\t地名"]
PARTS = [
    "王明",
    "北京",
    "，",
    "。",
    "在",
    "👨\u200d👩\u200d👧",
    "é",
    "ＡＢＣ",
    "\u3000",
    "𠮷",
    "ab",
    "3.14",
    "！",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [*PARTS, *PEOPLE, *PLACES]
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=texts)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_folder(folder)[1]


def a_task(**keys: Any) -> RelationExtraction:
    config = RelationExtractionConfig(tokens="characters", **keys)
    return RelationExtraction(config, PREDICATES + (TYPES if config.typed else []))


def random_example(rng: random.Random) -> RelationExtractionExample:
    text = "".join(rng.choices(PARTS, k=rng.randint(0, 30)))

    def an_end() -> dict[str, Any]:
        start = rng.randrange(len(text))
        return {
            "start": start,
            "end": min(len(text), start + rng.randint(1, 3)),
            "label": rng.choice(["人名", "地名"]),
        }

    pool = [an_end() for _ in range(4)] if text else []
    relations = [
        {"subject": rng.choice(pool), "predicate": rng.choice(PREDICATES), "object": rng.choice(pool)}
        for _ in range(rng.randint(0, 4) if pool else 0)
    ]
    return RelationExtractionExample.model_validate({"text": text, "relations": relations})


def right_outputs(task: RelationExtraction, rows: list[Row]) -> list[RowOutputs]:
    """What a GPLinker that is always right gives for these rows."""
    subjects, predicates = len(task.names.subject_types), len(task.names.predicates)
    outputs = []
    for row in rows:
        triples = row.targets["triples"]
        assert isinstance(triples, np.ndarray)
        entities = [(t[0], t[1], t[5]) for t in triples] + [(t[3], t[4], subjects + t[6]) for t in triples]
        outputs.append(
            {
                "entities": pairs_of(len(row), subjects + len(task.names.object_types), entities),
                "heads": pairs_of(len(row), predicates, [(t[0], t[3], t[2]) for t in triples]),
                "tails": pairs_of(len(row), predicates, [(t[1], t[4], t[2]) for t in triples]),
            }
        )
    return outputs


def pairs_of(tokens: int, labels: int, gold: list[tuple[int, int, int]]) -> NDArray[np.float32]:
    """Factors whose scores are above 0 at the gold pairs, and elsewhere only where those of a label cross.

    Query and key have a number a token, so that any matrix of pairs is possible: 20 for gold ones, whatever the label.
    A gold end of a label takes 8 off it, any other token 20.
    """
    pairs = np.zeros((tokens, tokens))
    first, last = np.full((tokens, labels), -20.0), np.full((tokens, labels), -20.0)
    for i, j, label in gold:
        pairs[i, j] = 20.0
        first[i, label] = last[j, label] = -8.0
    query = pairs * tokens**0.5
    return np.concatenate([query, np.eye(tokens), first, last], axis=1).astype(np.float32)


def spelled(example: RelationExtractionExample, *, typed: bool) -> set[tuple[Any, ...]]:
    return {
        (
            r.subject.start,
            r.subject.end,
            r.subject.label if typed else None,
            r.predicate,
            r.object.start,
            r.object.end,
        )
        for r in example.relations or ()
    }


@pytest.mark.parametrize("long_text", ["windows", "sentences", "sentence"])
@pytest.mark.parametrize("typed", [False, True])
def test_triples_come_back(long_text: str, typed: bool, tokenizer: Tokenizer) -> None:
    """Of each text all triples, or the missing ones are told."""
    rng = random.Random(3)
    complete = windows = apart = 0
    for _ in range(120):
        task = a_task(typed=typed, long_text=long_text, max_length=rng.choice([24, 64]), window_overlap=8)
        given = random_example(rng)
        rows = task.featurize(given, tokenizer)
        windows += len(rows) > 1
        found = task.decode(right_outputs(task, rows), rows, given)["relations"]
        for relation in found:
            for end in (relation["subject"], relation["object"]):
                assert given.text[end["start"] : end["end"]] == end["text"]
                assert ("label" in end) is typed
        places = [
            (
                r["subject"]["start"],
                r["subject"]["end"],
                r["predicate"],
                r["object"]["start"],
                r["object"]["end"],
            )
            for r in found
        ]
        assert len(set(places)) == len(places)
        gold = {(s, e, p, a, b) for s, e, _, p, a, b in spelled(given, typed=False)}
        lost = task.lost_labels(given, tokenizer)
        apart += bool(lost)
        if not lost:
            assert gold <= set(places), (given, found)
            complete += bool(gold)
    assert complete > 5 and windows > 20 and (apart > 0 or long_text == "windows")


def test_sentences_are_windows_of_their_own(tokenizer: Tokenizer) -> None:
    text = "王明在北京。王明住在上海！" * 3 + "在" * 40
    encoding = tokenizer.encode(text, characters=True)
    sentences = split_sentences(text)
    assert len(sentences) == 7
    alone = sentence_bounds(text, encoding, 20, 4, together=False)
    assert alone[:6] == sentences[:6] and alone[6:] == [(s + 39, e + 39) for s, e in window_bounds(40, 20, 4)]
    packed = sentence_bounds(text, encoding, 20, 4, together=True)
    assert packed[0] == (0, 19)  # 6 + 7 + 6
    assert all(stop - start <= 20 for start, stop in packed)
    starts = {start for start, _ in sentences}
    assert all(start in starts for start, stop in packed if stop <= 39)
    # the sentence before comes again where there is room
    assert packed[1] == (13, 32)


@pytest.mark.parametrize("together", [True, False])
def test_sentence_windows_cover_everything(together: bool, tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    for _ in range(200):
        text = "".join(rng.choices(PARTS, k=rng.randint(0, 40)))
        encoding = tokenizer.encode(text, characters=True)
        bounds = sentence_bounds(text, encoding, 12, 3, together=together)
        assert {at for start, stop in bounds for at in range(start, stop)} == {*range(len(encoding))}
        assert bounds == sorted(bounds) and all(stop - start <= 12 for start, stop in bounds)
    assert sentence_bounds("", Encoding([], []), 12, 3, together=together) == [(0, 0)]


def test_subjects_are_drawn_by_the_key_alone(tokenizer: Tokenizer) -> None:
    task = a_task(head="casrel")
    examples = [RelationExtractionExample.model_validate(r) for r in triple_records()]
    rows = [row for example in examples for row in task.featurize(example, tokenizer)]
    rows.append(task.featurize(RelationExtractionExample(text="在", relations=()), tokenizer)[0])
    numbers = np.arange(len(rows))

    def drawn(chosen: list[int], epoch: int) -> list[list[int]]:
        batch = stack([rows[i] for i in chosen], 0)
        batch["key"] = row_keys(1, epoch, numbers[chosen], np.zeros(len(chosen), dtype=np.int64))
        found = task.augment(batch, tokenizer)["subject"]
        assert found.shape == (len(chosen), 1, 2)
        return [list(map(int, subject[0])) for subject in found]

    every = [drawn([*numbers], epoch) for epoch in range(40)]
    assert drawn([5, 2], 3) == [every[3][5], every[3][2]]
    assert {tuple(subjects[-1]) for subjects in every} == {(IGNORE, IGNORE)}
    for i in range(len(rows) - 1):
        gold = {tuple(triple[:2]) for triple in rows[i].targets["triples"].tolist()}  # type: ignore[union-attr]
        seen = [tuple(subjects[i]) for subjects in every]
        assert set(seen) == gold
        if len(gold) == 2:
            assert 8 < seen.count(seen[0]) < 32


def test_what_a_head_can_not_learn_is_told(tokenizer: Tokenizer) -> None:
    def example(text: str, *triples: tuple[int, int, int, int]) -> RelationExtractionExample:
        relations = [
            {"subject": {"start": a, "end": b}, "predicate": "住在", "object": {"start": c, "end": d}}
            for a, b, c, d in triples
        ]
        return RelationExtractionExample.model_validate({"text": text, "relations": relations})

    begin_together = example("王小明在北京上海", (0, 2, 4, 6), (0, 3, 6, 8))
    assert a_task().lost_labels(begin_together, tokenizer) == []
    (message,) = a_task(head="casrel").lost_labels(begin_together, tokenizer)
    assert message.startswith("1 triples can't be told apart by head casrel")

    far = example("王小明" + "在" * 60 + "北京", (0, 3, 63, 65))
    (message,) = a_task(max_length=32, window_overlap=8).lost_labels(far, tokenizer)
    assert message == (
        "1 of 1 triples have ends that no row holds together: raise task.max_length or task.window_overlap"
    )
    unknown = RelationExtractionExample.model_validate(
        {
            "text": "王小明在北京",
            "relations": [
                {"subject": {"start": 0, "end": 3}, "predicate": "爱", "object": {"start": 4, "end": 6}}
            ],
            "unlocated": [["subject_placeholder", "住在", "北京"]],
        }
    )
    skipped, stranger = a_task().lost_labels(unknown, tokenizer)
    assert skipped == "('subject_placeholder', '住在', '北京') is not in the text: skipped"
    assert "its predicate or a type does not occur in the training set" in stranger
    assert a_task().label_problems(unknown) == []
    assert a_task(typed=True).label_problems(unknown) == [
        f"relations[0].{role}: has no label: add it, or set task.typed: false"
        for role in ("subject", "object")
    ]


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        (
            {"subject": {"start": 2, "end": 2}, "predicate": "p", "object": {"start": 0, "end": 1}},
            "are no range",
        ),
        (
            {"subject": {"start": 0, "end": 1}, "predicate": "p", "object": {"start": 0, "end": 9}},
            "lies outside",
        ),
        (
            {
                "subject": {"start": 0, "end": 1, "text": "乙"},
                "predicate": "p",
                "object": {"start": 0, "end": 1},
            },
            "not '乙': correct the offsets",
        ),
        (
            {"subject": {"start": 0, "end": 1}, "predicate": "a\tb", "object": {"start": 0, "end": 1}},
            "holds a tab",
        ),
    ],
)
def test_wrong_offsets_are_refused(relation: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RelationExtractionExample.model_validate({"text": "甲甲甲", "relations": [relation]})


def test_types_must_be_there_if_asked_for() -> None:
    relation = {
        "subject": {"start": 0, "end": 1, "label": "人"},
        "predicate": "p",
        "object": {"start": 1, "end": 2},
    }
    examples = [RelationExtractionExample.model_validate({"text": "甲乙", "relations": [relation]})]
    assert RelationExtraction.collect_labels(RelationExtractionConfig(), examples) == ["p"]
    with pytest.raises(UserError, match="needs a label on every object"):
        RelationExtraction.collect_labels(RelationExtractionConfig(typed=True), examples)
    with pytest.raises(UserError, match="the training set has none"):
        RelationExtraction.collect_labels(RelationExtractionConfig(), [])
    with pytest.raises(ValidationError, match="conditioning needs head: casrel"):
        RelationExtractionConfig(conditioning="addition")


@pytest.mark.parametrize("head", ["gplinker", "casrel"])
def test_a_document_of_20000_characters(head: str, folder: Path) -> None:
    """A random model without biases says yes to half of everything: the worst that memory and time can meet."""
    backbone, tokenizer = load_folder(folder)
    task = a_task(head=head, max_length=256)
    torch.manual_seed(0)
    model = Model(backbone, task.build_head(backbone))
    unbiased(model.head)
    text = ("王小明生于北京，住在上海。" * 1700)[:20000]
    given = RelationExtractionExample(text=text)
    rows = task.featurize(given, tokenizer)
    assert len(rows) > 80
    (prediction,) = predictions(model, task, tokenizer, [given])
    found = prediction["relations"]
    assert len(found) <= 256 * len(rows)
    places = [(*end_places(r), r["predicate"]) for r in found]
    assert len(set(places)) == len(places) > 0
    for relation in found:
        for end in (relation["subject"], relation["object"]):
            assert text[end["start"] : end["end"]] == end["text"] != ""
    assert max(place[0] for place in places) > 19_000


def test_the_threshold_is_what_every_part_is_above(folder: Path) -> None:
    backbone, tokenizer = load_folder(folder)
    torch.manual_seed(0)
    model = Model(backbone, a_task().build_head(backbone))
    unbiased(model.head)
    given = RelationExtractionExample(text="王小")

    def found(threshold: float) -> dict[tuple[Any, ...], float]:
        (prediction,) = predictions(model, a_task(threshold=threshold), tokenizer, [given])
        return {(*end_places(r), r["predicate"]): r["score"] for r in prediction["relations"]}

    everything = found(0.01)
    middle = float(np.median([*everything.values()])) + 1e-6
    surer = {triple: score for triple, score in everything.items() if score > middle}
    assert found(middle) == surer
    assert 0 < len(surer) < len(everything) < 100


def test_a_threshold_chosen_on_dev_is_the_best_and_stays(folder: Path) -> None:
    backbone, tokenizer = load_folder(folder)
    torch.manual_seed(0)
    task = a_task(threshold=None)
    model = Model(backbone, task.build_head(backbone))
    unbiased(model.head)
    model.head.entities.ends.bias.data -= 1.5  # type: ignore[union-attr]
    texts = [RelationExtractionExample(text=text, relations=()) for text in ("王小", "北京", "生于")]
    found = [prediction["relations"] for prediction in predictions(model, task, tokenizer, texts)]
    # right is the surer half of what is found
    middle = float(np.median([relation["score"] for own in found for relation in own]))
    right = [[relation for relation in own if relation["score"] > middle] for own in found]
    keep = {"subject", "predicate", "object"}
    examples = [
        RelationExtractionExample(
            text=example.text,
            relations=[{key: value for key, value in one.items() if key in keep} for one in own],  # type: ignore[arg-type]
        )
        for example, own in zip(texts, right, strict=True)
    ]
    answered = [{"text": e.text, "relations": own} for e, own in zip(texts, found, strict=True)]
    settled = task.settle(examples, answered)
    values = {at: task.score(examples, surer(answered, at)).values()["f1"] for at in CANDIDATES}
    assert task.score(examples, settled).values()["f1"] == max(values.values()) > values[0.5] >= 0
    assert values[task.threshold] == max(values.values())
    again = RelationExtraction(RelationExtractionConfig(**task.meta()["config"]), task.labels)
    assert again.config.threshold == task.threshold
    assert list(predictions(model, again, tokenizer, texts)) == settled
    with pytest.raises(ValueError, match="threshold: null needs head: gplinker"):
        a_task(head="casrel", threshold=None)


def test_training_chooses_the_threshold_and_the_bundle_has_it(folder: Path, tmp_path: Path) -> None:
    """What was scored on dev in training is what the saved model reaches there."""
    config = toy_config(tmp_path, "relations-gplinker", folder, max_steps=100, epochs=1000, eval_steps=100)
    run = train(changed(config, {"task.threshold": None}))
    scored = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"][-1]["metrics"]
    assert scored["f1"] > 0 and load_bundle(run / "bundle").task.config.threshold in CANDIDATES
    assert evaluate(run, config.data.source("dev"), output=tmp_path / "dev")["f1"] == scored["f1"]


def end_places(relation: dict[str, Any]) -> tuple[int, ...]:
    return tuple(relation[end][key] for end in ("subject", "object") for key in ("start", "end"))


def test_outputs_of_a_window_do_not_grow_with_its_square(folder: Path) -> None:
    backbone, _ = load_folder(folder)
    task = RelationExtraction(RelationExtractionConfig(), [str(i) for i in range(44)])
    head = task.build_head(backbone)
    found = head(torch.zeros(1, 256, backbone.hidden_size), torch.ones(1, 256))
    numbers = sum(value.numel() for value in found.values())
    assert numbers == 256 * (3 * 128 + 2 * (2 + 44 + 44)) < (2 + 44 + 44) * 256 * 256 / 40
