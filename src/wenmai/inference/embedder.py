"""Texts to arrays of vectors, by a bundle of ``text_embedding`` or by any encoder as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import has_bundle, load_bundle
from wenmai.data.rows import collate
from wenmai.errors import UserError
from wenmai.heads.contrastive import ContrastiveHead
from wenmai.inference.engine import TOKENS_PER_BATCH, within_budget
from wenmai.inference.predictor import chosen_device
from wenmai.tasks.embedding_example import TextEmbeddingConfig
from wenmai.tasks.model import Model
from wenmai.tasks.text_embedding import TextEmbedding

TEXTS_AT_ONCE = 4096
"""Texts that are sorted by length together, and whose vectors make a block."""

Floats = NDArray[np.float32]


class Embedder:
    """A model of ``text_embedding`` that answers with arrays.

    Args:
        task, tokenizer, model: as a bundle holds them.
        device: ``auto`` takes a GPU where there is one.
    """

    def __init__(self, task: TextEmbedding, tokenizer: Tokenizer, model: Model, *, device: str = "auto"):
        self.task, self.tokenizer = task, tokenizer
        self.device = chosen_device(device)
        self.model = model.to(self.device).eval()
        self.model.backbone.set_padding_free("auto")
        assert isinstance(model.head, ContrastiveHead)
        self.head = model.head

    def blocks(self, texts: Iterable[str], *, plain: bool = False) -> Iterator[Floats]:
        """The texts' vectors in their order, up to 4,096 an array (N, D): bounded memory for any number of texts.

        Args:
            plain: before whitening, and at the length that they happen to have.
        """
        source = iter(texts)
        while chunk := list(islice(source, TEXTS_AT_ONCE)):
            yield self._block(chunk, plain)

    def vectors(self, texts: Iterable[str]) -> Floats:
        """All of them as one array (N, D)."""
        blocks = list(self.blocks(texts))
        return np.concatenate(blocks) if blocks else np.zeros((0, self.width), np.float32)

    @property
    def width(self) -> int:
        """D, how many numbers a vector has."""
        if self.head.matrix_DK is not None:
            return self.head.matrix_DK.size(1)
        return min(self.model.backbone.hidden_size, self.head.width or self.model.backbone.hidden_size)

    @torch.inference_mode()
    def _block(self, texts: list[str], plain: bool) -> Floats:
        rows = [self.task.featurize(self.task.as_example(text), self.tokenizer) for text in texts]
        places = sorted(((i, 0) for i in range(len(rows))), key=lambda place: len(rows[place[0]][0]))
        found: list[Floats] = [np.zeros(0, np.float32)] * len(texts)
        for chosen in within_budget(places, rows, TOKENS_PER_BATCH):
            padded = collate([rows[i][0] for i, _ in chosen], self.tokenizer.pad_id)
            batch = {name: value.to(self.device) for name, value in padded.items()}
            hidden_BTH = self.model.backbone(batch, self.head.tokens_read(batch, "predict"))
            mask_BT = batch["attention_mask"]
            vector_BD = (
                self.head.plain(hidden_BTH, mask_BT, whitened=False)
                if plain
                else self.head(hidden_BTH, mask_BT)["embedding"]
            )
            for (i, _), vector_D in zip(chosen, vector_BD.float().cpu().numpy(), strict=True):
                found[i] = vector_D
        return np.stack(found)


def open_embedder(
    model: str | Path, settings: TextEmbeddingConfig | None = None, *, device: str = "auto"
) -> Embedder:
    """A bundle of ``text_embedding``, or any encoder: of a bundle of another task, a folder, a shipped or hub name.

    Args:
        settings: pooling, prefix, length and what else is chosen for an encoder; a bundle has its own.

    Raises:
        UserError: the model can't be found or read, or settings are given for one that has its own.
    """
    if has_bundle(Path(model)):
        bundle = load_bundle(Path(model))
        if isinstance(bundle.task, TextEmbedding):
            if settings is not None:
                raise UserError(
                    f"{model}: has its own pooling, prefix and length from its training; leave these options out"
                )
            return Embedder(bundle.task, bundle.tokenizer, bundle.model, device=device)
        backbone, tokenizer = bundle.model.backbone, bundle.tokenizer
    else:
        backbone, tokenizer = load_backbone(BackboneConfig(model=str(model)))
    config = settings or TextEmbeddingConfig()
    if config.evaluate_on == "auto":  # it is not known for what it was trained
        config = config.model_copy(update={"evaluate_on": "similarity"})
    if config.max_length > tokenizer.max_length:
        raise UserError(
            f"{model}: reads {tokenizer.max_length} tokens at most, {config.max_length} were asked for"
        )
    task = TextEmbedding(config, [])
    return Embedder(task, tokenizer, Model(backbone, task.build_head(backbone)), device=device)
