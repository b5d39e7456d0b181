"""Words and trees of a text: what the head learns, sentences and rows, given words, what can't be expressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, TOYS, parsed, toy_config
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import save_bundle
from wenmai.cli import main
from wenmai.data.rows import IGNORE, Row
from wenmai.errors import UserError
from wenmai.inference.output import ltp
from wenmai.inference.predictor import Predictor, load
from wenmai.tasks.dependency_example import DependencyExample
from wenmai.tasks.dependency_parsing import DependencyParsing, DependencyParsingConfig
from wenmai.tasks.model import Model
from wenmai.training.trainer import train

LABELS = [
    "relation/nsubj",
    "relation/obj",
    "relation/punct",
    "root/root",
    "upos/NOUN",
    "upos/PUNCT",
    "upos/VERB",
]
LOVE = parsed(
    ("我们", "NOUN", 2, "nsubj"),
    ("喜欢", "VERB", 0, "root"),
    ("上海", "NOUN", 2, "obj"),
    ("。", "PUNCT", 2, "punct"),
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


@pytest.fixture(scope="module")
def tokenizer(backbone: Path) -> Tokenizer:
    return load_folder(backbone)[1]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer whose pieces have several characters: 我们, 喜欢, 上海 and ▁ are among them."""
    return load_folder(tiny_backbone_folder(tmp_path_factory.mktemp("pieces"), vocabulary="unigram"))[1]


def task(**keys: Any) -> DependencyParsing:
    return DependencyParsing(DependencyParsingConfig(**keys), LABELS)


def example(record: dict[str, Any], **fields: Any) -> DependencyExample:
    return DependencyExample.model_validate({**record, **fields})


def known(row: Row, name: str) -> dict[int, int]:
    return {at: int(value) for at, value in enumerate(row.targets[name]) if value != IGNORE}  # type: ignore[arg-type]


def test_targets_stand_at_the_last_tokens(tokenizer: Tokenizer) -> None:
    """[CLS] 我 们 喜 欢 上 海 。 [SEP]; that a word begins at 我 is known before."""
    (row,) = task().featurize(example(LOVE), tokenizer)
    assert known(row, "ends") == {2: 1, 4: 1, 6: 1, 7: 1}
    assert known(row, "begins") == {2: 0, 3: 1, 4: 0, 5: 1, 6: 0, 7: 1}
    assert known(row, "upos") == {2: 0, 4: 2, 6: 0, 7: 1}
    assert known(row, "heads") == {2: 4, 4: 4, 6: 4, 7: 4}
    assert known(row, "relations") == {2: 0, 4: 0, 6: 1, 7: 2}
    assert task(parts=["heads"]).featurize(example(LOVE), tokenizer)[0].targets.keys() == {
        "ends",
        "heads",
        "relations",
    }


def test_blanks_end_words_by_themselves(tokenizer: Tokenizer) -> None:
    text = "ab c\u3000d"
    words = [{"start": 0, "end": 2}, {"start": 3, "end": 4}, {"start": 5, "end": 6}]
    (row,) = task(parts=["words"], tokens="characters").featurize(
        example({"text": text, "words": words}), tokenizer
    )
    assert known(row, "begins") == {2: 0}  # b; nothing else is open
    assert known(row, "ends") == {2: 1, 4: 1, 6: 1}


