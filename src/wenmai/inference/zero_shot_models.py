"""Models that can tell how far a label fits a text without having learned it: wenmai's bundles and others' models."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from wenmai.backbones.hub import model_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.with_head import head_kind, load_classifier, load_mask_guesser
from wenmai.bundle import Bundle, has_bundle, load_bundle
from wenmai.data.rows import Batch
from wenmai.errors import UserError
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.inference.cloze import Cloze
from wenmai.inference.entailment import ENTAILS, PairJudge, entails_and_contradicts
from wenmai.inference.predictor import chosen_device
from wenmai.tasks.masked_lm import MaskedLM
from wenmai.tasks.text_matching import TextMatching

LONGEST_ROW = 512
"""Tokens of a row in models that don't say how long their rows were in training."""

WANTED = (
    "zero-shot classification needs a text_matching bundle with a class for entailment, a masked_lm bundle such as "
    "wenmai-tiny-zh, or a model of transformers with one of these heads"
)


def open_for_labels(model: str | Path, device: str) -> PairJudge | Cloze:
    """A model for inference, or a masked language model.

    Args:
        model: a bundle or run folder, the name of a shipped model, any model folder, or a name on the hub.

    Raises:
        UserError: it can't be opened, or is neither of both.
    """
    place = chosen_device(device)
    where = str(place)
    if has_bundle(Path(model)):
        return _of_bundle(load_bundle(Path(model)), str(model), where)
    folder = model_folder(BackboneConfig(model=str(model)))
    kind = head_kind(folder)
    if kind == "classifier":
        classifier, tokenizer, classes = load_classifier(folder)
        _check_classes(classes, str(model))
        length = min(LONGEST_ROW, tokenizer.max_length)
        return PairJudge(tokenizer, classes, classifier.to(place).eval(), length, where)
    if kind == "masked_lm":
        guesser = load_mask_guesser(folder).to(place).eval()
        guesser.backbone.set_padding_free("auto")
        return Cloze(guesser.tokenizer, guesser, min(LONGEST_ROW, guesser.tokenizer.max_length), where)
    raise UserError(f"{model}: has no head of use here: {WANTED}")


def _of_bundle(bundle: Bundle, name: str, device: str) -> PairJudge | Cloze:
    task, model = bundle.task, bundle.model.to(device)
    model.backbone.set_padding_free("auto")
    if isinstance(task, TextMatching) and not task.regression:
        _check_classes(task.labels, name)

        def logits(batch: Batch) -> Tensor:
            found: Tensor = model(batch)["logits"]
            return found

        return PairJudge(bundle.tokenizer, task.labels, logits, task.config.max_length, device)
    if isinstance(task, MaskedLM):
        head = model.head
        assert isinstance(head, MaskedLMHead)

        def guesses(batch: Batch, asked_BT: Tensor) -> Tensor:
            return head.guesses(model.backbone(batch, asked_BT)[asked_BT])

        return Cloze(bundle.tokenizer, guesses, task.config.max_length, device)
    kind = "regression" if isinstance(task, TextMatching) else task.name
    raise UserError(f"{name}: is a {kind} model: {WANTED}")


def _check_classes(classes: list[str], name: str) -> None:
    if entails_and_contradicts(classes) is None:
        raise UserError(
            f"{name}: its classes are {', '.join(classes)}: none is called {' or '.join(ENTAILS)}... with one for "
            f"contradiction beside it; {WANTED}"
        )
