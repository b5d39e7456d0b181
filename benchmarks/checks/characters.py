"""What becomes of the characters of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from checks.material import records, tiny_encoder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.samples import sample_records

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