def test_what_rows_can_not_express_is_told_and_not_learned(tokenizer: Tokenizer, pieces: Tokenizer) -> None:
    split = parsed(("我", "NOUN", 3, "nsubj"), ("们", "NOUN", 1, "obj"), ("喜欢", "VERB", 0, "root"))
    (row,) = task(tokens="pieces").featurize(example(split), pieces)
    assert len(known(row, "ends")) == 1 and list(known(row, "heads")) == list(known(row, "ends"))
    lost = task(tokens="pieces").lost_labels(example(split), pieces)
    assert lost == [
        f"words[{i}] ('{surface}'): begins or ends inside a token: set task.tokens: characters"
        for i, surface in enumerate("我们")
    ]
    assert task().lost_labels(example(split), tokenizer) == []
    blank = {"text": "上 海", "words": [{"start": 0, "end": 3, "upos": "X", "head": 0, "relation": "dep"}]}
    assert task().lost_labels(example(blank), tokenizer) == [
        "words[0] ('上 海'): holds a blank, at which every word ends",
        "words[0] ('上 海'): relation 'dep' does not occur in the training set",
        "words[0] ('上 海'): upos 'X' does not occur in the training set",
    ]
    (row,) = task().featurize(example(blank), tokenizer)
    assert all(not known(row, name) for name in row.targets)


def test_subtypes_can_be_left_out(tokenizer: Tokenizer) -> None:
    passive = parsed(("上海", "NOUN", 2, "nsubj:pass"), ("喜欢", "VERB", 0, "root"))
    config = DependencyParsingConfig(subtypes=False)
    labels = DependencyParsing.collect_labels(config, [example(passive)])
    assert labels == ["relation/nsubj", "root/root", "upos/NOUN", "upos/VERB"]
    short = DependencyParsing(config, labels)
    assert short.lost_labels(example(passive), tokenizer) == []
    assert known(short.featurize(example(passive), tokenizer)[0], "relations") == {2: 0, 4: 0}


def rows_cover(rows: list[Row], text: str) -> bool:
    covered = [place for row in rows for place in row.offsets[slice(*row.content)]]
    return covered == [(i, i + 1) for i, character in enumerate(text)]


def test_a_row_is_a_sentence_and_windows_never_cut_one_that_fits(tokenizer: Tokenizer) -> None:
    text = "我们喜欢上海。今天很好！" * 3 + "因为价格，" * 8 + "没有问题。"
    rows = task(max_length=32).featurize(DependencyExample(text=text), tokenizer)
    assert rows_cover(rows, text)
    surfaces = [text[row.offsets[1][0] : row.offsets[-2][1]] for row in rows]
    assert surfaces[:6] == ["我们喜欢上海。", "今天很好！"] * 3
    assert surfaces[6:] == ["因为价格，" * 6, "因为价格，" * 2 + "没有问题。"]
    assert [row.window for row in rows] == list(np.cumsum([0, *map(len, surfaces[:-1])]))
    whole = task(split_sentences=False, max_length=128).featurize(DependencyExample(text=text), tokenizer)
    assert len(whole) == 1
    labelled = task().featurize(example(LOVE | {"text": "我们喜欢上海。"}), tokenizer)
    assert len(labelled) == 1


def test_gold_sentences_count_their_words_from_one(tokenizer: Tokenizer) -> None:
    shift = len(LOVE["text"])
    again = [{**w, "start": w["start"] + shift, "end": w["end"] + shift} for w in LOVE["words"]]
    both = example(
        {"text": LOVE["text"] * 2, "words": LOVE["words"] + again},
        sentences=[{"start": 0, "end": shift}, {"start": shift, "end": 2 * shift}],
    )
    first, second = task().featurize(both, tokenizer)
    (alone,) = task().featurize(example(LOVE), tokenizer)
    assert first.targets == second.targets == alone.targets
    assert second.window == shift
    assert [word.head for word in both.parsed()][4:6] == [(9, 11), (-1, -1)]


def test_arcs_out_of_a_part_are_not_learned(tokenizer: Tokenizer) -> None:
    """A sentence of 24 words in rows of 14 tokens: the words in the later parts hang on one in the first."""
    words = [("好", "NOUN", 0, "root"), *[("好，"[i % 2], "PUNCT", 1, "punct") for i in range(23)]]
    long = example(parsed(*words))
    cut = task(max_length=14)
    rows = cut.featurize(long, tokenizer)
    assert [len(row) - 2 for row in rows] == [11, 12, 1]
    assert [len(known(row, "ends")) for row in rows] == [11, 12, 1]
    assert [len(known(row, "heads")) for row in rows] == [11, 0, 0]
    lost = cut.lost_labels(long, tokenizer)
    assert len(lost) == 13 and lost[0].endswith(
        "its sentence is cut in front of its head: raise task.max_length"
    )


