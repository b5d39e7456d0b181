"""One-call use: the name of a use, as people know it from other tools, and a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, overload

from wenmai.errors import UserError
from wenmai.heads.pooling import Pooling
from wenmai.inference.asking import asked
from wenmai.inference.features import FeatureExtractor
from wenmai.inference.predictor import Predictor
from wenmai.inference.zero_shot import Calibration, Labels, ZeroShotClassifier
from wenmai.tasks import TASKS
from wenmai.tasks.masked_lm import MaskedLM
from wenmai.tasks.multi_task import MultiTask
from wenmai.tasks.task import Prediction

FEATURES = "feature-extraction"
"""The use that any encoder is good for."""

ZERO_SHOT = "zero-shot-classification"
"""The use that models for inference and masked language models are good for; all others need a bundle of their task."""

OPTIONS = {
    FEATURES: ("pooling", "normalize", "tokens"),
    ZERO_SHOT: ("candidate_labels", "hypothesis_template", "multi_label", "prompt", "calibrate"),
}
"""What may be said about a use beside the device; about all others ``top_k``, ``targets`` and ``part``."""

KNOWN_AS = {
    "sentiment-analysis": "text_classification",
    "text-pair": "text_matching",
    "token-classification": "ner",
    "intent-detection": "slot_filling",
    "sentence-level-relation-extraction": "relation_classification",
    "dep": "dependency_parsing",
    "triple-extraction": "relation_extraction",
    "sentence-similarity": "text_embedding",
    "fill-mask": "masked_lm",
    "form-understanding": "document_layout",
    "pet": "cloze_classification",
    "setfit": "contrastive_classification",
}
"""What other tools call our tasks; beside these, every task goes by its own name, with - or _ between the words."""

LABELLING = frozenset({"masked_lm", "text_matching"})
"""Tasks whose bundles may be able to label texts without having learned the labels."""

RANKED = frozenset(
    {
        "masked_lm",
        "text_classification",
        "text_matching",
        "cloze_classification",
        "contrastive_classification",
        "question_answering",
        "slot_filling",
        "relation_classification",
    }
)
"""Tasks that answer with several possibilities, of which the best may be asked for."""


class Pipeline:
    """A bundle under the name of a use.

    Args:
        predictor: the opened bundle.
        top_k: answers to give: guesses a mask, labels a text or pair, or answers a question; None: 5 guesses, all
            labels, the bundle's ``n_best`` answers, more than which there are not.
        targets: for masks, the only tokens that may be guessed.
    """

    def __init__(
        self, predictor: Predictor, *, top_k: int | None = None, targets: Sequence[str] | None = None
    ):
        self.predictor = predictor
        self.task = predictor.task
        self.top_k, self.targets = top_k, targets
        self._check(top_k, targets)

    @overload
    def __call__(
        self,
        items: str | dict[str, Any] | tuple[str, str],
        *,
        top_k: int | None = None,
        targets: Sequence[str] | None = None,
    ) -> Prediction: ...

    @overload
    def __call__(
        self, items: Iterable[Any], *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> list[Prediction]: ...

    def __call__(
        self, items: Any, *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> Prediction | list[Prediction]:
        """One text, pair or record to its prediction, several to a list. The options are those of the pipeline,
        for this call."""
        if isinstance(items, str | dict | tuple):
            return next(self.stream([items], top_k=top_k, targets=targets))
        return list(self.stream(items, top_k=top_k, targets=targets))

    def stream(
        self, items: Iterable[Any], *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> Iterator[Prediction]:
        """Predictions in order, in bounded memory.

        Raises:
            UserError: an option has no meaning for this task, an item is nothing that it predicts for, or a text
                has no mask to fill.
        """
        self._check(top_k, targets)
        top_k, targets = top_k or self.top_k, targets or self.targets
        if not isinstance(self.task, MaskedLM):
            for prediction in self.predictor.stream(items):
                yield prediction if top_k is None else _best(prediction, top_k)
            return
        options = {"top_k": top_k, "targets": None if targets is None else tuple(targets)}
        given = {name: value for name, value in options.items() if value is not None}
        examples = (asked(self.task, item).model_copy(update=given) for item in items)
        for prediction in self.predictor.predict_examples(examples):
            if "masks" not in prediction:
                raise UserError(
                    f"{prediction['text']!r} has no mask to fill: write [MASK] where a token is to be found; "
                    "how likely a whole text is says wenmai.load(model)(text)"
                )
            yield prediction

    def _check(self, top_k: int | None, targets: Sequence[str] | None) -> None:
        name = self.task.name
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k: {top_k} given, expected 1 or more")
        if targets is not None and (isinstance(targets, str) or not targets):
            raise UserError(f"targets: {targets!r} given, expected a list of tokens: ['好', '坏']")
        if targets is not None and name != "masked_lm":
            raise UserError(f"targets: is for fill-mask; a {name} model knows its labels: {self.task.labels}")
        if top_k is not None and name not in RANKED:
            raise UserError(f"top_k: has no meaning for {name}, whose answers are not ranked; leave it out")


def pipeline(
    task: str,
    model: str | Path,
    *,
    part: str | None = None,
    device: str | int = "auto",
    top_k: int | None = None,
    targets: Sequence[str] | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    tokens: bool | None = None,
    candidate_labels: Labels | None = None,
    hypothesis_template: str | None = None,
    multi_label: bool | None = None,
    prompt: str | None = None,
    calibrate: Calibration | None = None,
) -> Pipeline | FeatureExtractor | ZeroShotClassifier:
    """A model ready for a use: ``wenmai.pipeline("fill-mask", model="wenmai-tiny-zh")("今天[MASK]气很好")``.

    Args:
        task: ``ner``, ``sentiment-analysis``, ``text-pair``, ``fill-mask``, ``feature-extraction``,
            ``zero-shot-classification`` ...; a wrong one is answered with all there are.
        model: a bundle or run folder or the name of a shipped model; for ``feature-extraction`` and
            ``zero-shot-classification`` also any model folder or hub name.
        part: of a model of several tasks, the name of the one that is meant, where more than one is of this use.
        device: ``auto``, ``cpu``, ``cuda:1``; or a number as transformers takes it, -1 for the CPU.
        top_k, targets: see :class:`Pipeline`.
        pooling, normalize, tokens: of ``feature-extraction``, see :class:`FeatureExtractor`.
        candidate_labels, hypothesis_template, multi_label, prompt, calibrate: of ``zero-shot-classification``, see
            :class:`ZeroShotClassifier`.

    Raises:
        UserError: the use is unknown, the model is of another task or can't be opened, an option is not for this use.
    """
    wanted = task_of(task)
    where = device if isinstance(device, str) else "cpu" if device < 0 else f"cuda:{device}"
    options: dict[str, Any] = {
        "top_k": top_k,
        "targets": targets,
        "part": part,
        "pooling": pooling,
        "normalize": normalize,
        "tokens": tokens,
        "candidate_labels": candidate_labels,
        "hypothesis_template": hypothesis_template,
        "multi_label": multi_label,
        "prompt": prompt,
        "calibrate": calibrate,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in OPTIONS.get(_plain(task), ("top_k", "targets", "part")):
            raise UserError(f"{name}: is no option of pipeline({task!r}); leave it out")
    if _plain(task) == FEATURES:
        return FeatureExtractor(model, device=where, **given)
    if _plain(task) == ZERO_SHOT:
        return ZeroShotClassifier(model, device=where, **given)
    part = given.pop("part", None)
    predictor = Predictor(model, part=part, device=where)
    if isinstance(predictor.task, MultiTask) and wanted is not None:
        predictor = predictor.part(_the_part(predictor.task, wanted, task, model))
    if predictor.task.name != wanted:
        fit = " or ".join(f"pipeline({name!r})" for name in uses_of(predictor.task.name))
        raise UserError(
            f"{model}: is a {predictor.task.name} model, but pipeline({task!r}) needs one of {wanted}: use it with "
            f"{fit}, or train a {wanted} model on it (backbone.model: {model})"
        )
    return Pipeline(predictor, **given)


def _the_part(several: MultiTask, wanted: str, use: str, model: str | Path) -> str:
    """The one of several tasks that a use means.

    Raises:
        UserError: none is of this kind, or more than one.
    """
    fitting = [name for name, task in several.tasks.items() if task.name == wanted]
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(f"{name} ({task.name})" for name, task in several.tasks.items())
    if not fitting:
        raise UserError(f"{model}: has no task for pipeline({use!r}), which needs {wanted}; it has {held}")
    raise UserError(
        f"{model}: has several tasks for pipeline({use!r}): {', '.join(fitting)}; name one: part={fitting[0]!r}"
    )


def task_of(use: str) -> str | None:
    """The task that a use needs a bundle of; None for ``feature-extraction`` and ``zero-shot-classification``.

    Raises:
        UserError: there is no such use.
    """
    plain = _plain(use)
    if plain in OPTIONS:
        return None
    own = plain.replace("-", "_")
    if (found := KNOWN_AS.get(plain, own)) in TASKS:
        return found
    names = sorted({*OPTIONS, *KNOWN_AS, *(name.replace("_", "-") for name in TASKS)})
    close = get_close_matches(plain, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"pipeline({use!r}): there is no such use; {meant}known are {', '.join(names)}")


def _plain(use: str) -> str:
    return use.strip().lower().replace("_", "-")


def uses_of(task: str) -> list[str]:
    """The uses that a bundle of a task is good for."""
    zero_shot = [ZERO_SHOT] if task in LABELLING else []
    named = [use for use, known in KNOWN_AS.items() if known == task]
    return [task.replace("_", "-"), *named, *zero_shot, FEATURES]


def _best(prediction: Prediction, top_k: int) -> Prediction:
    """The prediction with the ``top_k`` highest of its ``scores`` or answers, the highest first."""
    if "n_best" in prediction:
        return {**prediction, "n_best": prediction["n_best"][:top_k]}
    if "scores" not in prediction:
        raise UserError("top_k: this model answers with one number, not with labels; leave it out")
    ranked = sorted(prediction["scores"].items(), key=lambda item: -item[1])
    return {**prediction, "scores": dict(ranked[:top_k])}
