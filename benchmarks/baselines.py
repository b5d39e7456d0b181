"""What rules without a model reach: the trivial baselines that trained models are shown beside.

A rule is made from the training set and gives predictions in the shape of the task, which scores them as it scores a
model's. So a baseline and a model differ in nothing but the predictions.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from wenmai.tasks.task import Example, Prediction, Task
from wenmai.text.sentences import split_sentences

Rule = Callable[[Any], Prediction]
"""An example to a prediction."""
Maker = Callable[[Task[Any, Any], Sequence[Any]], Rule | None]
"""A task and its training set to a rule; None where the rule makes no sense for this configuration."""

_UNIT = re.compile(r"[A-Za-z0-9]+|\S")
"""What is never cut: a run of Latin letters and digits; any other character stands for itself."""


def baselines(
    task: Task[Any, Any], train: Sequence[Example], test: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """Name of each rule of the task -> all metrics on the test examples but those of single labels."""
    found = {}
    for name, maker in RULES.get(task.name, {}).items():
        rule = maker(task, train)
        if rule is not None:
            values = task.score(test, [rule(example) for example in test]).values()
            found[name] = {key: value for key, value in values.items() if not key.startswith("label/")}
    return found


def most_frequent_label(task: Task[Any, Any], train: Sequence[Any]) -> Rule | None:
    """Of relations: the most frequent that counts; ``no_relation`` has no F1."""
    if getattr(task.config, "objective", "classification") == "regression" or getattr(
        task.config, "multi_label", False
    ):
        return None
    counts = Counter(str(example.label) for example in train)
    counts.pop(getattr(task.config, "no_relation", None) or "", None)
    label = counts.most_common(1)[0][0]
    return lambda example: {"label": label}


def share_of_most_frequent(train: Sequence[Any], test: Sequence[Any]) -> float:
    """How often the most frequent label of the training set is that of a test example."""
    best = Counter(example.label for example in train).most_common(1)[0][0]
    return sum(example.label == best for example in test) / len(test)


def most_frequent_choice(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    label = Counter(example.label for example in train).most_common(1)[0][0]
    return lambda example: {"label": min(label, len(example.choices) - 1)}


def names_of_entities(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    names = _dictionary((example.text, example.spans) for example in train)
    return lambda example: {"entities": _longest_matches(example.text, names)}


def names_of_slots(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    """The most frequent intents, and the values that slots had."""
    intents = Counter(example.intents for example in train).most_common(1)[0][0]
    names = _dictionary((example.text, example.spans) for example in train)
    return lambda example: {"intents": list(intents), "slots": _longest_matches(example.text, names)}


def pairs_of_entities(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    """The triples of the training set whose two ends both stand in the text, at their first places."""
    known: dict[str, dict[str, set[tuple[str, str | None, str | None]]]] = defaultdict(
        lambda: defaultdict(set)
    )
    for example in train:
        for relation in example.relations:
            subject, target = (
                example.text[end.start : end.end] for end in (relation.subject, relation.object)
            )
            known[subject][target].add((relation.predicate, relation.subject.label, relation.object.label))

    def rule(example: Any) -> Prediction:
        text = example.text
        relations = []
        for subject, targets in known.items():
            first = _place(text, subject)
            for target, predicates in targets.items() if first is not None else ():
                second = _place(text, target)
                for predicate, *labels in sorted(predicates, key=str) if second is not None else ():
                    subject_end, object_end = (
                        {"start": start, "end": start + len(surface), "label": label}
                        for start, surface, label in zip(
                            (first, second), (subject, target), labels, strict=True
                        )
                    )
                    relations.append({"subject": subject_end, "predicate": predicate, "object": object_end})
        return {"relations": relations}

    return rule


def sentence_like_the_question(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    """The sentence of the context that has most of the question's characters, whole."""

    def rule(example: Any) -> Prediction:
        asked = Counter(example.question)
        sentences = [example.context[start:end] for start, end in split_sentences(example.context)]
        shared = [(Counter(sentence) & asked).total() for sentence in sentences]
        return {"answer": sentences[shared.index(max(shared))].strip() if sentences else ""}

    return rule


