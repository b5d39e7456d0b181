"""What becomes of the characters of a text, and of Chinese words under a mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, DataCollatorForLanguageModeling
from transformers.utils import logging

from checks.material import records, tiny_encoder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.samples import sample_records
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.text.sentences import split_sentences
from wenmai.text.words import segment_words

ODD_TEXTS = [
    "他说：　你好　世界",  # U+3000
    "第一行\r\n第二行\n第三行",
    "零宽\u200b空格\u200d连接\ufeff标记",
    "全角ＡＢＣ与１９９８年",
    "表情😀👨‍👩‍👧和🇨🇳",
    "组合é与ａ\u0301",
    "罕用字𠮷𡃁𪚥",
    "制表\t符与\xa0空格",
    "替换\ufffd符",
    "China与GPT-4在2026年",
    "（１）１９９８年１月１日",
    "㎏与½和①",
]
SHARE = 0.15


def character_rows(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Characters without a token of their own, and characters whose label would fall on another's token."""
    encoder = tiny_encoder(folder, "bert", records(200))
    _, ours = load_folder(encoder)
    theirs = AutoTokenizer.from_pretrained(encoder)
    newspaper = [sample.data["text"] for sample in sample_records("peoples_daily", "dev")]
    rows = []
    for name, texts in (
        (f"{len(ODD_TEXTS)} odd texts", ODD_TEXTS),
        ("newspaper text", newspaper[: 100 if quick else 1000]),
    ):
        total = sum(map(len, texts))
        own = [our_offsets(ours, text) for text in texts]
        other = [
            theirs(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
                "offset_mapping"
            ]
            for text in texts
        ]
        for what, count in (
            ("without a token of their own", without_own_token),
            ("whose label falls on another token", shifted),
        ):
            lost = sum(count(text, offsets) for text, offsets in zip(texts, own, strict=True))
            rows.append(
                {
                    "row": f"characters {what}: {name}, {total:,} characters",
                    "ours": lost,
                    "trainer": sum(count(text, offsets) for text, offsets in zip(texts, other, strict=True)),
                    "ours_exact": lost == 0,
                }
            )
    return rows


def our_offsets(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """As named entities are read with ``task.tokens: characters``."""
    return tokenizer.encode(text, characters=True).offsets


def without_own_token(text: str, offsets: Sequence[tuple[int, int]]) -> int:
    """Characters that no token stands for alone."""
    alone = {start for start, end in offsets if end - start == 1}
    return len(text) - len(alone)


def shifted(text: str, offsets: Sequence[tuple[int, int]]) -> int:
    """Characters that a list of labels, one a character, gives to a token of other characters or to none."""
    placed = sum(start <= i < end for i, (start, end) in enumerate(offsets[: len(text)]))
    return len(text) - placed


def masking_rows(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Whole-word masking of Chinese: the share of masked tokens, and sentences of which nothing or all is masked."""
    encoder = tiny_encoder(folder, "bert", records(200))
    texts = sentences(200 if quick else 3000)
    ours = our_shares(encoder, texts)
    theirs = trainer_shares(encoder, texts)
    # the mean of so many shares strays by chance
    tolerance = 4 * float(ours.std()) / len(ours) ** 0.5
    count = f"{len(texts):,} sentences"
    return [
        {
            "row": f"whole-word masking of Chinese, {SHARE:.0%} wanted: mean share of masked tokens, {count}",
            "ours": round(float(ours.mean()), 4),
            "trainer": round(float(theirs.mean()), 4),
            "ours_exact": abs(float(ours.mean()) - SHARE) <= tolerance,
        },
        {
            "row": f"whole-word masking of Chinese: share of sentences of which nothing or all is masked, {count}",
            "ours": round(float(((ours == 0) | (ours == 1)).mean()), 4),
            "trainer": round(float(((theirs == 0) | (theirs == 1)).mean()), 4),
            "ours_exact": not bool(((ours == 0) | (ours == 1)).any()),
        },
    ]


def sentences(count: int) -> list[str]:
    """Sentences of 20 to 100 characters of which no word alone is more than the share: one can always be masked."""
    found: list[str] = []
    for sample in sample_records("peoples_daily", "train"):
        text = sample.data["text"]
        for start, end in split_sentences(text):
            sentence = text[start:end]
            longest = max(last - first for first, last in segment_words(sentence, segmenter="rjieba"))
            if 20 <= len(sentence) <= 100 and longest <= SHARE * len(sentence):
                found.append(sentence)
        if len(found) >= count:
            break
    return found[:count]


def our_shares(encoder: Path, texts: Sequence[str]) -> np.ndarray:
    _, tokenizer = load_folder(encoder)
    task = MaskedLM(MaskedLMConfig(whole_words=True, max_length=128, mask_share=SHARE), [])
    shares = []
    for number, text in enumerate(texts):
        (row,) = task.featurize(MaskedLMExample(text=text), tokenizer)
        masked = task.augment(row, np.random.default_rng([1, number]), tokenizer).targets["original"]
        first, stop = row.content
        shares.append(float((np.array(masked)[first:stop] != -100).mean()))
    return np.array(shares)


def trainer_shares(encoder: Path, texts: Sequence[str]) -> np.ndarray:
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    collator = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, mlm_probability=SHARE, seed=1)
    shares = []
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        labels = collator([dict(encoded)])["labels"][0]
        content = np.array(encoded["special_tokens_mask"]) == 0
        shares.append(float((labels.numpy()[content] != -100).mean()))
    return np.array(shares)