def scores_of(rows: list[Row], **wanted: dict[int, Any]) -> list[dict[str, np.ndarray]]:
    """Outputs of one row that say what is wanted: at tokens of the row."""
    (row,) = rows
    size = len(row)
    out = {
        "begins": np.full(size, -1.0, dtype=np.float32),
        "upos": np.zeros((size, 3), dtype=np.float32),
        "arcs": np.zeros((size, size), dtype=np.float32),
        "relations": np.zeros((size, size), dtype=np.float32),
    }
    for at in wanted.get("begins", ()):
        out["begins"][at] = 1.0
    for at, upos in wanted.get("upos", {}).items():
        out["upos"][at, upos] = 1.0
    for at, (head, relation) in wanted.get("heads", {}).items():
        out["arcs"][at, head] = 9.0
        out["relations"][at, head] = relation
    return [out]


def test_decoding_by_hand(tokenizer: Tokenizer) -> None:
    parser = task(decoder="projective")
    text = "我们 喜欢上海。"
    item = parser.as_example({"text": text, "id": 3})
    rows = parser.featurize(item, tokenizer)
    # [CLS] 我 们 喜 欢 上 海 。: the tiny tokenizer has no token for the blank
    outputs = scores_of(
        rows,
        begins={5: 1, 7: 1},
        upos={2: 0, 4: 2, 6: 0, 7: 1},
        heads={2: (4, 0), 4: (4, 0), 6: (4, 1), 7: (4, 2)},
    )
    found = parser.decode(outputs, rows, item)
    assert found == {
        "text": text,
        "sentences": [{"start": 0, "end": 8}],
        "words": [
            {"start": 0, "end": 2, "text": "我们", "upos": "NOUN", "head": 2, "relation": "nsubj"},
            {"start": 3, "end": 5, "text": "喜欢", "upos": "VERB", "head": 0, "relation": "root"},
            {"start": 5, "end": 7, "text": "上海", "upos": "NOUN", "head": 2, "relation": "obj"},
            {"start": 7, "end": 8, "text": "。", "upos": "PUNCT", "head": 2, "relation": "punct"},
        ],
    }
    DependencyExample.model_validate(found)  # a prediction is a record
    assert ltp({"id": 3, **found}) == {
        "id": 3,
        "cws": [["我们", "喜欢", "上海", "。"]],
        "pos": [["NOUN", "VERB", "NOUN", "PUNCT"]],
        "dep": [{"head": [2, 0, 2, 2], "label": ["nsubj", "root", "obj", "punct"]}],
    }
    gold = example({k: v for k, v in found.items() if k != "sentences"})
    values = parser.score([gold], [found]).values()
    assert values["las"] == values["word_f1"] == values["upos_f1"] == values["las_subtypes"] == 1.0
    names, counts = parser.confusion([gold], [found]) or ([], np.zeros(0))
    assert names == ["NOUN", "PUNCT", "VERB", "(none)"] and counts.sum() == np.trace(counts) == 4
    cuts = parser.breakdowns([gold], [found], frozenset({"我们"}))
    assert set(cuts["seen"]) == {"seen", "unseen"} and set(cuts["relation"]) == {
        "nsubj",
        "root",
        "obj",
        "punct",
    }
    assert all(group.values()["f1"] == 1.0 for cut in cuts.values() for group in cut.values())


