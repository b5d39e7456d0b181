"""The fields of a page from what the head says of all its windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wenmai.data.rows import Row
from wenmai.heads.layout import page_link_scores
from wenmai.heads.viterbi import Allowed, hard_transitions, segment_probabilities, viterbi
from wenmai.tasks.layout_example import DocumentLayoutExample
from wenmai.tasks.layout_rows import Boxes, first_words, head_word, seen_boxes
from wenmai.tasks.task import RowOutputs
from wenmai.tasks.windows import merge_windows
from wenmai.text.boxes import around, plain
from wenmai.text.tags import Scheme, spans_from_tags

Floats = NDArray[np.float32]
Links = list[dict[str, Any]]


@dataclass(frozen=True)
class Entity:
    """Words of a page, numbered from 0, with their label, and how sure it is; None if it was given."""

    words: Sequence[int]
    label: str
    score: float | None

    def shown(self, example: DocumentLayoutExample) -> dict[str, Any]:
        """As a record: words, characters, the box around them in the page's unit, and the text."""
        start, end = example.places[self.words[0]][0], example.places[self.words[-1]][1]
        record = {
            "start": start,
            "end": end,
            "label": self.label,
            "text": example.text[start:end],
            "words": list(self.words),
            "box": plain(around(example.words[word].box for word in self.words)),
        }
        return record if self.score is None else {**record, "score": round(self.score, 6)}


@dataclass(frozen=True)
class PageOutputs:
    """The head's outputs for a page, those of each word from the window in which it stands freest. So a link may also
    join words that no window holds together.

    Args:
        example: the page.
        words: W of its words, those that have a token.
        of_words: ``logits``, ``keys``, ``values``, (W, ...) each, as far as the head gives them.
        tables: ``places`` and ``types``.
    """

    example: DocumentLayoutExample
    words: list[int]
    of_words: Mapping[str, Floats]
    tables: Mapping[str, Floats]

    @classmethod
    def of(cls, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: DocumentLayoutExample) -> Self:
        """Of all windows of a page, in order."""
        names = [name for name in ("logits", "keys", "values") if name in outputs[0]]
        merged = {name: merge_windows([out[name] for out in outputs], rows) for name in names}
        first, offsets = first_words(example), merged[names[0]][1]
        token_W = np.array([at for at, (start, _) in enumerate(offsets) if start in first], dtype=np.int64)
        return cls(
            example,
            [first[offsets[token][0]] for token in token_W],
            {name: array[token_W] for name, (array, _) in merged.items()},
            {name: outputs[0][name] for name in ("places", "types") if name in outputs[0]},
        )

    def entities(self, tags: Sequence[str], allowed: Allowed, scheme: Scheme) -> list[Entity]:
        """The best path through the whole page, each entity with the probability that all its tags are right."""
        logits_WL = self.of_words["logits"]
        if not len(logits_WL):
            return []
        transitions = hard_transitions(allowed)
        path, _ = viterbi(logits_WL, transitions)
        spans = spans_from_tags([tags[i] for i in path], scheme=scheme, strict=True)
        sure = segment_probabilities(logits_WL, transitions, path, [(span.start, span.end) for span in spans])
        return [
            Entity(range(self.words[span.start], self.words[span.end - 1] + 1), span.label, probability)
            for span, probability in zip(spans, sure, strict=True)
        ]

    def links(self, entities: Sequence[Entity], name_ids: Mapping[str, int], boxes: Boxes) -> Links:
        """The pairs that score above 0, by key and value; entities whose labels are unknown have none."""
        at = {word: number for number, word in enumerate(self.words)}
        usable = [
            number
            for number, entity in enumerate(entities)
            if entity.label in name_ids and head_word(self.example, entity.words) in at
        ]
        if not usable:
            return []
        chosen = [entities[number] for number in usable]
        seen = seen_boxes(self.example, boxes)
        at_N = np.array([at[head_word(self.example, entity.words)] for entity in chosen], dtype=np.int64)
        score_NN = page_link_scores(
            {name: self.of_words[name][at_N] for name in ("keys", "values")} | {**self.tables},
            np.array([name_ids[entity.label] for entity in chosen], dtype=np.int64),
            np.array([around(seen[word] for word in entity.words) for entity in chosen], dtype=np.int64),
        )
        return [
            {
                "key": usable[key],
                "value": usable[value],
                "score": round(float(1 / (1 + np.exp(-score_NN[key, value]))), 6),
            }
            for key, value in np.argwhere(score_NN > 0).tolist()
        ]
