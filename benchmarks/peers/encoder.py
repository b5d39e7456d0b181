"""Encoders made on the spot, so that no benchmark needs a download: random weights, a Chinese WordPiece vocabulary.

The vocabulary has as many entries as that of the Chinese BERT (21,128): speed and memory depend on it.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

VOCABULARY = 21_128
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = "，。！？、；：“”‘’（）《》【】〈〉「」『』…—·～￥％" + string.punctuation

Architecture = Literal["bert", "roberta", "electra"]


@dataclass(frozen=True)
class Size:
    """Args: as in a BERT configuration; the feed-forward layer is four times as wide."""

    layers: int
    hidden: int
    heads: int


SIZES = {"tiny": Size(2, 32, 4), "small": Size(4, 256, 4), "base": Size(12, 768, 12)}


def encoder_folder(
    path: Path,
    texts: Iterable[str],
    size: Size,
    *,
    architecture: Architecture = "bert",
    vocabulary: int = VOCABULARY,
    positions: int = 512,
    seed: int = 0,
) -> Path:
    """A model folder with ``config.json``, tokenizer and ``model.safetensors``; dropout 0.1 everywhere.

    Args:
        path: the folder; made if needed.
        texts: all their characters are in the vocabulary.
        seed: of the weights; the global random state stays as it was.
    """
    pieces = _pieces(texts, vocabulary)
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=False)
    tokenizer.model_max_length = positions
    tokenizer.save_pretrained(path)
    config_type, model_type = {
        "bert": (BertConfig, BertModel),
        "roberta": (RobertaConfig, RobertaModel),
        "electra": (ElectraConfig, ElectraModel),
    }[architecture]
    own = {
        "bert": {},
        # RoBERTa counts positions from the one after that of padding
        "roberta": {"bos_token_id": 2, "eos_token_id": 3, "max_position_embeddings": positions + 1},
        "electra": {"embedding_size": size.hidden},
    }[architecture]
    config = config_type(
        **{
            "vocab_size": len(pieces),
            "hidden_size": size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "intermediate_size": 4 * size.hidden,
            "max_position_embeddings": positions,
            "type_vocab_size": 2,
            "pad_token_id": 0,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            **own,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooler = {} if architecture == "electra" else {"add_pooling_layer": False}
        model_type(config, **pooler).save_pretrained(path)
    return path


def _pieces(texts: Iterable[str], size: int) -> list[str]:
    """Special tokens, ASCII, punctuation, the characters of the texts, other Chinese characters, fillers."""
    own = sorted({character for text in texts for character in text if not character.isspace()})
    chinese = (chr(code) for code in range(0x4E00, 0xA000))
    inside = (f"##{character}" for character in (*string.ascii_letters, *string.digits))
    singles = (*string.ascii_letters, *string.digits, *PUNCTUATION)
    pieces = list(dict.fromkeys([*SPECIAL, *singles, *inside, *own, *chinese]))[:size]
    return pieces + [f"[unused{i}]" for i in range(size - len(pieces))]
