"""RoFormer's tokenizer, which cuts texts into words in Python: what transformers gets wrong about it.

RoFormer (Su et al. 2021, arXiv:2104.09864) reads the words of a segmenter (rjieba) as far as its vocabulary has them.
"""

from __future__ import annotations

from typing import Any

from tokenizers.pre_tokenizers import BertPreTokenizer, PreTokenizer
from transformers import RoFormerTokenizer
from transformers.models.roformer.tokenization_utils import JiebaPreTokenizer


def find_words(pretrained: Any) -> None:
    """Makes RoFormer's tokenizer find words; others stay as they are.

    From a ``vocab.txt`` transformers 5.23 hands the file's name to the part that looks words up, which then looks for
    them in the name, finds none, and gives single characters only.
    """
    if isinstance(pretrained, RoFormerTokenizer):
        vocabulary = pretrained.get_vocab()
        pretrained.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(JiebaPreTokenizer(vocabulary))


def rules(pretrained: Any) -> str:
    """All that the Rust side of a tokenizer knows, as text; without the segmenter, which it can't write down."""
    backend = pretrained.backend_tokenizer
    if not isinstance(pretrained, RoFormerTokenizer):
        return str(backend.to_str())
    segmenter = backend.pre_tokenizer
    backend.pre_tokenizer = BertPreTokenizer()
    try:
        return str(backend.to_str())
    finally:
        backend.pre_tokenizer = segmenter
