"""Whitening: vectors of an encoder made fit for cosines without training (Su et al. 2021, arXiv 2103.15316).

Sentence vectors of a pre-trained encoder lie in a narrow cone. With the mean μ and the covariance Σ = U Λ Uᵀ of the
vectors of some texts, ``(x - μ) U Λ^(-1/2)`` has mean 0 and covariance 1 on them; its first K columns are the
directions of the largest variance, so a reduced width is fitted in the same step.

Shape letters: N texts, D numbers of a vector, K of a whitened one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wenmai.bundle import save_bundle
from wenmai.errors import UserError
from wenmai.inference.embedder import Embedder
from wenmai.inference.engine import predictions
from wenmai.progress import SILENT, Progress
from wenmai.tasks.embedding_example import TextEmbeddingExample

Floats = NDArray[np.float64]
SMALLEST = 1e-10
"""Of the largest variance: what is less is rounding, and dividing by it would make noise of it."""


class Moments:
    """Mean and covariance of vectors that come in blocks (Chan, Golub and LeVeque 1979): exact in any order of size.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean_D: Floats = np.zeros(width)
        self._scatter_DD: Floats = np.zeros((width, width))

    def add(self, block_ND: NDArray[np.float32]) -> None:
        """Takes more vectors in."""
        values_ND = block_ND.astype(np.float64)
        count, mean_D = len(values_ND), values_ND.mean(axis=0)
        centred_ND = values_ND - mean_D
        apart_D, together = mean_D - self.mean_D, self.count + count
        self._scatter_DD += centred_ND.T @ centred_ND
        self._scatter_DD += np.outer(apart_D, apart_D) * (self.count * count / together)
        self.mean_D = self.mean_D + apart_D * (count / together)
        self.count = together

    def covariance(self) -> Floats:
        """(D, D), of the vectors as a whole population: divided by N."""
        return self._scatter_DD / self.count


def whitening_matrix(covariance_DD: Floats, width: int | None = None) -> Floats:
    """``U Λ^(-1/2)``, the first ``width`` columns (D, K), those of the largest variance first.

    Each column's largest number is positive: eigenvectors know no sign.

    Args:
        width: K; None: all directions that vary. Encoders that end in a LayerNorm have one that never does: what
            their numbers are before its scale and shift adds up to 0.

    Raises:
        UserError: fewer directions than that have any variance.
    """
    variance_D, directions_DD = np.linalg.eigh(covariance_DD)
    variance_D, directions_DD = variance_D[::-1], directions_DD[:, ::-1]
    varied = int((variance_D > SMALLEST * variance_D[0]).sum()) if variance_D[0] > 0 else 0
    width = varied if width is None else width
    if varied < max(1, width):
        raise UserError(
            f"whitening to {width} numbers: the texts' vectors vary in {varied} directions only; "
            "give more different texts, or a smaller width"
        )
    kept_DK = directions_DD[:, :width]
    signs_K = np.sign(kept_DK[np.abs(kept_DK).argmax(axis=0), np.arange(width)])
    whitened: Floats = kept_DK * signs_K / np.sqrt(variance_D[:width])
    return whitened


def fit_whitening(
    embedder: Embedder, texts: Iterable[str], *, width: int | None = None, progress: Progress = SILENT
) -> int:
    """Whitens the embedder's vectors from now on; earlier whitening is replaced.

    Args:
        texts: what mean and covariance are taken from, in bounded memory: some thousands of the kind that will be
            compared, without labels.
        width: K; None: as many as there are directions in which vectors vary, about D.

    Returns:
        how many texts there were.

    Raises:
        UserError: the texts are too few for the width.
    """
    head = embedder.head
    whole = min(embedder.model.backbone.hidden_size, head.width or embedder.model.backbone.hidden_size)
    if width is not None and not 1 <= width <= whole:
        raise UserError(f"whitening to {width} numbers: expected 1 to {whole}, as many as vectors have")
    moments = Moments(whole)
    with progress.task("embedding", None, "texts") as step:
        for block_ND in embedder.blocks(texts, plain=True):
            moments.add(block_ND)
            step.advance(len(block_ND))
    if not moments.count:
        raise UserError("whitening: there are no texts to take mean and covariance from")
    if width is None and moments.count <= whole:
        raise UserError(
            f"whitening: {moments.count} different texts can't tell how vectors of {whole} numbers vary; "
            "give more than that, better ten times as many, or a width"
        )
    matrix_DK = whitening_matrix(moments.covariance(), width)
    head.whiten(
        *(
            torch.from_numpy(array).float().contiguous().to(embedder.device)
            for array in (moments.mean_D, matrix_DK)
        )
    )
    return moments.count


def choose_threshold(embedder: Embedder, examples: Sequence[TextEmbeddingExample]) -> None:
    """Chooses on labelled pairs what training chooses on the dev set: above which cosine they belong together.

    Raises:
        UserError: the task is not scored by pairs, or they have no scores.
    """
    task = embedder.task
    problems = [problem for example in examples for problem in task.label_problems(example)]
    if task.config.scored_by != "pairs" or problems:
        raise UserError(
            f"a threshold is chosen for evaluate_on: pairs, on pairs with a score; {problems[:1]}"
        )
    task.settle(examples, list(predictions(embedder.model, task, embedder.tokenizer, examples)))


def save_embedder(embedder: Embedder, folder: Path) -> None:
    """Writes the embedder as a bundle, to predict, evaluate and search with like a trained one.

    Raises:
        UserError: the folder is there already, or can't be written.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; choose another folder or remove it")
    save_bundle(folder, embedder.task, embedder.model, embedder.tokenizer)


def different(texts: Iterable[str]) -> Iterator[str]:
    """Each text once: texts that many pairs share would weigh as often."""
    seen: set[int] = set()
    for text in texts:
        key = hash(text)
        if key not in seen:
            seen.add(key)
            yield text
