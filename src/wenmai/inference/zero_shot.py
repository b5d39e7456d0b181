"""Labels that no model was trained on, named when it is asked: by natural language inference or by a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from wenmai.errors import UserError
from wenmai.inference.cloze import Cloze, cloze_log_probabilities, with_blanks
from wenmai.inference.entailment import SLOT, PairJudge, entailment_logits
from wenmai.inference.zero_shot_models import open_for_labels
from wenmai.tasks.task import Prediction, text_record

HYPOTHESIS = "这句话是关于{}的。"
PROMPT = "这句话是关于[MASK]的：{}"

Labels = str | Sequence[str] | Mapping[str, str]
"""``"体育,财经"``, ``["体育", "财经"]``, or labels with the words that the model reads for them:
``"sports=体育,finance=财经"``, ``{"sports": "体育", "finance": "财经"}``."""

Item = TypeVar("Item")

Calibration = bool | Sequence[str]
"""Whether a word's score is relative to what it has in the prompt without a text, or on average over these texts."""

PAIRS_AT_ONCE = 4096
"""Texts times labels that are sorted together: bounds the memory and the wait for the first answer."""


@dataclass(frozen=True)
class Choice:
    """What a text is asked.

    Args:
        words: label -> what the model reads for it.
        template: the hypothesis, or the prompt.
        multi_label: any number of labels may hold; otherwise one does.
        prior_L: prompts only: log-probabilities that scores are relative to; None: they are taken as they are.
    """

    words: Mapping[str, str]
    template: str
    multi_label: bool
    prior_L: NDArray[np.float64] | None


