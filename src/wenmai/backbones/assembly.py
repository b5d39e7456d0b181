"""A model of tokenizers, made a tokenizer that transformers opens."""

from __future__ import annotations

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as RustTokenizer
from transformers import PreTrainedTokenizerFast

from wenmai.backbones.vocabulary_plan import VocabularyPlan


def assembled(rust: RustTokenizer, plan: VocabularyPlan) -> PreTrainedTokenizerFast:
    """With ``[CLS] text [SEP]`` and ``[CLS] text [SEP] pair [SEP]``, the second part of token type 1.

    Args:
        rust: its vocabulary begins with the special tokens of the plan.
    """
    special = plan.special
    rust.post_processor = processors.TemplateProcessing(
        single=f"{special.cls}:0 $A:0 {special.sep}:0",
        pair=f"{special.cls}:0 $A:0 {special.sep}:0 $B:1 {special.sep}:1",
        special_tokens=[(name, special.names().index(name)) for name in (special.cls, special.sep)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=rust,
        pad_token=special.pad,
        unk_token=special.unk,
        cls_token=special.cls,
        sep_token=special.sep,
        bos_token=special.cls,
        eos_token=special.sep,
        mask_token=AddedToken(special.mask, special=True),
        model_max_length=plan.max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
