"""Dependency parsing: words, their parts of speech and the tree above them, from the characters of a sentence.

One encoder reads the tokens; borders of words are found between them, a word is represented by its last token, and arcs
are scored between all last tokens (Dozat and Manning 2017). Each part can also be learned alone; without ``words`` the
record gives them.

A row is a sentence, so that what is said of a sentence never depends on its neighbours; one that has more tokens than a
row is cut at a clause and becomes several trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wenmai.backbones.load import Backbone
from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.data.rows import IGNORE, Row, Target
from wenmai.errors import UserError
from wenmai.heads.biaffine import DependencyHead
from wenmai.heads.chu_liu_edmonds import tree_heads
from wenmai.heads.eisner import projective_heads
from wenmai.heads.head import Head
from wenmai.metrics.dependencies import ParsedWord, dependency_scores
from wenmai.metrics.scores import Scores
from wenmai.metrics.spans import span_confusion, span_scores_by
from wenmai.tasks.dependency_example import DependencyExample, Word
from wenmai.tasks.sentence_rows import (
    Range,
    Tokens,
    borders,
    encode_sentences,
    encode_words,
    place_words,
    sentence_row,
    words_of,
)
from wenmai.tasks.task import Prediction, RowOutputs, Task, TaskConfig, text_record
from wenmai.tasks.token_choice import TokenChoice, by_character
from wenmai.tasks.windows import room_of
from wenmai.text.sentences import split_sentences
from wenmai.text.spans import Span

Part = Literal["words", "upos", "heads"]

RELATION, ROOT_RELATION, UPOS = "relation/", "root/", "upos/"
"""What the labels begin with: relations to another word, relations of roots, parts of speech."""


class DependencyParsingConfig(TaskConfig):
    name: Literal["dependency_parsing"] = "dependency_parsing"
    parts: list[Part] = Field(
        default=["words", "upos", "heads"],
        min_length=1,
        description="what is learned; heads with their relations. Without words every record gives its own",
    )
    decoder: Literal["nonprojective", "projective"] = Field(
        default="nonprojective",
        description="which trees are possible: all (Chu-Liu/Edmonds), or those without crossing arcs (Eisner)",
    )
    subtypes: bool = Field(default=True, description="false: nsubj:pass is learned as nsubj")
    tokens: TokenChoice = "auto"
    split_sentences: bool = Field(
        default=True, description="false: a text that does not say where its sentences are is one sentence"
    )
    arc_size: int = Field(default=256, ge=1, description="width of a word's vectors for scoring arcs")
    relation_size: int = Field(
        default=128, ge=1, description="width of a word's vectors for scoring relations"
    )
    dropout: float = Field(default=0.33, ge=0, lt=1)

    @model_validator(mode="after")
    def _each_part_once(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts {self.parts} names a part twice")
        return self


class DependencyParsing(Task[DependencyExample, DependencyParsingConfig]):
    name = "dependency_parsing"
    Example = DependencyExample
    Config = DependencyParsingConfig

    def __init__(self, config: DependencyParsingConfig, labels: Sequence[str]):
        super().__init__(config, labels)
        self.finds_words, self.finds_upos, self.finds_heads = (
            part in config.parts for part in ("words", "upos", "heads")
        )
        self.primary_metric = "las" if self.finds_heads else "upos_f1" if self.finds_upos else "word_f1"
        self.relations, self.root_relations, self.upos = (
            [label.removeprefix(kind) for label in self.labels if label.startswith(kind)]
            for kind in (RELATION, ROOT_RELATION, UPOS)
        )
        self.relation_ids = {
            kind + name: i
            for kind, names in ((RELATION, self.relations), (ROOT_RELATION, self.root_relations))
            for i, name in enumerate(names)
        }
        self.upos_ids = {name: i for i, name in enumerate(self.upos)}
        self.find_tree = projective_heads if config.decoder == "projective" else tree_heads

    @classmethod
    def collect_labels(
        cls, config: DependencyParsingConfig, examples: Iterable[DependencyExample]
    ) -> list[str]:
        labels: set[str] = set()
        words = 0
        for example in examples:
            for word in example.words or ():
                words += 1
                if word.upos is not None and "upos" in config.parts:
                    labels.add(UPOS + word.upos)
                if word.relation is not None and "heads" in config.parts:
                    kind = RELATION if word.head else ROOT_RELATION
                    labels.add(kind + _relation(word.relation, config.subtypes))
        needed = {"upos": (UPOS, "upos"), "heads": (RELATION, "head and relation to another word")}
        for part, (kind, field) in needed.items():
            if part in config.parts and not any(label.startswith(kind) for label in labels):
                raise UserError(
                    f"task.parts names {part}, but no word of the training set has a {field}: check the data's format, "
                    f"or take {part} out of task.parts"
                )
        if not words:
            raise UserError(
                "dependency_parsing needs words, the training set has none: check the data's format"
            )
        return sorted(labels)

    def label_problems(self, example: DependencyExample) -> list[str]:
        words = example.words or ()
        return [
            f"words: have no {field}, which task.parts asks for: take {part} out of it, or leave the record out"
            for part, field in (("upos", "upos"), ("heads", "head"))
            if part in self.config.parts and words and all(getattr(word, field) is None for word in words)
        ]

    def as_example(self, item: Any) -> DependencyExample:
        fields = text_record(item, self.name)
        given = item if isinstance(item, Mapping) else {}
        words = given.get("words")
        whole = DependencyExample(**fields, words=words, sentences=given.get("sentences"))
        if not self.finds_words and words is None:
            raise UserError(
                f"this model does not find words (its task.parts are {', '.join(self.config.parts)}): give them as "
                "{'text': ..., 'words': [{'start': ..., 'end': ...}]}"
            )
        if whole.words is None or (self.finds_words and not whole.bare):
            return whole.model_copy(update={"words": None})
        bare = tuple(Word(start=word.start, end=word.end) for word in whole.words)
        return whole.model_copy(update={"words": bare})

    def featurize(self, example: DependencyExample, tokenizer: Tokenizer) -> list[Row]:
        rows: list[Row] = []
        tokens = 0
        for encoding in self._encodings(example, tokenizer):
            rows.append(sentence_row(encoding, tokenizer, tokens))
            tokens += len(encoding)
        if example.words is not None:
            placed, _ = self._placed(example, rows)
            heads = example.heads()
            for row, words in zip(rows, placed, strict=True):
                row.targets.update(self._targets(example, heads, row, words))
        return rows

    def build_head(self, backbone: Backbone) -> Head:
        return DependencyHead(
            backbone.hidden_size,
            words=self.finds_words,
            upos=len(self.upos),
            relations=len(self.relations),
            root_relations=len(self.root_relations),
            arc_size=self.config.arc_size,
            relation_size=self.config.relation_size,
            dropout=self.config.dropout,
        )

    def decode(
        self, outputs: Sequence[RowOutputs], rows: Sequence[Row], example: DependencyExample
    ) -> Prediction:
        given = self._given(example)
        placed = [] if given is None else place_words(example.text, given, rows, given=True)[0]
        words: list[dict[str, Any]] = []
        sentences = []
        for number, (out, row) in enumerate(zip(outputs, rows, strict=True)):
            first, stop = row.content
            offsets = row.offsets[first:stop]
            if given is not None:
                inside = [given[index] for index in placed[number]]
                tokens = list(placed[number].values())
            else:
                tokens = words_of(out["begins"][first:stop], borders(example.text, offsets))
                inside = [(offsets[begin][0], offsets[end - 1][1]) for begin, end in tokens]
            if inside:
                last = np.array([first + end - 1 for _, end in tokens])
                words += self._analysed(out, last, inside, example.text)
                sentences.append({"start": inside[0][0], "end": inside[-1][1]})
        return {"text": example.text, "sentences": sentences, "words": words}

    def score(self, examples: Sequence[DependencyExample], predictions: Sequence[Prediction]) -> Scores:
        return dependency_scores(
            [example.parsed() for example in examples],
            _parsed(predictions),
            upos=self.finds_upos,
            trees=self.finds_heads,
        )

    def breakdowns(
        self, examples: Sequence[DependencyExample], predictions: Sequence[Prediction], known: frozenset[str]
    ) -> dict[str, dict[str, Scores]]:
        gold, predicted = [example.parsed() for example in examples], _parsed(predictions)
        cuts: dict[str, dict[str, Scores]] = {}
        if self.finds_upos:
            cuts["upos"] = span_scores_by(_tagged(gold), _tagged(predicted), lambda _, span: span.label)
        if self.finds_heads:
            arcs = (_arcs(gold), _arcs(predicted))
            cuts["relation"] = span_scores_by(*arcs, lambda _, span: span.label.partition(" ")[0])
        if known and self.finds_words:

            def group(index: int, span: Span) -> str:
                return "seen" if examples[index].text[span.start : span.end] in known else "unseen"

            cuts["seen"] = span_scores_by(_places(gold), _places(predicted), group)
        return cuts

    def inventory(self, examples: Iterable[DependencyExample]) -> set[str]:
        return {example.text[word.start : word.end] for example in examples for word in example.words or ()}

    def confusion(
        self, examples: Sequence[DependencyExample], predictions: Sequence[Prediction]
    ) -> tuple[list[str], NDArray[np.int64]] | None:
        if not self.finds_upos:
            return None
        gold = [example.parsed() for example in examples]
        return span_confusion(_tagged(gold), _tagged(_parsed(predictions)), self.upos)

    def lost_labels(self, example: DependencyExample, tokenizer: Tokenizer) -> list[str]:
        rows = [sentence_row(encoding, tokenizer, 0) for encoding in self._encodings(example, tokenizer)]
        placed, missing = self._placed(example, rows)
        row_of = {index: number for number, words in enumerate(placed) for index in words}
        lost = list(missing.items())
        for index, (word, head) in enumerate(zip(example.words or (), example.heads(), strict=True)):
            if self.finds_upos and word.upos is not None and word.upos not in self.upos:
                lost.append((index, f"upos {word.upos!r} does not occur in the training set"))
            if not self.finds_heads or head is None:
                continue
            if self._relation_id(word) is None:
                lost.append((index, f"relation {word.relation!r} does not occur in the training set"))
            if index in row_of and head in row_of and row_of[index] != row_of[head]:
                lost.append((index, "its sentence is cut in front of its head: raise task.max_length"))
        words = example.words or ()
        return [
            f"words[{index}] ({example.text[words[index].start : words[index].end]!r}): {reason}"
            for index, reason in sorted(lost)
        ]

    def _given(self, example: DependencyExample) -> list[Range] | None:
        """The words to take as they are, where they are not to be found."""
        if self.finds_words and not (example.bare and len(self.config.parts) > 1):
            return None
        return [(word.start, word.end) for word in example.words or ()]

    def _encodings(self, example: DependencyExample, tokenizer: Tokenizer) -> list[Encoding]:
        characters = by_character(self.config.tokens, tokenizer)
        room = room_of(tokenizer, self.config.max_length)
        given, sentences = self._given(example), self._sentences(example)
        if given is None:
            return encode_sentences(example.text, sentences, tokenizer, characters=characters, room=room)
        return encode_words(example.text, given, sentences, tokenizer, characters=characters, room=room)

    def _sentences(self, example: DependencyExample) -> list[Range]:
        """The sentences that the record tells; a record of words that tells none is one sentence."""
        if example.sentences is not None:
            return [(sentence.start, sentence.end) for sentence in example.sentences]
        if example.words is None and self.config.split_sentences:
            return split_sentences(example.text)
        return [(0, len(example.text))]

    def _placed(
        self, example: DependencyExample, rows: Sequence[Row]
    ) -> tuple[list[dict[int, Tokens]], dict[int, str]]:
        words = [(word.start, word.end) for word in example.words or ()]
        return place_words(example.text, words, rows, given=self._given(example) is not None)

    def _targets(
        self, example: DependencyExample, heads: Sequence[int | None], row: Row, placed: Mapping[int, Tokens]
    ) -> dict[str, Target]:
        """The targets of :class:`DependencyHead` for the words of a row; ``heads`` are those of the whole record."""
        first, stop = row.content
        length = len(row)
        ends, begins, upos, to, relations = ([IGNORE] * length for _ in range(5))
        known = borders(example.text, row.offsets[first:stop])
        words = example.words or ()
        for index, (begin, end) in placed.items():
            word, head, last = words[index], heads[index], first + end - 1
            ends[last] = 1
            for token in range(begin, end):
                begins[first + token] = int(token == begin) if known[token] == "open" else IGNORE
            upos[last] = self.upos_ids.get(word.upos or "", IGNORE)
            if head is not None and head in placed:
                relation = self._relation_id(word)
                to[last] = first + placed[head][1] - 1
                relations[last] = IGNORE if relation is None else relation
        targets: dict[str, Target] = {"ends": ends}
        if self.finds_words:
            targets["begins"] = begins
        if self.finds_upos:
            targets["upos"] = upos
        if self.finds_heads:
            targets |= {"heads": to, "relations": relations}
        return targets

    def _relation_id(self, word: Word) -> int | None:
        kind = RELATION if word.head else ROOT_RELATION
        return self.relation_ids.get(kind + _relation(word.relation or "", self.config.subtypes))

    def _analysed(
        self, out: RowOutputs, last_W: NDArray[np.int64], places: Sequence[Range], text: str
    ) -> Iterator[dict[str, Any]]:
        """The words of a sentence as records.

        Args:
            last_W: the token of the row that each word ends in.
            places: the characters of each word.
        """
        upos_W = out["upos"][last_W].argmax(axis=1) if self.finds_upos else None
        heads_W = self.find_tree(out["arcs"][np.ix_(last_W, last_W)]) if self.finds_heads else None
        for i, (start, end) in enumerate(places):
            word: dict[str, Any] = {"start": start, "end": end, "text": text[start:end]}
            if upos_W is not None:
                word["upos"] = self.upos[upos_W[i]]
            if heads_W is not None:
                head = int(heads_W[i])
                relation = int(out["relations"][last_W[i], last_W[head]])
                word["head"] = 0 if head == i else head + 1
                word["relation"] = (self.root_relations if head == i else self.relations)[relation]
            yield word


def _relation(name: str, subtypes: bool) -> str:
    return name if subtypes else name.partition(":")[0]


def _parsed(predictions: Sequence[Prediction]) -> list[list[ParsedWord]]:
    return [
        DependencyExample(text=p["text"], words=p["words"], sentences=p["sentences"]).parsed()
        for p in predictions
    ]


def _places(examples: Sequence[Sequence[ParsedWord]]) -> list[list[Span]]:
    return [[Span(word.start, word.end, "") for word in words] for words in examples]


def _tagged(examples: Sequence[Sequence[ParsedWord]]) -> list[list[Span]]:
    return [[Span(word.start, word.end, word.upos or "_") for word in words] for words in examples]


def _arcs(examples: Sequence[Sequence[ParsedWord]]) -> list[list[Span]]:
    """A span's label tells relation and head, so that spans are equal where arcs are."""
    return [
        [Span(word.start, word.end, f"{word.universal_relation} {word.head}") for word in words]
        for words in examples
    ]