@pytest.mark.parametrize("parts", [["heads"], ["upos", "heads"], ["words", "upos", "heads"]])
def test_given_words_are_taken_as_they_are(parts: list[str], pieces: Tokenizer) -> None:
    """Also where a piece would span two of them, and where a word has characters that no piece stands for."""
    parser = task(parts=parts, tokens="pieces")
    text = "我们喜\u200b欢 上海\u200b\x07。"
    places = [(0, 1), (1, 2), (2, 5), (6, 10), (10, 11)]
    item = parser.as_example({"text": text, "words": [{"start": a, "end": b} for a, b in places]})
    rows = parser.featurize(item, pieces)
    (row,) = rows
    ends = list(known(row, "ends"))
    assert len(ends) == 5
    outputs = scores_of(rows, heads={ends[i]: (ends[max(0, i - 1)], 0) for i in range(5)})
    found = parser.decode(outputs, rows, item)
    assert [(word["start"], word["end"]) for word in found["words"]] == places
    assert [word["head"] for word in found["words"]] == [0, 1, 2, 3, 4]


def test_whose_words_count() -> None:
    whole, alone = task(), task(parts=["upos", "heads"])
    assert whole.as_example(LOVE).words is None  # a labelled record: its analysis is what is to be found
    assert alone.as_example(LOVE).bare
    with pytest.raises(
        UserError, match=r"does not find words \(its task.parts are upos, heads\): give them as"
    ):
        alone.as_example("我们")
    with pytest.raises(UserError, match="dependency_parsing predicts for a text"):
        whole.as_example(7)


def test_labels_that_are_missing_are_told_before_training() -> None:
    bare = example({"text": "上海", "words": [{"start": 0, "end": 2}]})
    assert task().label_problems(bare) == [
        "words: have no upos, which task.parts asks for: take upos out of it, or leave the record out",
        "words: have no head, which task.parts asks for: take heads out of it, or leave the record out",
    ]
    assert task(parts=["words"]).label_problems(bare) == []
    collect = DependencyParsing.collect_labels
    with pytest.raises(UserError, match="names upos, but no word of the training set has a upos"):
        collect(DependencyParsingConfig(), [bare])
    with pytest.raises(UserError, match="names heads, but no word of the training set has a head"):
        collect(DependencyParsingConfig(parts=["heads"]), [bare])
    with pytest.raises(UserError, match="needs words, the training set has none"):
        collect(DependencyParsingConfig(parts=["words"]), [DependencyExample(text="上海", words=())])
    with pytest.raises(ValidationError, match="names a part twice"):
        DependencyParsingConfig(parts=["words", "words"])


BAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "range": ([{"start": 1, "end": 9}], "end 9 lies outside the text"),
    "order": ([{"start": 1, "end": 3}, {"start": 2, "end": 4}], "before the word in front of it ends at 3"),
    "blank": ([{"start": 3, "end": 5}], "' 欢' begins or ends with a blank"),
    "surface": ([{"start": 0, "end": 1, "text": "你"}], "the text at 0:1 is '我', not '你'"),
    "no relation": ([{"start": 0, "end": 1, "head": 0}], "has a head but no relation"),
    "half a tree": (
        [{"start": 0, "end": 1, "head": 0, "relation": "root"}, {"start": 1, "end": 2}],
        "has no head, others of its sentence have",
    ),
    "head": ([{"start": 0, "end": 1, "head": 2, "relation": "x"}], "head 2 is the number of no word"),
    "no root": (
        [{"start": i, "end": i + 1, "head": 2 - i, "relation": "x"} for i in range(2)],
        r"exactly one root \(head 0\), this one has 0 \(none\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_records_that_are_no_sentence(name: str) -> None:
    words, said = BAD[name]
    with pytest.raises(ValidationError, match=said):
        example({"text": "我们喜 欢", "words": words})


def test_words_outside_of_sentences_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"words\[0\]: 0:2 lies in none of the sentences"):
        example({"text": "上海", "words": [{"start": 0, "end": 2}]}, sentences=[{"start": 1, "end": 2}])
    with pytest.raises(ValidationError, match=r"sentences\[1\]: start 0 and end 2 are no range behind"):
        example({"text": "上海"}, sentences=[{"start": 0, "end": 1}, {"start": 0, "end": 2}])


