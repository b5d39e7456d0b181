"""Classification by filling a gap (PET, Schick & Schütze 2021): for few labels, since nothing new has to be learned.

A template makes a sentence with a gap of the text, and each label is a word that may stand there: the masked-LM head
that the model was pre-trained with says which fits. Several templates are learned together, and their answers averaged.
For texts and for pairs of texts; a long text is read in overlapping windows, a long pair is cut.

What of PET is not here: its second step, soft labels for unlabelled texts that a classifier then learns from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from wenmai.backbones.lm_head import pretrained_lm_head
from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.heads.cloze import ClozeHead
from wenmai.heads.head import Head
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.tasks.cloze_templates import Filled, check_template, distinct, word_pieces
from wenmai.tasks.labelled_text import LabelledText, LabelledTextTask, labels_among
from wenmai.tasks.task import TaskConfig


class ClozeClassificationConfig(TaskConfig):
    name: Literal["cloze_classification"] = "cloze_classification"
    templates: list[str] = Field(
        default=["类别是[MASK]：{text}"],
        min_length=1,
        description="sentences with {text} and [MASK], for pairs also {text_pair}; several are averaged",
    )
    verbalizer: dict[str, str | list[str]] = Field(
        default={},
        description="label: its word or words, as they may stand at the mask; default: the label itself. Labels that "
        "no example has can be answered too",
    )
    window_overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target that is spread evenly over all labels"
    )

    @field_validator("templates")
    @classmethod
    def _have_their_slots(cls, templates: list[str]) -> list[str]:
        for template in templates:
            check_template(template)
        return templates

    @field_validator("verbalizer")
    @classmethod
    def _has_words(cls, verbalizer: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for label, words in verbalizer.items():
            if not words:
                raise ValueError(f"{label!r} has no word: give one, or leave the label out to use its name")
        return verbalizer


class ClozeClassification(LabelledTextTask[ClozeClassificationConfig]):
    name = "cloze_classification"
    Config = ClozeClassificationConfig

    def __init__(self, config: ClozeClassificationConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self._words: list[tuple[str, str, list[int]]] = []
        self._filled: list[Filled] = []

    @classmethod
    def collect_labels(cls, config: ClozeClassificationConfig, examples: Iterable[LabelledText]) -> list[str]:
        return labels_among(examples, cls.name, config.verbalizer)

    def label_problems(self, example: LabelledText) -> list[str]:
        problems = super().label_problems(example)
        if (example.text_pair is not None) != any("{text_pair}" in t for t in self.config.templates):
            have = "no" if example.text_pair is None else "a"
            problems.append(
                f"has {have} text_pair, which does not go with task.templates and their {{text_pair}}"
            )
        return problems

    def as_example(self, item: Any) -> LabelledText:
        example = super().as_example(item)
        problems = self.label_problems(example)
        if problems:
            raise UserError(f"{self.name}: {item!r} {problems[0]}")
        return example

    def read_vocabulary(self, tokenizer: Tokenizer) -> None:
        if tokenizer.mask_id is None:
            raise UserError(f"{self.name} needs a tokenizer with a mask token, this backbone's has none")
        self._words = []
        for label in self.labels:
            given = self.config.verbalizer.get(label, label)
            words = [given] if isinstance(given, str) else given
            self._words += [(label, word, word_pieces(word, label, tokenizer)) for word in words]
        distinct(self._words)
        masks = max(len(ids) for _, _, ids in self._words)
        self._filled = [Filled.of(template, masks, tokenizer) for template in self.config.templates]

    def featurize(self, example: LabelledText, tokenizer: Tokenizer) -> list[Row]:
        if not self._filled:
            self.read_vocabulary(tokenizer)
        text = tokenizer.encode(example.text)
        pair = None if example.text_pair is None else tokenizer.encode(example.text_pair)
        rows = [
            row
            for filled in self._filled
            for row in filled.rows(
                text, pair, tokenizer, max_length=self.config.max_length, overlap=self.config.window_overlap
            )
        ]
        if example.label in self.label_ids:
            for row in rows:
                row.targets["label"] = self.label_ids[example.label]
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        language_model = MaskedLMHead(
            backbone.hidden_size,
            backbone.word_embeddings,
            layer_norm_eps=float(getattr(backbone.config, "layer_norm_eps", 1e-12)),
        )
        return ClozeHead(
            language_model,
            words=[ids for _, _, ids in self._words],
            label_of_word=[self.label_ids[label] for label, _, _ in self._words],
            label_smoothing=self.config.label_smoothing,
        )

    def start_head(self, head: Head, backbone: Backbone) -> None:
        assert isinstance(head, ClozeHead)
        state = pretrained_lm_head(backbone)
        if state is not None:
            head.lm.load_state_dict(state)

    def lost_labels(self, example: LabelledText, tokenizer: Tokenizer) -> list[str]:
        if example.text_pair is None:
            return []
        if not self._filled:
            self.read_vocabulary(tokenizer)
        tokens = len(tokenizer.encode(example.text)) + len(tokenizer.encode(example.text_pair))
        over = tokens - min(filled.room(tokenizer, self.config.max_length) for filled in self._filled)
        return [f"{over} of {tokens} tokens of the pair are cut off"] if over > 0 else []
