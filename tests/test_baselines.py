"""Rules without a model, which the benchmarks show beside trained ones, do what their names say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from wenmai.tasks import TASKS
from wenmai.tasks.task import Task

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import baselines  # type: ignore[import-not-found, unused-ignore]

    return baselines


def made(name: str, records: list[dict[str, Any]], **config: Any) -> tuple[Task[Any, Any], list[Any]]:
    kind = TASKS[name]
    examples = [kind.Example(**record) for record in records]
    settings = kind.Config(name=name, **config)
    return kind(settings, kind.collect_labels(settings, examples)), examples


def test_names_are_found_longest_first_and_never_inside_latin_words(rules: Any) -> None:
    def entity(start: int, end: int, label: str) -> dict[str, Any]:
        return {"start": start, "end": end, "label": label}

    task, train = made(
        "ner",
        [
            {"text": "北京大学在北京", "entities": [entity(0, 4, "ORG"), entity(5, 7, "LOC")]},
            {"text": "北京队", "entities": [entity(0, 2, "ORG")]},
            {"text": "去北京用QQ", "entities": [entity(1, 3, "LOC"), entity(4, 6, "APP")]},
        ],
    )
    test = task.Example(
        text="QQ在北京大学和北京，QQ2不是",
        entities=[entity(0, 2, "APP"), entity(3, 7, "ORG"), entity(8, 10, "LOC")],
    )
    (found,) = rules.baselines(task, train, [test]).values()
    assert found["f1"] == 1


def test_triples_need_both_ends_in_the_text(rules: Any) -> None:
    def relation(subject: tuple[int, int], predicate: str, target: tuple[int, int]) -> dict[str, Any]:
        ends = [{"start": start, "end": end} for start, end in (subject, target)]
        return {"subject": ends[0], "predicate": predicate, "object": ends[1]}

    task, train = made(
        "relation_extraction",
        [
            {"text": "张三生于北京", "relations": [relation((0, 2), "生于", (4, 6))]},
            {"text": "张三生于上海", "relations": [relation((0, 2), "卒于", (4, 6))]},
        ],
    )
    test = task.Example(text="在北京的张三", relations=[relation((4, 6), "生于", (1, 3))])
    (found,) = rules.baselines(task, train, [test]).values()
    assert (found["f1"], found["precision"]) == (1, 1)


def test_trees_of_the_rule_are_trees_and_known_words_are_found(rules: Any) -> None:
    def words(*parts: tuple[int, int, str, int, str]) -> list[dict[str, Any]]:
        return [dict(zip(("start", "end", "upos", "head", "relation"), part, strict=True)) for part in parts]

    chain = words((0, 2, "NOUN", 2, "nsubj"), (2, 4, "VERB", 3, "dep"), (4, 6, "NOUN", 0, "root"))
    task, train = made("dependency_parsing", [{"text": "我们喜欢音乐", "words": chain}])
    other = words((0, 2, "NOUN", 2, "nsubj"), (2, 4, "VERB", 3, "dep"), (4, 6, "NOUN", 0, "root"))
    test = [task.Example(text="音乐喜欢我们", words=other), task.Example(text="他喜欢", words=[])]
    (found,) = rules.baselines(task, train, test[:1]).values()
    assert found["word_f1"] == found["uas"] == found["upos_f1"] == 1
    assert "las" in rules.baselines(task, train, test).popitem()[1]


def test_the_sentence_that_shares_most_with_the_question_is_the_answer(rules: Any) -> None:
    context = "北京是首都。上海是一座港口城市。"
    answer = {"text": "上海是一座港口城市。", "start": 6}
    record = {"context": context, "question": "哪里是港口城市？", "answers": [answer]}
    task, train = made("question_answering", [record])
    (found,) = rules.baselines(task, train, train).values()
    assert found["exact_match"] == 1


def test_the_best_cut_is_that_of_trying_every_one(rules: Any) -> None:
    rng = random.Random(3)
    for _ in range(200):
        values = [(rng.randrange(5) / 4, rng.choice("ab")) for _ in range(rng.randrange(1, 9))]
        threshold, low, high = rules._best_cut(values, ["a", "b"])

        def right(cut: float, below: str, above: str, values: Any = values) -> int:
            return sum(label == (above if value >= cut else below) for value, label in values)

        tried = [right(cut / 8, *order) for cut in range(18) for order in (("a", "b"), ("b", "a"))]
        assert right(threshold, low, high) == max(tried)


def test_majority_leaves_no_relation_out_and_similarity_is_ranked(rules: Any) -> None:
    def pair(label: str) -> dict[str, Any]:
        ends = {"subject": {"start": 0, "end": 1}, "object": {"start": 1, "end": 2}}
        return {"text": "甲乙", **ends, "label": label}

    task, train = made(
        "relation_classification",
        [pair(label) for label in ("unknown", "unknown", "父子", "同学", "父子")],
        no_relation="unknown",
    )
    assert rules.RULES[task.name]["most frequent label"](task, train)(train[0]) == {"label": "父子"}
    texts = ("今天很好", "今天很坏", "明天下雨了")
    records = [{"text": texts[0], "text_pair": text, "label": str(2 - i)} for i, text in enumerate(texts)]
    task, train = made("text_matching", records, objective="regression")
    found = rules.baselines(task, train, train)
    assert list(found) == ["shared bigrams"] and found["shared bigrams"]["spearman"] > 0.8
