"""Good text or raw text: logistic regression on hashed runs of characters, with GPT-3's keep rule.

A document is kept if ``Pareto(alpha) > 1 - score`` (Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix A):
nearly all that looks good, and a little of what does not, so that the corpus does not become as narrow as the good
text. The draw belongs to the document's text and the seed.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wenmai.corpus.documents import Document, Rejection, draw
from wenmai.corpus.ngrams import code_points, ngram_hashes
from wenmai.errors import UserError

RUNS = (1, 2, 3)
READ_CHARACTERS = 5000
"""The start of a document is enough to judge it."""
Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Buckets, and their values: square roots of counts, scaled to length 1 as a whole."""


@dataclass(frozen=True)
class QualityModel:
    """A trained classifier.

    Args:
        weights: shape (buckets,).
        alpha: of the keep rule.
        seed: of the draws.
    """

    weights: npt.NDArray[np.float32]
    bias: float
    alpha: float
    seed: int

    def score(self, text: str) -> float:
        """The probability that a text is one of the good ones."""
        buckets, values = features(text, len(self.weights))
        return float(1 / (1 + np.exp(-(self.weights[buckets] @ values + self.bias))))

    def __call__(self, document: Document) -> Document | Rejection:
        """The step."""
        score = self.score(document.text)
        if keeps(score, self.alpha, draw(self.seed, "quality", document.text)):
            return document
        return Rejection("low_quality", f"score {score:.4f}")


def keeps(score: float, alpha: float, uniform: float) -> bool:
    """The keep rule; ``uniform`` of (0, 1] becomes a draw of the Pareto distribution II, as numpy's ``pareto`` is."""
    return bool(uniform ** (-1 / alpha) - 1 > 1 - score)


def features(text: str, buckets: int) -> Features:
    """What a text looks like to the classifier."""
    points = code_points(text[:READ_CHARACTERS])
    runs = np.concatenate([ngram_hashes(points, n) for n in RUNS])
    found, counts = np.unique(runs % np.uint64(buckets), return_counts=True)
    values = np.sqrt(counts)
    length = np.sqrt((values**2).sum())
    return found.astype(np.int64), values / length if length else values


def train(
    good: Sequence[str], raw: Sequence[str], *, buckets: int, regularization: float, alpha: float, seed: int
) -> QualityModel:
    """Learns good against raw texts; both sides weigh the same, however many they are.

    Raises:
        UserError: a side has no text, or scikit-learn is missing.
    """
    if not good or not raw:
        side = "good text" if not good else "raw text"
        raise UserError(f"clean.quality: no {side} is left to learn from after the steps before; add some")
    try:
        from scipy.sparse import csr_array
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UserError('clean.quality needs scikit-learn: pip install "wenmai[corpus]"') from None
    rows = [features(text, buckets) for text in (*good, *raw)]
    ends = np.cumsum([0, *(len(found) for found, _ in rows)])
    matrix = csr_array(
        (np.concatenate([values for _, values in rows]), np.concatenate([found for found, _ in rows]), ends),
        shape=(len(rows), buckets),
    )
    model = LogisticRegression(C=regularization, class_weight="balanced", max_iter=200)
    model.fit(matrix, np.repeat([1, 0], [len(good), len(raw)]))
    return QualityModel(model.coef_[0].astype(np.float32), float(model.intercept_[0]), alpha, seed)


def save(model: QualityModel, path: Path) -> None:
    """As safetensors, with the numbers in its header. Written beside and renamed."""
    from safetensors.numpy import save_file

    beside = path.with_name(f".{path.name}.new")
    header = {"bias": model.bias, "alpha": model.alpha, "seed": model.seed, "runs": RUNS}
    save_file({"weights": model.weights}, beside, metadata={"wenmai.quality": json.dumps(header)})
    beside.replace(path)


def load(path: Path) -> QualityModel:
    """What :func:`save` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["wenmai.quality"])
        return QualityModel(file.get_tensor("weights"), header["bias"], header["alpha"], header["seed"])


def sampled(documents: Iterable[Document], most: int, seed: int) -> list[str]:
    """The texts whose draws are lowest: a sample that does not depend on the order. Equal texts count once."""
    heap: list[tuple[float, str]] = []
    members: set[str] = set()
    for document in documents:
        text = document.text
        entry = (-draw(seed, "sample", text), text)
        if text in members or (len(heap) == most and entry <= heap[0]):
            continue
        members.add(text)
        if len(heap) < most:
            heapq.heappush(heap, entry)
        else:
            members.discard(heapq.heapreplace(heap, entry)[1])
    return [text for _, text in sorted(heap, reverse=True)]