class ZeroShotClassifier:
    """A model that chooses among labels which it is given.

    Args:
        model: for inference a bundle, run or model folder or a name on the hub of a classifier of pairs, one of whose
            classes is entailment; for prompts those of a masked language model, such as ``wenmai-tiny-zh``.
        device: ``auto`` takes a GPU where there is one.
        candidate_labels, hypothesis_template, multi_label, prompt, calibrate: what a call may leave out; see
            :meth:`__call__`.

    Raises:
        UserError: the model is of another kind or can't be opened, or an option is not for its kind.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        candidate_labels: Labels | None = None,
        hypothesis_template: str | None = None,
        multi_label: bool = False,
        prompt: str | None = None,
        calibrate: Calibration | None = None,
    ):
        self.name = str(model)
        self.model: PairJudge | Cloze = open_for_labels(model, device)
        self.tokenizer = self.model.tokenizer
        self.options: dict[str, Any] = {
            "candidate_labels": candidate_labels,
            "hypothesis_template": hypothesis_template,
            "multi_label": multi_label,
            "prompt": prompt,
            "calibrate": calibrate,
        }
        if candidate_labels is not None:
            self.choice()
        else:
            self._template(hypothesis_template, prompt, calibrate)

    @overload
    def __call__(
        self, sequences: str | dict[str, Any], candidate_labels: Labels | None = None, **options: Any
    ) -> Prediction: ...

    @overload
    def __call__(
        self, sequences: Iterable[Any], candidate_labels: Labels | None = None, **options: Any
    ) -> list[Prediction]: ...

    def __call__(
        self, sequences: Any, candidate_labels: Labels | None = None, **options: Any
    ) -> Prediction | list[Prediction]:
        """One text or record to its answer, several to a list: ``sequence``, ``labels`` with the likeliest first, and
        their ``scores``, as transformers' pipeline of this name has it.

        Args:
            sequences: the texts.
            candidate_labels: see :data:`Labels`.
            hypothesis_template: inference: a sentence with ``{}`` for the label; :data:`HYPOTHESIS` by default.
            multi_label: False: the scores of all labels sum to 1. True, or with a single label: each is a probability
                of its own; by inference that of entailment against contradiction, by prompts how much likelier the
                text makes the label's word: p / (p + what it is calibrated by).
            prompt: prompts: a sentence with ``{}`` for the text and ``[MASK]`` for the label; :data:`PROMPT` by
                default.
            calibrate: prompts: True, the default: scores are relative to the probabilities that the words have in the
                prompt without a text; texts: to those that they have on average with these, which need no labels and
                should be like those to come; False: they are taken as they are.
        """
        if isinstance(sequences, str | dict):
            return next(self.stream([sequences], candidate_labels, **options))
        return list(self.stream(sequences, candidate_labels, **options))

    def stream(
        self, sequences: Iterable[Any], candidate_labels: Labels | None = None, **options: Any
    ) -> Iterator[Prediction]:
        """Answers in order, in bounded memory; see :meth:`__call__`.

        Raises:
            UserError: an item is neither a text nor a record with one, labels are missing or can't be scored, or an
                option is not for this kind of model.
        """
        choice = self.choice(candidate_labels=candidate_labels, **options)
        labels = list(choice.words)
        records = (text_record(item, "zero-shot-classification") for item in sequences)
        for record, scores_L in self.scored(records, lambda record: str(record["text"]), choice):
            order = np.argsort(-scores_L, kind="stable")
            name = record.get("id")
            yield {
                **({} if name is None else {"id": name}),
                "sequence": record["text"],
                "labels": [labels[i] for i in order],
                "scores": [round(float(scores_L[i]), 6) for i in order],
            }

    def scored(
        self, items: Iterable[Item], text: Callable[[Item], str], choice: Choice
    ) -> Iterator[tuple[Item, NDArray[np.float64]]]:
        """Each item with the probabilities (L,) of the labels, in order."""
        source = iter(items)
        while chunk := list(islice(source, max(1, PAIRS_AT_ONCE // len(choice.words)))):
            yield from zip(chunk, self._probabilities([text(item) for item in chunk], choice), strict=True)

    def choice(self, **options: Any) -> Choice:
        """The options of a call, with those of the classifier where it names none.

        Raises:
            UserError: see :meth:`stream`.
        """
        if unknown := options.keys() - self.options.keys():
            raise UserError(
                f"{', '.join(sorted(unknown))}: is no option of zero-shot classification; known are "
                f"{', '.join(self.options)}"
            )
        given = {**self.options, **{name: value for name, value in options.items() if value is not None}}
        template = self._template(given["hypothesis_template"], given["prompt"], given["calibrate"])
        words = _words(given["candidate_labels"])
        alone = bool(given["multi_label"]) or len(words) == 1
        prior_L = None
        if isinstance(self.model, Cloze):
            calibrate = True if given["calibrate"] is None else given["calibrate"]
            if alone and calibrate is False:
                raise UserError(
                    "calibrate: false given, but by prompts a label by itself is judged by how much likelier the text "
                    "makes it: leave calibrate out, or set multi_label: false and give several labels"
                )
            prior_L = self._prior(calibrate, words, template)
        return Choice(words, template, alone, prior_L)

    def _prior(
        self, calibrate: Calibration, words: Mapping[str, str], prompt: str
    ) -> NDArray[np.float64] | None:
        assert isinstance(self.model, Cloze)
        if calibrate is False:
            # what is missing in the prompt and the words is told now, not at the first text
            cloze_log_probabilities(self.model, [], list(words.values()), prompt)
            return None
        texts = [""] if calibrate is True else calibrate
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"calibrate: {calibrate!r} given, expected true, false or a list of texts")
        mean_L: NDArray[np.float64] = cloze_log_probabilities(
            self.model, texts, list(words.values()), prompt
        ).mean(axis=0)
        return mean_L

    def _template(self, hypothesis: str | None, prompt: str | None, calibrate: Calibration | None) -> str:
        if isinstance(self.model, PairJudge):
            for name, value in (("prompt", prompt), ("calibrate", calibrate)):
                if value is not None:
                    raise UserError(
                        f"{name}: is for masked language models, but {self.name} is one for inference: give "
                        "hypothesis_template, with {} for the label"
                    )
            template = HYPOTHESIS if hypothesis is None else hypothesis
            if SLOT not in template:
                raise UserError(
                    f"hypothesis_template: {template!r} has no place for the label: write {SLOT} where it goes"
                )
            return template
        if hypothesis is not None:
            raise UserError(
                f"hypothesis_template: is for models of inference, but {self.name} is a masked language model: give "
                "prompt, with {} for the text and [MASK] for the label"
            )
        return with_blanks(PROMPT if prompt is None else prompt, self.tokenizer)

    def _probabilities(self, texts: Sequence[str], choice: Choice) -> NDArray[np.float64]:
        """(N, L), of each text and label."""
        words = list(choice.words.values())
        if isinstance(self.model, PairJudge):
            contradicts_entails_NL2 = entailment_logits(self.model, texts, words, choice.template)
            if choice.multi_label:
                return _softmax(contradicts_entails_NL2)[..., 1]
            return _softmax(contradicts_entails_NL2[..., 1])
        log_NL = cloze_log_probabilities(self.model, texts, words, choice.template)
        if choice.prior_L is not None:
            log_NL = log_NL - choice.prior_L
        return 1 / (1 + np.exp(-log_NL)) if choice.multi_label else _softmax(log_NL)


def _words(labels: Labels | None) -> dict[str, str]:
    if labels is None:
        raise UserError("candidate_labels: none given; name the labels to choose from: ['体育', '财经']")
    if isinstance(labels, str):
        labels = [label.strip() for label in re.split("[,，]", labels) if label.strip()]
        named = [label.partition("=") for label in labels]
        pairs = [(label.strip(), word.strip() if given else label) for label, given, word in named]
    else:
        pairs = list(labels.items()) if isinstance(labels, Mapping) else [(label, label) for label in labels]
    if not pairs:
        raise UserError("candidate_labels: none given; name at least one")
    for pair in pairs:
        if not all(isinstance(part, str) and part.strip() for part in pair):
            raise UserError(
                f"candidate_labels: {pair[0] if pair[0] == pair[1] else pair!r} given, expected texts that are not "
                "empty"
            )
    if len(dict(pairs)) < len(pairs):
        raise UserError(f"candidate_labels: a label is named twice in {[label for label, _ in pairs]}")
    return dict(pairs)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last dimension."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = exponents / exponents.sum(axis=-1, keepdims=True)
    return shares
