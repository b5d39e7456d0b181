"""The same steps on a cluster: as a step of a datatrove pipeline, and as a function for Ray Data.

Steps depend on the document alone, so a cluster needs nothing but the list. What looks at all documents (near
duplicates) is the cluster's own: datatrove has MinHash stages of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wenmai.corpus.cleaning import cleaning_steps
from wenmai.corpus.contamination import read_test_sets
from wenmai.corpus.documents import Document, Rejection, Step, apply
from wenmai.corpus.settings import CorpusConfig
from wenmai.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Batch = dict[str, npt.NDArray[np.object_]]


def steps_of(config: CorpusConfig) -> list[Step]:
    """What ``wenmai corpus clean`` does with a document, as far as it needs no training.

    Raises:
        UserError: the configuration asks for a classifier; train it here, and append
            ``wenmai.corpus.quality.load(PATH)`` to the list.
    """
    if config.clean.quality is not None:
        raise UserError(
            "clean.quality: a classifier is trained before the cluster's work: append "
            "wenmai.corpus.quality.load(PATH) to the steps, and remove the section"
        )
    steps = cleaning_steps(config.clean)
    return [*steps, read_test_sets(config.decontaminate)] if config.decontaminate.test_sets else steps


def datatrove_step(steps: Sequence[Step]) -> Any:
    """The steps as one ``PipelineStep`` of datatrove: between a reader and a writer.

    What is left out is counted in datatrove's own statistics, as ``dropped_REASON``.

    Raises:
        UserError: the package datatrove is missing.
    """
    try:
        from datatrove.pipeline.base import PipelineStep
    except ImportError:
        raise UserError('datatrove is missing: pip install "wenmai[datatrove]"') from None

    class CorpusSteps(PipelineStep):  # type: ignore[misc]
        type = "🀄 - CORPUS"
        name = "wenmai"

        def __init__(self) -> None:
            super().__init__()
            self.steps = list(steps)

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
            for item in data:
                with self.track_time():
                    outcome = apply(self.steps, Document(item.text, fields=item.metadata))
                if isinstance(outcome, Rejection):
                    self.stat_update(f"dropped_{outcome.reason}")
                    continue
                item.text = outcome.text
                self.stat_update("kept")
                yield item

    return CorpusSteps()


def ray_map(steps: Sequence[Step], *, text_field: str = "text") -> Callable[[Batch], Batch]:
    """A function for ``ray.data.Dataset.map_batches``: ``dataset.map_batches(ray_map(steps))``.

    Rows keep their other columns; a column ``reason`` is empty for what is kept: filter by it, or count it with
    ``groupby("reason").count()``.

    Args:
        text_field: column of the texts.
    """

    def on_batch(batch: Batch) -> Batch:
        import numpy as np

        texts: list[str] = []
        reasons: list[str] = []
        for text in batch[text_field]:
            outcome = apply(steps, Document(str(text)))
            kept = isinstance(outcome, Document)
            texts.append(outcome.text if isinstance(outcome, Document) else str(text))
            reasons.append("" if kept else outcome.reason)  # type: ignore[union-attr]
        return {**batch, text_field: np.array(texts, object), "reason": np.array(reasons, object)}

    return on_batch