@pytest.fixture(scope="module")
def untrained(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, for what does not depend on them."""
    encoder, tokenizer = load_folder(backbone)
    parser = task(max_length=64, arc_size=16, relation_size=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Model(encoder, parser.build_head(encoder))
        for parameter in model.head.parameters():
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("untrained") / "bundle"
    save_bundle(folder, parser, model, tokenizer)
    return folder


def test_a_long_document_has_trees_everywhere(untrained: Path) -> None:
    """20,000 characters, with a sentence longer than a row, blanks and emoji."""
    sentence = "今天👨‍👩‍👧 喜欢\u3000iPhone 15，在上海！"
    text = sentence * 800 + "没有问题" * 40 + "\n\n  \n" + "好。" * 100
    predictor = load(untrained)
    found = predictor(text)
    words, sentences = found["words"], found["sentences"]
    DependencyExample.model_validate(found)
    covered = {at for word in words for at in range(word["start"], word["end"])}
    assert covered >= {at for at, c in enumerate(text) if not c.isspace()} - unread(predictor, text)
    assert all(word["text"] == text[word["start"] : word["end"]] for word in words)
    assert len(sentences) > 800 + 100
    assert found["sentences"] == sorted(sentences, key=lambda s: s["start"])
    alone = predictor(sentence)
    assert [{k: w[k] for k in ("start", "end", "upos", "head", "relation")} for w in alone["words"]] == [
        {k: w[k] for k in ("start", "end", "upos", "head", "relation")} for w in words[: len(alone["words"])]
    ]


def unread(predictor: Predictor, text: str) -> set[int]:
    """Characters that the tokenizer drops."""
    read = {at for start, end in predictor.tokenizer.encode(text).offsets for at in range(start, end)}
    return set(range(len(text))) - read


def test_conllu_and_ltp_on_the_command_line(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("我们喜欢上海。今天很好！\n", encoding="utf-8")
    command = ["predict", str(untrained), str(tmp_path / "a.txt"), "--output-format"]
    assert main([*command, "conllu"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert blocks[0].startswith("# text = 我们喜欢上海。\n1\t") and blocks[1].startswith(
        "# text = 今天很好！\n1\t"
    )
    assert main([*command, "ltp", "--output", str(tmp_path / "out")]) == 0
    assert '{"cws": [["' in (tmp_path / "out").read_text(encoding="utf-8")


def test_other_tasks_have_no_trees_to_write(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from wenmai.tasks.text_classification import TextClassification, TextClassificationConfig

    encoder, tokenizer = load_folder(backbone)
    other = TextClassification(TextClassificationConfig(), ["a", "b"])
    save_bundle(tmp_path / "bundle", other, Model(encoder, other.build_head(encoder)), tokenizer)
    (tmp_path / "a.txt").write_text("好\n", encoding="utf-8")
    assert main(["predict", str(tmp_path / "bundle"), str(tmp_path / "a.txt"), "--output-format", "ltp"]) == 2
    assert "--output-format ltp: is for dependency_parsing" in capsys.readouterr().err


@pytest.mark.parametrize("parts", [["words"], ["upos", "heads"]])
def test_parts_alone_are_learned(parts: list[str], backbone: Path, tmp_path: Path, monkeypatch: Any) -> None:
    settings, records = TOYS["dependencies"]
    monkeypatch.setitem(TOYS, "alone", ({**settings, "parts": parts}, records))
    predictor: Predictor = load(train(toy_config(tmp_path, "alone", backbone, epochs=25, eval_steps=0.5)))
    examples = [DependencyExample.model_validate(record) for record in records]
    found = list(predictor.predict_examples(examples))
    values = predictor.task.score(examples, found).values()
    assert values[predictor.task.primary_metric] > 0.95
    assert ("upos" in found[0]["words"][0], "head" in found[0]["words"][0]) == (
        "upos" in parts,
        "heads" in parts,
    )
