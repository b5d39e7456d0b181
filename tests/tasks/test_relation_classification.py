"""Marked pairs: markers exactly around their entities, long texts keep both, records in every form, the vocabulary."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.examples import read_examples
from wenmai.data.rows import Row
from wenmai.errors import DataError, UserError
from wenmai.heads.marked_pair import OBJECT, OBJECT_START, SUBJECT, SUBJECT_START
from wenmai.inference.asking import asked
from wenmai.tasks.model import build_model, with_own_tokens
from wenmai.tasks.pair_rows import marker_ids
from wenmai.tasks.relation_classification import (
    RelationClassification,
    RelationClassificationConfig,
    RelationClassificationExample,
    distance_group,
)
from wenmai.text.places import TAGS
from wenmai.training.setup import prepare

LABELS = ["a", "b"]
PARTS = [
    *[
        "张三",
        "北京大学",
        "在",
        "中国人民银行",
        "，",
        "龘",
        "hello",
        "World",
        "3.14",
        "<e1>",
        "</e2>",
        "[SEP]",
    ],
    *[
        "ＡＢＣ",
        "½",
        "👨\u200d👩\u200d👧",
        "🇨🇳",
        "\r\n",
        " ",
        "\u3000",
        "\u200b",
        "e\u0301",
        "𠮷",
        "▁",
        "x",
        "y",
    ],
]


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=PARTS, vocabulary=request.param)
    backbone, found = load_folder(folder)
    return with_own_tokens(task_of(), backbone, found)


def task_of(**keys: Any) -> RelationClassification:
    return RelationClassification(RelationClassificationConfig.model_validate(keys), LABELS)


def pair(text: str, subject: tuple[int, int], target: tuple[int, int]) -> RelationClassificationExample:
    ends = ({"start": start, "end": end} for start, end in (subject, target))
    return RelationClassificationExample.model_validate(
        {"text": text, "label": "a", **dict(zip(("subject", "object"), ends, strict=True))}
    )


def marked(row: Row, tokenizer: Tokenizer, which: int) -> list[tuple[int, int]]:
    """The characters of the tokens between the markers of an entity, other markers left out."""
    ids = row.inputs["input_ids"]
    markers = marker_ids(tokenizer)
    assert [ids.count(marker) for marker in markers] == [1, 1, 1, 1]
    begin, end = ids.index(markers[2 * which]), ids.index(markers[2 * which + 1])
    return [row.offsets[at] for at in range(begin + 1, end) if ids[at] not in markers]


@pytest.mark.parametrize("tokens", ["characters", "pieces"])
def test_markers_stand_exactly_around_their_entities(tokens: str, tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    task = task_of(tokens=tokens, max_length=512)
    empty = 0
    for _ in range(400):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 8)))
        ends = []
        for _ in range(2):
            start = rng.randrange(len(text))
            ends.append((start, rng.randint(start + 1, min(len(text), start + 6))))
        example = pair(text, *ends)
        (row,) = task.featurize(example, tokenizer)
        lost = task.lost_labels(example, tokenizer)
        for which, (start, end) in enumerate(ends):
            inside = marked(row, tokenizer, which)
            if tokens == "characters":
                assert inside == [(i, i + 1) for i in range(start, end)]
            elif not inside:
                empty += 1
                assert any("has no token" in message for message in lost), (example, lost)
            else:
                assert start <= inside[0][0] and inside[-1][1] <= end
            bits = ((SUBJECT, SUBJECT_START), (OBJECT, OBJECT_START))[which]
            marks = list(zip(row.inputs["pair_marks"], row.inputs["input_ids"], row.offsets, strict=True))
            assert [offset for mark, _, offset in marks if mark & bits[0]] == inside
            assert [token for mark, token, _ in marks if mark & bits[1]] == [marker_ids(tokenizer)[2 * which]]
        # without the markers it is the text, whatever tags the user wrote in it
        others = [offset for _, token, offset in marks if token not in marker_ids(tokenizer)][1:-1]
        assert others == sorted(others) and (tokens == "pieces" or len(others) == len(text))
    assert (empty > 0) == (tokens == "pieces")


def test_a_piece_over_a_border_is_divided(tmp_path: Path) -> None:
    folder = tiny_backbone_folder(tmp_path, texts=["中国人民银行"], vocabulary="unigram")
    tokenizer = load_folder(folder)[1]
    task = task_of(tokens="pieces", markers=False)
    assert (1, 3) in tokenizer.encode("在中国人民银行").offsets or (1, 5) in tokenizer.encode(
        "在中国人民银行"
    ).offsets
    (row,) = task.featurize(pair("在中国人民银行", (2, 3), (0, 1)), tokenizer)
    inside = [o for m, o in zip(row.inputs["pair_marks"], row.offsets, strict=True) if m & SUBJECT]
    assert inside == [(2, 3)]
    starts = [o for m, o in zip(row.inputs["pair_marks"], row.offsets, strict=True) if m & OBJECT_START]
    assert starts == [(0, 1)]


def test_entities_inside_each_other(tokenizer: Tokenizer) -> None:
    def written(subject: tuple[int, int], target: tuple[int, int]) -> str:
        (row,) = task_of(tokens="characters").featurize(pair("张三在北", subject, target), tokenizer)
        tokens = dict(zip(marker_ids(tokenizer), TAGS, strict=True))
        return "".join(
            tokens.get(token, "张三在北"[start:end])
            for token, (start, end) in zip(row.inputs["input_ids"], row.offsets, strict=True)
        )

    assert written((0, 3), (0, 1)) == "<e1><e2>张</e2>三在</e1>北"
    assert written((2, 3), (0, 3)) == "<e2>张三<e1>在</e1></e2>北"
    assert written((1, 2), (1, 2)) == "张<e1><e2>三</e2></e1>在北"
    assert written((0, 2), (2, 4)) == "<e1>张三</e1><e2>在北</e2>"
    assert written((0, 2), (1, 3)) == "<e1>张<e2>三</e1>在</e2>北"


TEXT = "".join(chr(0x4E00 + i) for i in range(200))


@pytest.mark.parametrize("markers", [True, False])
def test_long_texts_keep_both_entities(markers: bool, tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    room = 40 - 2 - (4 if markers else 0)
    task = task_of(tokens="characters", max_length=40, markers=markers)
    seen = set()
    for _ in range(300):
        ends = []
        for _ in range(2):
            start = rng.randrange(len(TEXT) - 1)
            ends.append((start, min(len(TEXT), start + rng.choice([1, 2, 5, 30]))))
        example = pair(TEXT, *ends)
        (row,) = task.featurize(example, tokenizer)
        assert len(row) <= 40
        held = [
            [o[0] for m, o in zip(row.inputs["pair_marks"], row.offsets, strict=True) if m & bit]
            for bit in (SUBJECT, OBJECT)
        ]
        lost = "; ".join(task.lost_labels(example, tokenizer))
        whole = [list(range(*end)) for end in ends]
        first, last = min(start for start, _ in ends), max(end for _, end in ends)
        kept = {o[0] for o in row.offsets if o != (0, 0)}
        if last - first <= room:
            seen.add("window")
            assert held == whole and len(kept) == room
            # centred unless the text ends: as much on one side as on the other
            left, right = first - min(kept), max(kept) + 1 - last
            assert abs(left - right) <= 1 or min(kept) == 0 or max(kept) == len(TEXT) - 1
            assert "tokens are cut off, those farthest" in lost
        elif all(end - start <= room // 2 for start, end in ends):
            seen.add("two pieces")
            assert held == whole
            assert "tokens between the entities are cut out" in lost
        else:
            seen.add("too long")
            # the beginning of each is there; what is not is told
            assert all(part[:1] == entity[:1] for part, entity in zip(held, whole, strict=True))
            missing = {i for entity in whole for i in entity} - kept
            assert (f"{len(missing)} tokens at the end of an entity are cut off" in lost) == bool(missing)
    assert seen == {"window", "two pieces", "too long"}


def test_short_texts_lose_nothing(tokenizer: Tokenizer) -> None:
    example = pair(TEXT[:34], (0, 1), (33, 34))
    task = task_of(tokens="characters", max_length=40)
    assert task.lost_labels(example, tokenizer) == []
    (row,) = task.featurize(example, tokenizer)
    assert len(row) == 40


def test_records_in_every_form() -> None:
    forms: list[dict[str, Any]] = [
        {"text": "上海在中国", "subject": {"start": 0, "end": 2}, "object": {"start": 3, "end": 5}},
        {"text": "上海在中国", "subject": "上海", "object": "中国"},
        {"text": "上海在中国", "subject": {"start": 0, "end": 2}, "object": "中国"},
        {"text": "<e1>上海</e1>在<e2> 中国 </e2>"},
    ]
    examples = [RelationClassificationExample.model_validate({**form, "label": 3}) for form in forms]
    assert len({example.model_dump_json() for example in examples}) == 1
    assert examples[0].label == "3" and not any(example.guesses for example in examples)
    (guess,) = RelationClassificationExample.model_validate(
        {**forms[1], "text": "上海在中国，上海！"}
    ).guesses
    assert guess == "'上海' stands 2 times in the text; the one at 0:2 is taken"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "上海", "subject": "北京", "object": "上海"}, "'北京' does not stand in the text"),
        ({"text": "上海", "object": "上海"}, "subject: missing"),
        (
            {"text": "上海", "subject": {"start": 0, "end": 5}, "object": "上海"},
            "subject: end 5 lies outside the text (2 char",
        ),
        (
            {"text": "上海", "subject": {"start": 0, "end": 1, "text": "海"}, "object": "海"},
            "is '上', not '海'",
        ),
        ({"text": "<e1>上</e1>海"}, "the text has no <e2>, </e2>"),
        ({"text": "上海", "subject": 3, "object": "上海"}, "subject: an object is expected"),
    ],
)
def test_wrong_records(record: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        read_examples([{**record, "label": "a"}], RelationClassificationExample)
    assert said in str(error.value)
    with pytest.raises(UserError) as error:
        asked(task_of(), record)
    assert said in str(error.value)


@pytest.mark.parametrize("item", ["上海在中国", 7, {"text": "上海"}])
def test_what_asks_about_no_pair_is_refused(item: Any) -> None:
    with pytest.raises(UserError, match="relation_classification predicts for"):
        task_of().as_example(item)


def test_a_text_with_tags_is_asked_about() -> None:
    example = task_of().as_example("<e1>上海</e1>在<e2>中国</e2>")
    assert (example.text, example.subject.range, example.object.range) == ("上海在中国", (0, 2), (3, 5))


def test_the_vocabulary_grows_when_a_run_begins(tmp_path: Path) -> None:
    backbone = tiny_backbone_folder(tmp_path / "backbone", texts=ALL_TEXTS)
    before = load_folder(backbone)[1]
    prepared = prepare(toy_config(tmp_path / "run", "relation", backbone))
    embeddings = prepared.model.backbone.word_embeddings
    assert len(embeddings.weight) == prepared.tokenizer.vocab_size == before.vocab_size + 4
    assert prepared.model.backbone.config.vocab_size == before.vocab_size + 4
    prepared.tokenizer.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.convert_tokens_to_ids(list(TAGS)) == marker_ids(prepared.tokenizer)
    # a model that has them stays as it is
    rows = embeddings.weight.clone()
    again, same = build_model(prepared.task, prepared.model.backbone, prepared.tokenizer)
    assert same is prepared.tokenizer and (again.backbone.word_embeddings.weight == rows).all()
    unmarked = prepare(toy_config(tmp_path / "other", "relation-unmarked", backbone))
    assert unmarked.tokenizer.vocab_size == before.vocab_size


def test_without_the_markers_rows_are_refused(tmp_path: Path) -> None:
    tokenizer = load_folder(tiny_backbone_folder(tmp_path))[1]
    with pytest.raises(UserError, match=r"no <e1>, .* or set task\.markers: false"):
        task_of().featurize(pair("上海", (0, 1), (1, 2)), tokenizer)


def test_configurations_that_do_not_fit() -> None:
    with pytest.raises(ValidationError, match="representation: cls needs markers: true"):
        RelationClassificationConfig(representation="cls", markers=False)
    examples = [
        RelationClassificationExample.model_validate(
            {"text": "甲乙", "subject": "甲", "object": "乙", "label": label}
        )
        for label in ("Other", "b")
    ]
    config = RelationClassificationConfig(no_relation="other")
    with pytest.raises(UserError, match="did you mean 'Other'"):
        RelationClassification.collect_labels(config, examples)
    with pytest.raises(UserError, match="at least two labels"):
        RelationClassification.collect_labels(config, examples[:1])


def test_groups_by_distance() -> None:
    cases = {(1, 2): "0", (0, 2): "0", (2, 3): "1-4", (60, 61): "50+", (20, 21): "10-19"}
    for target, group in cases.items():
        assert distance_group(pair(TEXT, (0, 1), target)) == group
        assert distance_group(pair(TEXT, target, (0, 1))) == group
