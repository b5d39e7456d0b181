"""A text with its words and their tree: the record of dependency parsing, checked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wenmai.metrics.dependencies import ROOT, ParsedWord
from wenmai.tasks.placed import check_place
from wenmai.tasks.task import Example


class Word(BaseModel):
    """``head`` is the number of a word of the same sentence, from 1; 0 for the root. ``text``, where the file gives it,
    must be what stands at these characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    upos: str | None = Field(default=None, min_length=1)
    head: int | None = Field(default=None, ge=0)
    relation: str | None = Field(default=None, min_length=1)
    text: str | None = None

    @property
    def bare(self) -> bool:
        """Whether nothing but its place is known."""
        return self.upos is None and self.head is None


class Sentence(BaseModel):
    """Characters of a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int


class DependencyExample(Example):
    """``{"text", "words": [{"start", "end", "upos", "head", "relation"}]}``; unlabelled is no ``words`` at all.

    A record is one sentence, unless ``sentences`` ``[{"start", "end"}]`` says where several begin and end; in each of
    them the words are numbered from 1.
    """

    text: str
    words: tuple[Word, ...] | None = None
    sentences: tuple[Sentence, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_words()
        self._check_sentences()
        for sentence in self.by_sentence():
            _check_tree(sentence)
        return self

    @property
    def labelled(self) -> bool:
        return self.words is not None

    @property
    def length(self) -> int:
        return len(self.text)

    @property
    def bare(self) -> bool:
        """Whether it has words of which nothing but their place is known."""
        return bool(self.words) and all(word.bare for word in self.words or ())

    def by_sentence(self) -> Iterator[list[tuple[int, Word]]]:
        """The words of each sentence that has any, with their numbers in the record from 0."""
        starts = [sentence.start for sentence in self.sentences or ()]
        numbered = enumerate(self.words or ())
        for _, group in groupby(numbered, key=lambda item: bisect_right(starts, item[1].start)):
            yield list(group)

    def heads(self) -> list[int | None]:
        """For each word of the record the number of its head in the record, from 0; its own for a root."""
        return [
            None if word.head is None else sentence[word.head - 1][0] if word.head else index
            for sentence in self.by_sentence()
            for index, word in sentence
        ]

    def parsed(self) -> list[ParsedWord]:
        """The words as they are scored."""
        words = self.words or ()
        places = [(word.start, word.end) for word in words]
        return [
            ParsedWord(
                *place,
                word.upos,
                None if head is None else places[head] if word.head else ROOT,
                word.relation,
            )
            for place, word, head in zip(places, words, self.heads(), strict=True)
        ]

    def _check_words(self) -> None:
        before = 0
        for index, word in enumerate(self.words or ()):
            check_place(word, self.text, f"words[{index}]")
            where = f"words[{index}]: "
            surface = self.text[word.start : word.end]
            if word.start < before:
                raise ValueError(
                    f"{where}{surface!r} begins at {word.start}, before the word in front of it ends at {before}: "
                    "words stand in their order and do not overlap"
                )
            if surface != surface.strip():
                raise ValueError(f"{where}{surface!r} begins or ends with a blank: move the offsets inwards")
            if (word.head is None) != (word.relation is None):
                missing, given = ("head", "relation") if word.head is None else ("relation", "head")
                raise ValueError(f"{where}{surface!r} has a {given} but no {missing}: give both or neither")
            before = word.end

    def _check_sentences(self) -> None:
        if self.sentences is None:
            return
        before = 0
        for index, sentence in enumerate(self.sentences):
            if not before <= sentence.start < sentence.end <= len(self.text):
                raise ValueError(
                    f"sentences[{index}]: start {sentence.start} and end {sentence.end} are no range behind the "
                    f"sentence before it and inside the text ({len(self.text)} characters)"
                )
            before = sentence.end
        starts = [sentence.start for sentence in self.sentences]
        for index, word in enumerate(self.words or ()):
            at = bisect_right(starts, word.start) - 1
            if at < 0 or word.end > self.sentences[at].end:
                raise ValueError(
                    f"words[{index}]: {word.start}:{word.end} lies in none of the sentences: each word lies inside one"
                )


def _check_tree(sentence: Sequence[tuple[int, Word]]) -> None:
    """One root, to which all words lead, or no heads at all."""
    heads = [word.head for _, word in sentence]
    if all(head is None for head in heads):
        return
    for (index, _), head in zip(sentence, heads, strict=True):
        if head is None:
            raise ValueError(
                f"words[{index}]: has no head, others of its sentence have: give all heads or none"
            )
        if head > len(sentence):
            raise ValueError(
                f"words[{index}]: head {head} is the number of no word: its sentence has {len(sentence)}"
            )
    roots = [index for (index, _), head in zip(sentence, heads, strict=True) if head == 0]
    if len(roots) != 1:
        shown = ", ".join(f"words[{index}]" for index in roots[:5]) or "none"
        raise ValueError(
            f"words[{roots[1] if roots else sentence[0][0]}]: a sentence has exactly one root (head 0), this one has "
            f"{len(roots)} ({shown}); tell where sentences begin and end with the field sentences"
        )
    leads = {0}
    for number in range(1, len(sentence) + 1):
        path: list[int] = []
        at = number
        while at not in leads:
            if at in path:
                way = " to ".join(str(step) for step in [*path[path.index(at) :], at])
                raise ValueError(
                    f"words[{sentence[number - 1][0]}]: its heads never reach the root: {way} is a circle"
                )
            path.append(at)
            at = heads[at - 1] or 0
        leads.update(path)