def words_of_a_dictionary(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    """The longest known words with their most frequent part of speech; each hangs on its neighbour.

    On the next or on the one before, whichever is more often right in training, by the most frequent relation that
    words of this part of speech have.
    """
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    relations: dict[str, Counter[str]] = defaultdict(Counter)
    roots: Counter[str] = Counter()
    directions: Counter[int] = Counter()
    for example in train:
        for sentence in example.by_sentence():
            for number, (_, word) in enumerate(sentence, 1):
                tags[example.text[word.start : word.end]][word.upos or "_"] += 1
                (relations[word.upos or "_"] if word.head else roots)[word.relation or "_"] += 1
                directions[0 if not word.head else word.head - number] += 1
    step = 1 if directions[1] >= directions[-1] else -1
    tag_of = {word: counts.most_common(1)[0][0] for word, counts in tags.items()}
    usual = sum(tags.values(), Counter[str]()).most_common(1)[0][0]
    relation_of = {tag: counts.most_common(1)[0][0] for tag, counts in relations.items()}
    longest = max(map(len, tag_of))

    def rule(example: Any) -> Prediction:
        places = _words(example.text, tag_of, longest)
        words = []
        for number, (start, end) in enumerate(places, 1):
            upos = tag_of.get(example.text[start:end], usual)
            head = number + step
            root = not 1 <= head <= len(places)
            words.append(
                {
                    "start": start,
                    "end": end,
                    "upos": upos,
                    "head": 0 if root else head,
                    "relation": roots.most_common(1)[0][0] if root else relation_of[upos],
                }
            )
        sentences = [{"start": places[0][0], "end": places[-1][1]}] if places else []
        return {"text": example.text, "words": words, "sentences": sentences}

    return rule


def names_of_fields(task: Task[Any, Any], train: Sequence[Any]) -> Rule:
    """What fields of training pages say; no links."""
    names = _dictionary((example.text, example.spans) for example in train)
    return lambda example: {
        "entities": _longest_matches(example.text, names),
        "links": [],
        "given_links": [],
    }


def shared_bigrams(task: Task[Any, Any], train: Sequence[Any]) -> Rule | None:
    """Jaccard similarity of the two texts' character bigrams, cut where most training pairs are right."""
    if any(example.text_pair is None for example in train):
        return None

    def rule(example: Any) -> Prediction:
        value = jaccard(example.text, example.text_pair)
        return {"value": value, "similarity": value}

    if task.name == "text_embedding":
        task.settle(train, [rule(example) for example in train])
        return rule
    if task.config.objective == "regression":
        return rule
    if len(task.labels) != 2:
        return None
    values = [(jaccard(example.text, example.text_pair), str(example.label)) for example in train]
    threshold, low, high = _best_cut(values, task.labels)
    return lambda example: {"label": high if jaccard(example.text, example.text_pair) >= threshold else low}


def jaccard(left: str, right: str) -> float:
    one, other = ({"".join(pair) for pair in pairwise(f"^{text}$")} for text in (left, right))
    return len(one & other) / len(one | other)


def _best_cut(values: Sequence[tuple[float, str]], labels: Sequence[str]) -> tuple[float, str, str]:
    """The threshold, the label below it and the label from it on that are right most often."""
    best: tuple[int, float, str, str] | None = None
    for low, high in (labels, labels[::-1]):
        right = sum(label == high for _, label in values)
        candidates = [(right, 0.0)]
        ordered = sorted(values)
        for index, (value, label) in enumerate(ordered):
            right += (label == low) - (label == high)
            following = ordered[index + 1][0] if index + 1 < len(ordered) else 2.0
            if following > value:
                candidates.append((right, following))
        found = max(candidates)
        if best is None or found[0] > best[0]:
            best = (*found, low, high)
    assert best is not None
    return best[1:]


def _dictionary(texts: Iterable[tuple[str, Sequence[Any]]]) -> dict[str, str]:
    """What spans say -> their most frequent label."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for text, spans in texts:
        for span in spans:
            labels[text[span.start : span.end]][span.label] += 1
    return {surface: counts.most_common(1)[0][0] for surface, counts in labels.items()}


def _longest_matches(text: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Known names from left to right, the longest first, not inside Latin words."""
    longest = max(map(len, names))
    borders = _borders(text)
    found = []
    start = 0
    while start < len(text):
        lengths = range(min(longest, len(text) - start), 0, -1) if start in borders else ()
        end = next(
            (
                start + length
                for length in lengths
                if start + length in borders and text[start : start + length] in names
            ),
            None,
        )
        if end is not None:
            found.append({"start": start, "end": end, "label": names[text[start:end]]})
        start = end or start + 1
    return found


def _words(text: str, known: Mapping[str, Any], longest: int) -> list[tuple[int, int]]:
    borders = _borders(text)
    found = []
    start = 0
    while unit := _UNIT.search(text, start):
        start = unit.start()
        ends = range(min(len(text), start + longest), unit.end(), -1)
        end = next((end for end in ends if end in borders and text[start:end] in known), unit.end())
        found.append((start, end))
        start = end
    return found


def _borders(text: str) -> set[int]:
    return {place for unit in _UNIT.finditer(text) for place in unit.span()}


def _place(text: str, surface: str) -> int | None:
    """Where it first stands between borders."""
    start = text.find(surface)
    if start < 0:
        return None
    borders = _borders(text)
    while start >= 0:
        if start in borders and start + len(surface) in borders:
            return start
        start = text.find(surface, start + 1)
    return None


RULES: dict[str, dict[str, Maker]] = {
    "text_classification": {"most frequent label": most_frequent_label},
    "text_matching": {"most frequent label": most_frequent_label, "shared bigrams": shared_bigrams},
    "text_embedding": {"shared bigrams": shared_bigrams},
    "relation_classification": {"most frequent label": most_frequent_label},
    "multiple_choice": {"most frequent choice": most_frequent_choice},
    "document_layout": {"dictionary of fields": names_of_fields},
    "ner": {"dictionary of names": names_of_entities},
    "slot_filling": {"dictionary of values, most frequent intent": names_of_slots},
    "relation_extraction": {"dictionary of pairs": pairs_of_entities},
    "question_answering": {"sentence most like the question": sentence_like_the_question},
    "dependency_parsing": {"dictionary of words, neighbour as head": words_of_a_dictionary},
}
"""Task -> name -> how the rule is made."""
