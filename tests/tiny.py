"""Tiny random models for tests: real transformers folders, made in a moment, always the same."""

from __future__ import annotations

import string
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import Unigram
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
)

PUNCTUATION = "，。！？、；：“”‘’（）《》【】〈〉「」『』…—·～￥％" + string.punctuation
WORDS = (
    "中国|人民|银行|今天|北京|发布|新的|货币|政策|报告|中国人民|人民银行|上海|我们|公司|天气|喜欢|电影|手机|大学|"
    "价格|学生|老师|时间|问题|什么|怎么|没有|可以|因为|所以|但是|服务|质量|酒店|位于|创始人|江泽|毛泽|小平"
)


def common_characters() -> list[str]:
    """The 3,755 characters of the first level of GB 2312."""
    codes = (bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return [text for code in codes if (text := code.decode("gb2312", errors="ignore"))]


def tiny_backbone_folder(
    path: Path,
    *,
    texts: Iterable[str] = (),
    vocabulary: Literal["wordpiece", "unigram"] = "wordpiece",
    hidden_size: int = 32,
    layers: int = 2,
    positions: int = 512,
    seed: int = 0,
) -> Path:
    """A folder with ``config.json``, tokenizer and ``model.safetensors`` of a random BertModel.

    Args:
        path: the folder; made if needed.
        texts: all their characters are in the vocabulary, beside common Chinese, ASCII and punctuation.
            A unigram vocabulary also has a piece for every pair of Chinese characters that they hold twice.
        vocabulary: ``wordpiece`` as in Chinese BERT (one character a piece; Latin words and numbers by
            letters and digits), or ``unigram`` as in XLM-R (Metaspace; pieces of several characters).
        seed: of the weights; the global random state stays as it was.
    """
    texts = list(texts)
    tokenizer = _wordpiece(texts) if vocabulary == "wordpiece" else _unigram(texts)
    tokenizer.save_pretrained(path)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config, add_pooling_layer=False).save_pretrained(path)
    return path


def masked_lm_folder(folder: Path, *, seed: int = 0) -> Path:
    """The model of a folder of :func:`tiny_backbone_folder` with a masked-LM head, as pre-training saves it."""
    path = folder.with_name(f"{folder.name}-masked-lm")
    if not path.is_dir():
        AutoTokenizer.from_pretrained(folder).save_pretrained(path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            BertForMaskedLM.from_pretrained(folder).save_pretrained(path)
    return path


def decoder_folder(folder: Path, *, seed: int = 0) -> Path:
    """A random GPT-2 of the sizes and with the tokenizer of a folder of :func:`tiny_backbone_folder`, beside it."""
    path = folder.with_name(f"{folder.name}-decoder")
    if not path.is_dir():
        known = BertConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.save_pretrained(path)
        config = GPT2Config(
            vocab_size=known.vocab_size,
            n_embd=known.hidden_size,
            n_layer=known.num_hidden_layers,
            n_head=known.num_attention_heads,
            n_positions=known.max_position_embeddings,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            GPT2Model(config).save_pretrained(path)
    return path


def _characters(texts: list[str]) -> list[str]:
    own = sorted({character for text in texts for character in text if not character.isspace()})
    ascii_text = [*string.ascii_letters, *string.digits, *PUNCTUATION]
    return list(dict.fromkeys([*ascii_text, *common_characters(), *own]))


def _wordpiece(texts: list[str]) -> BertTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inside_words = [*string.ascii_letters, *string.digits]
    pieces = [*special, *_characters(texts), *(f"##{character}" for character in inside_words)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=False)


def _unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    seen: dict[str, int] = {}
    for text in texts:
        for pair in map("".join, pairwise(text)):
            if all("一" <= character <= "鿿" for character in pair):
                seen[pair] = seen.get(pair, 0) + 1
    pieces = [*WORDS.split("|"), *sorted(pair for pair, count in seen.items() if count > 1)]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    scored = dict([*special, *((piece, -7.0) for piece in pieces), *((c, -9.0) for c in _characters(texts))])
    rust = RustTokenizer(Unigram([*scored.items(), ("<mask>", 0.0)], unk_id=3))
    rust.normalizer = normalizers.NFKC()
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )
