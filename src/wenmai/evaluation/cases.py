"""Lines of ``predictions.jsonl`` as cases to look at: what was right, what was wrong and in which way."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wenmai.errors import UserError
from wenmai.evaluation.slices import slice_names, slice_of
from wenmai.evaluation.structure_cases import (
    WordInTree,
    tree_kinds,
    triple_kinds,
    words_in_trees,
    written_triples,
)
from wenmai.metrics.answers import answer_score, scorer_for
from wenmai.metrics.spans import span_errors
from wenmai.text.spans import Span

MOST_CASES = 2000
MOST_CHARACTERS = 4_000_000
"""Together, so that the page stays quick to open."""
MOST_SCORES = 5
NO_ANSWER, NO_TRIPLES = "(no answer)", "(no triples)"

Case = dict[str, Any]
Line = Mapping[str, Any]
DECIDED = frozenset({"id", "label", "labels", "answer", "choice"})
"""Texts in a prediction that are no text of the user's."""


def read_predictions(path: Path) -> Iterator[Line]:
    """The predictions of a file, one at a time.

    Raises:
        UserError: a line is no JSON object.
    """
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise UserError(
                    f"{path}:{number}: is no prediction ({error}): run wenmai evaluate again"
                ) from error
            yield line


def choose(
    lines: Iterable[Line], edges: Sequence[int], *, most: int = MOST_CASES, characters: int = MOST_CHARACTERS
) -> dict[str, Any]:
    """The cases for a page: errors before right ones, each in the order of the file.

    Args:
        edges: of the slices by text length.
        most: cases to keep.
        characters: of all kept texts together.

    Returns:
        ``cases``, how many lines there are (``total``) and hold an error (``errors``), ``slices`` by name.
    """
    names = slice_names(edges)
    wrong: list[Case] = []
    others: list[Case] = []
    total = errors = 0
    for number, line in enumerate(lines, start=1):
        case = as_case(line, number)
        case["slice"] = names[slice_of(case["length"], edges)]
        total += 1
        errors += case["right"] is False
        kept = wrong if case["right"] is False else others
        if len(kept) < most:
            kept.append(case)
    kept = []
    for case in (*wrong, *others):
        characters -= case["length"]
        if len(kept) == most or (kept and characters < 0):
            break
        kept.append(case)
    return {"cases": kept, "total": total, "errors": errors, "slices": names}


def as_case(line: Line, number: int) -> Case:
    """One line in the form that the page draws.

    Args:
        number: of the line, from 1.
    """
    texts = [[name, value] for name, value in line.items() if isinstance(value, str) and name not in DECIDED]
    return {
        "line": number,
        "id": line.get("id"),
        "texts": texts,
        "length": sum(len(text) for _, text in texts),
        "seen": line.get("seen"),
        "spans": [],
        "gold": None,
        "predicted": None,
        "scores": [],
        "right": None,
        "kinds": [],
        "labels": [],
        **_judged(line),
    }


def _judged(line: Line) -> Case:
    gold = line.get("gold") or {}
    if "links" in line:
        return _fields_and_links(line, gold)
    if "entities" in line:
        return _spans(line["entities"], gold.get("entities"))
    if "slots" in line:
        return _intents_and_slots(line, gold)
    if "choice" in line:
        return _choice(line, gold.get("label"))
    if "words" in line and "sentences" in line:
        return _trees(line, gold)
    if "relations" in line:
        return _triples(line, gold.get("relations"))
    if "label" in line:
        wanted = gold.get("label", (gold.get("labels") or [None])[0])
        classes = _classes([line["label"]], None if wanted is None else [str(wanted)])
        return {**classes, "scores": _best(line), "spans": _asked(line)}
    if "labels" in line:
        wanted = gold.get("labels", [gold["label"]] if "label" in gold else None)
        return {**_classes(line["labels"], wanted), "scores": _best(line)}
    if "answer" in line:
        return _answer(line, gold.get("answers"))
    return _numbers(line, gold)


def _asked(line: Line) -> list[dict[str, Any]]:
    """What a relation was asked of."""
    return [
        {
            "start": end["start"],
            "end": end["end"],
            "label": role,
            "status": "asked",
            "kind": "asked",
            "score": None,
        }
        for role in ("subject", "object")
        if isinstance(end := line.get(role), Mapping)
    ]


def _choice(line: Line, wanted: int | None) -> Case:
    ranked = sorted(zip(line["choices"], line["scores"], strict=True), key=lambda item: -item[1])
    shown: Case = {"predicted": line["choice"], "labels": [], "scores": ranked[:MOST_SCORES]}
    if wanted is None:
        return shown
    right = wanted == line["label"]
    return {**shown, "gold": line["choices"][wanted], "right": right, "kinds": [] if right else ["wrong"]}


def _answer(line: Line, wanted: Sequence[Mapping[str, Any]] | None) -> Case:
    """An answer and the gold ones, each shown in the context where it is known to stand."""
    shown: Case = {"predicted": line["answer"] or NO_ANSWER, "labels": []}
    if wanted is None:
        return {**shown, "spans": _marked(line, "correct", line["score"])}
    gold = list(dict.fromkeys(answer["text"] for answer in wanted))
    exact, overlap = answer_score(gold, line["answer"], scorer_for([line["question"]]))
    kind = (
        "correct"
        if exact
        else "missed"
        if not line["answer"]
        else "spurious"
        if not gold
        else "partly right"
        if overlap
        else "elsewhere"
    )
    spans = _marked(line, "correct" if exact else "spurious", line["score"])
    if not exact:
        places = {(a["start"], a["start"] + len(a["text"])) for a in wanted if a.get("start") is not None}
        for start, end in sorted(places):
            spans += _marked({"start": start, "end": end}, "missed", None)
    return {
        **shown,
        "gold": "、".join(gold) or NO_ANSWER,
        "spans": sorted(spans, key=lambda span: (span["start"], span["end"])),
        "right": bool(exact),
        "kinds": [] if exact else [kind],
    }


def _marked(place: Mapping[str, Any], status: str, score: float | None) -> list[dict[str, Any]]:
    if place["start"] is None:
        return []
    known = {"start": place["start"], "end": place["end"], "label": "answer"}
    return [{**known, "status": status, "kind": status, "score": score}]


def _spans(entities: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]] | None) -> Case:
    predicted = {Span(e["start"], e["end"], e["label"]): e.get("score") for e in entities}
    if wanted is None:
        gold, errors = set(predicted), []
    else:
        gold = {Span(e["start"], e["end"], e["label"]) for e in wanted}
        errors = span_errors(gold, set(predicted))
    kinds = {("missed", error.gold): error.kind for error in errors if error.gold}
    kinds |= {("spurious", error.predicted): error.kind for error in errors if error.predicted}
    spans = []
    for span in sorted(gold | set(predicted)):
        status = "correct" if span in gold and span in predicted else "missed" if span in gold else "spurious"
        kind = _words(kinds.get((status, span), "correct"))
        score = predicted.get(span)
        spans.append({**span._asdict(), "status": status, "kind": kind, "score": score})
    return {
        "spans": spans,
        "right": None if wanted is None else not errors,
        "kinds": sorted({_words(error.kind) for error in errors}),
        "labels": sorted({span.label for span in gold | set(predicted)}),
    }


def _intents_and_slots(line: Line, gold: Mapping[str, Any]) -> Case:
    """Right only if both are; ``predicted_right`` is of what is shown as predicted, the intents."""
    spans = _spans(line["slots"], gold.get("slots"))
    intents = {**_classes(line["intents"], gold.get("intents")), "scores": _best(line)}
    if gold:
        intents["predicted_right"] = intents["right"]
        intents["right"] = spans["right"] and intents["right"]
    kinds, labels = (sorted({*spans[key], *intents.get(key, ())}) for key in ("kinds", "labels"))
    return {**spans, **intents, "kinds": kinds, "labels": labels}


