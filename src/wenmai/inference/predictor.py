"""A bundle as something to call: texts in, records with offsets into these texts out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import torch

from wenmai.bundle import Bundle, load_bundle, part_of
from wenmai.errors import UserError
from wenmai.inference.asking import asked
from wenmai.inference.engine import TOKENS_PER_BATCH, predictions
from wenmai.tasks.task import Example, Prediction


class Predictor:
    """A loaded bundle.

    Args:
        folder: a bundle, a run folder that has one, or the name of a shipped model; or an opened bundle.
        part: of a bundle of several tasks, the name of the one to predict for; None: all of them, in one pass.
        device: ``auto`` takes a GPU where there is one.
        tokens_per_batch: budget of one forward pass, padding counted.
    """

    def __init__(
        self,
        folder: str | Path | Bundle,
        *,
        part: str | None = None,
        device: str = "auto",
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ):
        bundle = part_of(folder if isinstance(folder, Bundle) else load_bundle(Path(folder)), part)
        self.bundle = bundle
        self.task = bundle.task
        self.tokenizer = bundle.tokenizer
        self.model = bundle.model.to(chosen_device(device)).eval()
        self.model.backbone.set_padding_free("auto")
        self.tokens_per_batch = tokens_per_batch

    def part(self, name: str) -> Predictor:
        """The predictor of one task of a bundle of several; it shares the weights.

        Raises:
            BundleError: there is no such task.
        """
        device = str(next(self.model.parameters()).device)
        return Predictor(self.bundle, part=name, device=device, tokens_per_batch=self.tokens_per_batch)

    @overload
    def __call__(self, items: str | dict[str, Any]) -> Prediction: ...

    @overload
    def __call__(self, items: Iterable[Any]) -> list[Prediction]: ...

    def __call__(self, items: Any) -> Prediction | list[Prediction]:
        """One text or record to its prediction, several to a list. A pair of texts is a tuple."""
        if isinstance(items, str | dict | tuple):
            return self.predict([items])[0]
        return self.predict(items)

    def predict(self, items: Iterable[Any]) -> list[Prediction]:
        return list(self.stream(items))

    def stream(self, items: Iterable[Any]) -> Iterator[Prediction]:
        """Predictions in order, in bounded memory.

        Raises:
            UserError: an item is nothing that the task predicts for.
        """
        return self.predict_examples(asked(self.task, item) for item in items)

    def predict_examples(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        return predictions(
            self.model, self.task, self.tokenizer, examples, tokens_per_batch=self.tokens_per_batch
        )


def chosen_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device {name!r} can't be used here ({str(error).splitlines()[0]}): give auto, cpu or cuda:N"
        ) from error
    return device


def load(folder: str | Path, *, part: str | None = None, device: str = "auto") -> Predictor:
    """Opens a bundle (or the bundle of a run folder, or a shipped model) for prediction.

    Args:
        part: of a bundle of several tasks, the name of the one to predict for; None: all of them, in one pass.

    Raises:
        BundleError: the folder is missing, damaged or of another version, or has no such task.
    """
    return Predictor(folder, part=part, device=device)
