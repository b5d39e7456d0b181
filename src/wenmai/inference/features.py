"""Texts to vectors, by any encoder as it is: one vector a text, and if asked one a token with its characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import has_bundle, load_bundle
from wenmai.data.rows import Row, collate
from wenmai.errors import UserError
from wenmai.heads.pooling import Pooling, pool
from wenmai.inference.engine import TOKENS_PER_BATCH, within_budget
from wenmai.inference.predictor import chosen_device
from wenmai.tasks.task import Prediction, text_record
from wenmai.tasks.windows import merge_windows, window_rows

TEXTS_AT_ONCE = 256
LONGEST_WINDOW, OVERLAP = 512, 32

Floats = NDArray[np.float32]


class FeatureExtractor:
    """An encoder that answers with its hidden states.

    A text longer than the encoder is read in overlapping windows: ``mean`` averages over the tokens of all of them
    (special ones included, as in training), ``cls`` takes the first window's and ``last`` the last one's.

    Args:
        model: a bundle or run folder, any model folder, the name of a shipped model or of one on the hub, ``e5-small``.
        pooling: tokens to one vector; see :func:`wenmai.heads.pooling.pool`.
        normalize: vectors of a text get length 1, so that dot products are cosines.
        tokens: also a vector for every token.
        device: ``auto`` takes a GPU where there is one.

    Raises:
        UserError: the model can't be found or read.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: Pooling = "mean",
        normalize: bool = False,
        tokens: bool = False,
        device: str = "auto",
    ):
        if pooling not in ("mean", "cls", "last"):
            raise UserError(f"pooling: {pooling!r} is unknown; give mean, cls or last")
        backbone, self.tokenizer = open_encoder(model)
        self.device = chosen_device(device)
        self.backbone = backbone.to(self.device).eval()
        self.backbone.set_padding_free("auto")
        self.pooling: Pooling = pooling
        self.normalize, self.tokens = normalize, tokens

    @overload
    def __call__(self, items: str | dict[str, Any]) -> Prediction: ...

    @overload
    def __call__(self, items: Iterable[Any]) -> list[Prediction]: ...

    def __call__(self, items: Any) -> Prediction | list[Prediction]:
        """One text or record to its prediction, several to a list."""
        if isinstance(items, str | dict):
            return next(self.stream([items]))
        return list(self.stream(items))

    def stream(self, items: Iterable[Any]) -> Iterator[Prediction]:
        """``text``, ``embedding`` (H numbers) and with ``tokens`` of each ``start``, ``end``, ``text``, ``embedding``.

        In order, in bounded memory.

        Raises:
            UserError: an item is neither a text nor a record with one.
        """
        records = (text_record(item, "feature-extraction") for item in items)
        while chunk := list(islice(records, TEXTS_AT_ONCE)):
            for record, (vector_H, rows, hidden) in zip(
                chunk, self._chunk([record["text"] for record in chunk]), strict=True
            ):
                text, name = record["text"], record.get("id")
                prediction: Prediction = {} if name is None else {"id": name}
                prediction |= {"text": text, "embedding": _rounded(vector_H)}
                if self.tokens:
                    merged_TH, offsets = merge_windows(hidden, rows)
                    prediction["tokens"] = [
                        {"start": start, "end": end, "text": text[start:end], "embedding": _rounded(token_H)}
                        for (start, end), token_H in zip(offsets, merged_TH, strict=True)
                    ]
                yield prediction

    def vectors(self, texts: Iterable[str]) -> Floats:
        """The texts' vectors as an array (N, H), as exact as they are computed."""
        source, found = iter(texts), [np.zeros((0, self.backbone.hidden_size), np.float32)]
        while chunk := list(islice(source, TEXTS_AT_ONCE)):
            found.append(np.stack([vector_H for vector_H, _, _ in self._chunk(chunk)]))
        return np.concatenate(found)

    def _chunk(self, texts: list[str]) -> list[tuple[Floats, list[Row], list[Floats]]]:
        """Of each text its vector (H,), its rows and, with ``tokens``, their hidden states (T, H)."""
        length = min(LONGEST_WINDOW, self.tokenizer.max_length)
        rows = [
            window_rows(encoding, self.tokenizer, max_length=length, overlap=OVERLAP)
            for encoding in self.tokenizer.encode_batch(texts)
        ]
        pooled: list[dict[int, Floats]] = [{} for _ in texts]
        hidden: list[dict[int, Floats]] = [{} for _ in texts]
        places = sorted(
            ((i, j) for i, own in enumerate(rows) for j in range(len(own))),
            key=lambda place: len(rows[place[0]][place[1]]),
        )
        for batch in within_budget(places, rows, TOKENS_PER_BATCH):
            hidden_BTH, pooled_BH = self._forward([rows[i][j] for i, j in batch])
            for at, (i, j) in enumerate(batch):
                pooled[i][j] = pooled_BH[at]
                if self.tokens:
                    hidden[i][j] = hidden_BTH[at, : len(rows[i][j])]
        return [
            (self._joined([vectors[j] for j in range(len(own))], own), own, [h[j] for j in sorted(h)])
            for own, vectors, h in zip(rows, pooled, hidden, strict=True)
        ]

    @torch.inference_mode()
    def _forward(self, rows: list[Row]) -> tuple[Floats, Floats]:
        batch = {name: value.to(self.device) for name, value in collate(rows, self.tokenizer.pad_id).items()}
        hidden_BTH = self.backbone(batch)
        pooled_BH = pool(hidden_BTH, batch["attention_mask"], self.pooling)
        kept = hidden_BTH if self.tokens else hidden_BTH[:0]
        return kept.float().cpu().numpy(), pooled_BH.float().cpu().numpy()

    def _joined(self, windows: list[Floats], rows: list[Row]) -> Floats:
        if self.pooling == "mean":
            vector_H = np.average(windows, axis=0, weights=[len(row) for row in rows])
        else:
            vector_H = windows[0 if self.pooling == "cls" else -1]
        if self.normalize:
            vector_H = vector_H / max(1e-12, float(np.linalg.norm(vector_H)))
        return vector_H.astype(np.float32)


def open_encoder(model: str | Path) -> tuple[Backbone, Tokenizer]:
    """The encoder of a bundle, or of any model that a configuration may name.

    Raises:
        UserError: it can't be found or read.
    """
    if has_bundle(Path(model)):
        bundle = load_bundle(Path(model))
        return bundle.model.backbone, bundle.tokenizer
    return load_backbone(BackboneConfig(model=str(model)))


def _rounded(vector: Floats) -> list[float]:
    return [round(float(value), 6) for value in vector]