def _fields_and_links(line: Line, gold: Mapping[str, Any]) -> Case:
    """Right only if both are; ``predicted_right`` is of what is shown as predicted, the links."""
    case = _spans(line["entities"], gold.get("entities"))
    found = _linked(line["links"], line["entities"])
    case |= {"predicted": _link_texts(found, line["text"]), "predicted_right": None}
    if gold.get("links") is None:
        return case
    wanted = _linked(gold["links"], gold["entities"])
    wrong = {"missed link": wanted - found, "spurious link": found - wanted}
    kinds = [kind for kind, links in wrong.items() if links]
    return {
        **case,
        "gold": _link_texts(wanted, line["text"]),
        "right": case["right"] and not kinds,
        "predicted_right": not kinds,
        "kinds": sorted([*case["kinds"], *kinds]),
    }


def _linked(
    links: Sequence[Mapping[str, int]], entities: Sequence[Mapping[str, Any]]
) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """The characters of key and value of each link."""
    places = [(entity["start"], entity["end"]) for entity in entities]
    return {(places[link["key"]], places[link["value"]]) for link in links}


def _link_texts(links: set[tuple[tuple[int, int], tuple[int, int]]], text: str) -> str:
    shown = [f"({text[slice(*key)]} → {text[slice(*value)]})" for key, value in sorted(links)]
    return "、".join(shown) or "(no link)"


def _trees(line: Line, gold: Mapping[str, Any]) -> Case:
    """Words as spans, whose label is all that is said of them; filtered by parts of speech and relations."""
    predicted = words_in_trees(line["words"], line["sentences"])
    wanted = words_in_trees(gold["words"], gold.get("sentences")) if "words" in gold else None

    def spans(words: Sequence[WordInTree]) -> list[dict[str, Any]]:
        return [{"start": w.start, "end": w.end, "label": w.described(line["text"])} for w in words]

    case = _spans(spans(predicted), None if wanted is None else spans(wanted))
    said = {name for word in (*predicted, *(wanted or ())) for name in (word.upos, word.relation) if name}
    kinds = {kind for kind in case["kinds"] if kind != "wrong label"} | tree_kinds(predicted, wanted or ())
    return {**case, "kinds": sorted(kinds), "labels": sorted(said)}


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _classes(predicted: Sequence[str], gold: Sequence[str] | None) -> Case:
    shown: Case = {"predicted": _joined(predicted), "labels": sorted({*predicted, *(gold or ())})}
    if gold is None:
        return shown
    right = set(predicted) == set(gold)
    if len(gold) == len(predicted) == 1:
        kinds = [] if right else [f"{gold[0]} → {predicted[0]}"]
    else:
        kinds = [
            name
            for name, left in (
                ("missed", set(gold) - set(predicted)),
                ("spurious", set(predicted) - set(gold)),
            )
            if left
        ]
    return {**shown, "gold": _joined(gold), "right": right, "kinds": kinds}


def _triples(line: Line, wanted: Sequence[Mapping[str, Any]] | None) -> Case:
    found = written_triples(line["relations"], line["text"])
    gold = written_triples(wanted or (), line["text"])
    shown: Case = {
        "predicted": "、".join(map(str, found)) or NO_TRIPLES,
        "labels": sorted({triple.predicate for triple in (*found, *gold)}),
    }
    if wanted is None:
        return shown
    right = {*found} == {*gold}
    return {
        **shown,
        "gold": "、".join(map(str, gold)) or NO_TRIPLES,
        "right": right,
        "kinds": sorted(triple_kinds(found, gold)),
    }


def _joined(labels: Sequence[str]) -> str:
    return "、".join(labels) if labels else "(no label)"


def _best(line: Line) -> list[tuple[str, float]]:
    scores = line.get("scores") or {}
    return sorted(scores.items(), key=lambda item: -item[1])[:MOST_SCORES]


def _numbers(line: Line, gold: Mapping[str, Any]) -> Case:
    """Tasks that predict numbers: there is no right and wrong, only near and far."""
    found = {
        name: line[name]
        for name in line
        if isinstance(line[name], int | float) and name not in ("id", "seen")
    }
    wanted = {
        name: float(value)
        for name, value in gold.items()
        if _is_number(value) and not isinstance(line.get(name), str)  # a text of the user's, such as 100
    }
    return {
        "predicted": _listed(found) if found else None,
        "gold": _listed(wanted) if wanted else None,
    }


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items())
