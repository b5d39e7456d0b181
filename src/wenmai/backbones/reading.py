"""A tokenizer from a folder, and what transformers says while it reads: kept quiet, refusals in plain words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from wenmai.backbones.roformer import find_words
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, with or without a model; its longest input is the one that it says.

    Raises:
        UserError: the folder is not there or holds no tokenizer that can be read.
    """
    pretrained = read_tokenizer(folder)
    return Tokenizer(pretrained, max_length=int(pretrained.model_max_length))


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of transformers in a folder.

    Raises:
        UserError: the folder is not there or holds no tokenizer that can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one that holds a tokenizer")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{folder}: no tokenizer (looked for {', '.join(TOKENIZER_FILES)}); copy it there")
    try:
        with quiet():
            pretrained = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # parsers of five formats, one of them in Rust, which raises bare Exception
        raise UserError(f"{folder}: the tokenizer can't be read: {refusal(error)}") from error
    if getattr(pretrained, "backend_tokenizer", None) is None:
        raise UserError(
            f"{folder}: {type(pretrained).__name__} can't say which characters a token stands for; "
            "take a model with a tokenizer.json"
        )
    if len(pretrained) <= len(set(pretrained.all_special_ids)):
        raise UserError(
            f"{folder}: {type(pretrained).__name__} found no vocabulary there, only special tokens; "
            'if vocab.txt is of a BERT, write {"tokenizer_class": "BertTokenizer"} to tokenizer_config.json'
        )
    find_words(pretrained)
    return _without_boxes(pretrained)


def _without_boxes(pretrained: Any) -> Any:
    """The same rules, for texts: LayoutLMv3's tokenizer, which LiLT has too, wants words and a box for each of them."""
    if "boxes" not in inspect.signature(type(pretrained).__call__).parameters:
        return pretrained
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pretrained.backend_tokenizer,
        model_max_length=pretrained.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        **pretrained.special_tokens_map,
    )


def refusal(error: Exception) -> str:
    """What transformers says, or what it means when it asks for the right to run the model's own code."""
    if "trust_remote_code" in str(error):
        return (
            "the model comes with Python code of its own, which wenmai never runs; "
            "take a model whose architecture is part of transformers"
        )
    return " ".join(str(error).split())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers; what matters in them is an error here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
