"""Token classification as the example of transformers does it, on the records of wenmai.

Every character is a word (``is_split_into_words``), every word's first piece carries its BIO tag and the others none,
what is beyond the longest row is cut off, and tags become entities as seqeval reads them in its default mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    set_seed,
)

from peers.contest import Contest
from peers.measure import IGNORE
from peers.trainer_loop import Feature, in_batches, trained
from wenmai.tasks.task import Prediction


def run(contest: Contest) -> dict[str, Any]:
    set_seed(contest.seed)
    tokenizer = AutoTokenizer.from_pretrained(contest.encoder)
    tags = ["O", *(f"{prefix}-{label}" for label in contest.task.labels for prefix in "BI")]
    ids = {tag: i for i, tag in enumerate(tags)}
    model = AutoModelForTokenClassification.from_pretrained(contest.encoder, num_labels=len(tags))
    collator, padded = DataCollatorForTokenClassification(tokenizer), DataCollatorWithPadding(tokenizer)
    longest = contest.task.config.max_length

    def tokenized(text: str) -> Any:
        return tokenizer(list(text), is_split_into_words=True, truncation=True, max_length=longest)

    def feature(example: Any) -> Feature:
        found = tokenized(example.text)
        gold = [ids[tag] for tag in character_tags(example)]
        words = found.word_ids()
        first = [
            word is not None and word != before for before, word in zip([None, *words], words, strict=False)
        ]
        labels = [gold[word] if new else IGNORE for word, new in zip(words, first, strict=True)]
        return {**found, "labels": labels}

    def predict(examples: Sequence[Any]) -> list[Prediction]:
        encoded = [tokenized(example.text) for example in examples]
        outputs = in_batches(model, [dict(one) for one in encoded], padded)
        predictions = []
        for example, one, output in zip(examples, encoded, outputs, strict=True):
            best = output["logits"].argmax(-1).tolist()
            by_character = ["O"] * len(example.text)
            for place, word in reversed(list(enumerate(one.word_ids()))):
                if word is not None:
                    by_character[word] = tags[best[place]]
            predictions.append({"entities": entities(by_character)})
        return predictions

    return trained(contest, model, [feature(example) for example in contest.train], collator, predict)


def character_tags(example: Any) -> list[str]:
    tags = ["O"] * len(example.text)
    for span in example.spans:
        tags[span.start] = f"B-{span.label}"
        tags[span.start + 1 : span.end] = [f"I-{span.label}"] * (span.end - span.start - 1)
    return tags


def entities(tags: Sequence[str]) -> list[dict[str, Any]]:
    """An entity begins with ``B-``, or with an ``I-`` that does not go on with the one before."""
    found: list[dict[str, Any]] = []
    for place, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        goes_on = bool(found) and found[-1]["end"] == place and found[-1]["label"] == label
        if prefix == "I" and goes_on:
            found[-1]["end"] = place + 1
        elif prefix != "O":
            found.append({"start": place, "end": place + 1, "label": label})
    return found
