"""In which way trees and triples are wrong, from the records of a prediction and of its gold."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]


class WordInTree(NamedTuple):
    """A word with all that is said of it; its head by its characters, None for a root."""

    start: int
    end: int
    upos: str | None
    head: tuple[int, int] | None
    relation: str | None

    def described(self, text: str) -> str:
        """``PRON nsubj 喜欢``: part of speech, relation and head, as far as they are known."""
        above = text[slice(*self.head)] if self.head else None
        return " ".join(part for part in (self.upos, self.relation, above) if part) or "word"


def words_in_trees(words: Sequence[Record], sentences: Sequence[Record] | None) -> list[WordInTree]:
    """The words of a record of dependency parsing."""
    found = []
    for together in _by_sentence(words, sentences):
        for word in together:
            above = together[word["head"] - 1] if word.get("head") else None
            head = (above["start"], above["end"]) if above else None
            found.append(WordInTree(word["start"], word["end"], word.get("upos"), head, word.get("relation")))
    return found


def tree_kinds(predicted: Sequence[WordInTree], gold: Sequence[WordInTree]) -> set[str]:
    """What is wrong about the words whose borders are right."""
    wanted = {word[:2]: word for word in gold}
    names = {"upos": "wrong part of speech", "head": "wrong head", "relation": "wrong relation"}
    return {
        kind
        for word in predicted
        if (own := wanted.get(word[:2]))
        for field, kind in names.items()
        if getattr(word, field) != getattr(own, field)
    }


class WrittenTriple(NamedTuple):
    """A triple as it is written; an end with its type, where triples have types."""

    subject: str
    predicate: str
    object: str

    def __str__(self) -> str:
        return f"({self.subject}, {self.predicate}, {self.object})"


def written_triples(relations: Sequence[Record], text: str) -> list[WrittenTriple]:
    """The triples of a record of relation extraction."""
    return [
        WrittenTriple(_end(relation["subject"], text), relation["predicate"], _end(relation["object"], text))
        for relation in relations
    ]


def triple_kinds(predicted: Sequence[WrittenTriple], gold: Sequence[WrittenTriple]) -> set[str]:
    """``wrong predicate``, ``subject`` or ``object`` where a gold triple that was not found agrees in all else; else
    ``spurious`` and ``missed``."""
    missed = {*gold} - {*predicted}
    kinds: set[str] = set()
    explained: set[WrittenTriple] = set()
    for triple in {*predicted} - {*gold}:
        near = {
            f"wrong {field}": {
                own for own in missed if own._replace(**{field: ""}) == triple._replace(**{field: ""})
            }
            for field in ("predicate", "subject", "object")
        }
        own_kinds = {kind for kind, same in near.items() if same}
        kinds |= own_kinds or {"spurious"}
        explained = explained.union(*near.values())
    return kinds | ({"missed"} if missed - explained else set())


def _end(end: Record, text: str) -> str:
    surface = text[end["start"] : end["end"]]
    return f"{surface} {end['label']}" if end.get("label") else surface


def _by_sentence(words: Sequence[Record], sentences: Sequence[Record] | None) -> Iterator[Sequence[Record]]:
    if not sentences:
        yield words
        return
    starts = [word["start"] for word in words]
    for sentence in sentences:
        yield words[bisect_left(starts, sentence["start"]) : bisect_left(starts, sentence["end"])]
