"""Tokenizers of both families, built here: a WordPiece as of BERT, a SentencePiece as of XLM-RoBERTa."""

from __future__ import annotations

import random
import string

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as RustTokenizer
from transformers import BertTokenizer, PreTrainedTokenizerFast

from wenmai.backbones.tokenizer import Tokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CHINESE = "中国人民银行张三李四在北京上海大学读书我爱今天发布货币政策报告公司的了是，。！？“”：、年月"
NAMES = ["张三", "李四", "北京大学", "上海", "中国人民银行", "货币政策", "江泽民"]


def wordpiece() -> Tokenizer:
    """Lower case, accents stripped, one piece a Chinese character; ``hello`` and ``##ing`` are longer."""
    simple = [*string.ascii_lowercase, *string.digits]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHINESE, *simple, *".,!?-'\"/:()<>[]", "hello"]
    pieces += [f"##{character}" for character in simple] + ["##ing"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return Tokenizer(BertTokenizer(vocab=vocabulary))


def sentencepiece(*words: str) -> Tokenizer:
    """Unigram with these words, single Chinese characters and ASCII letters; scores favour long pieces."""
    singles = dict.fromkeys(["▁", *CHINESE, *string.ascii_letters, *string.digits, *".,!?<>/[]%"])
    scored = [(piece, 0.0) for piece in SPECIAL]
    scored += [(piece, -6.0) for piece in singles] + [(word, -1.0) for word in words]
    return _xlm_roberta(RustTokenizer(models.Unigram(scored, unk_id=3)))


def trained_sentencepiece() -> Tokenizer:
    """Unigram learned from 400 generated sentences, with whatever pieces that gives."""
    rng = random.Random(0)
    tails = [" hello world", "ABC", " 123", "！"]
    sentences = [
        f"{rng.choice(NAMES)}在{rng.choice(NAMES)}{''.join(rng.choices(CHINESE, k=8))}{rng.choice(tails)}。"
        for _ in range(400)
    ]
    rust = RustTokenizer(models.Unigram())
    rust.normalizer, rust.pre_tokenizer = _normalizer(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    rust.train_from_iterator(sentences, trainer)
    return _xlm_roberta(rust)


def byte_level() -> Tokenizer:
    """BPE over bytes as of GPT-2: no unknown token, three pieces for a rare Chinese character."""
    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(["我在北京大学读书。" * 3, "北京 hello"] * 5, trainer)
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<pad>", mask_token="<mask>"))


def _normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )


def _xlm_roberta(rust: RustTokenizer) -> Tokenizer:
    rust.normalizer, rust.pre_tokenizer = _normalizer(), pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return Tokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=rust,
            bos_token="<s>",
            eos_token="</s>",
            cls_token="<s>",
            sep_token="</s>",
            unk_token="<unk>",
            pad_token="<pad>",
            mask_token="<mask>",
        )
    )
