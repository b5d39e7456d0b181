"""A zero-shot classifier with its labels settled: it answers like a bundle of text_classification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenmai.inference.zero_shot import ZeroShotClassifier
from wenmai.tasks.labels import label_scores
from wenmai.tasks.task import Prediction
from wenmai.tasks.text_classification import TextClassification, TextClassificationConfig


class ZeroShotPredictor:
    """What :class:`wenmai.inference.predictor.Predictor` is for a bundle: its answers are written and scored like those
    of a trained classifier.

    Args:
        classifier: the model.
        options: of :meth:`ZeroShotClassifier.choice`; ``candidate_labels`` must be there or in the classifier's own.

    Raises:
        UserError: see :meth:`ZeroShotClassifier.stream`.
    """

    def __init__(self, classifier: ZeroShotClassifier, **options: Any):
        self.classifier = classifier
        self.tokenizer = classifier.tokenizer
        self.choice = classifier.choice(**options)
        config = TextClassificationConfig(multi_label=self.choice.multi_label)
        self.task = TextClassification(config, list(self.choice.words))

    def predict_examples(self, examples: Iterable[Any]) -> Iterator[Prediction]:
        """Predictions one by one, in the order of the examples, which are those of text_classification."""
        for example, scores_L in self.classifier.scored(
            examples, lambda example: str(example.text), self.choice
        ):
            found: Prediction = {} if example.id is None else {"id": example.id}
            yield {**found, "text": example.text, **self._answer(scores_L)}

    def _answer(self, scores_L: NDArray[np.float64]) -> Prediction:
        labels, scores = self.task.labels, label_scores(scores_L, self.task.labels)
        if self.choice.multi_label:
            threshold = self.task.config.threshold
            chosen = [label for label, score in zip(labels, scores_L, strict=True) if score >= threshold]
            return {"labels": chosen, "scores": scores}
        best = labels[int(scores_L.argmax())]
        return {"label": best, "score": scores[best], "scores": scores}
