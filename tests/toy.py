"""Small labelled sets, one a task, that a tiny model can learn by heart: what the tests train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import decoder_folder, masked_lm_folder
from wenmai.config import RunConfig, load_config

PEOPLE = ["王小明", "李建国", "张伟", "陈丽华", "赵六", "孙中山", "周杰", "吴京"]
PLACES = ["北京", "上海", "哈尔滨", "广州", "乌鲁木齐", "杭州", "成都", "西安"]
GOOD = ["很好", "非常满意", "味道不错", "喜欢", "推荐购买", "质量好"]
BAD = ["很差", "非常失望", "难吃", "讨厌", "不要买", "质量坏"]


def ner_records() -> list[dict[str, Any]]:
    records = []
    for i, person in enumerate(PEOPLE):
        for place in PLACES[i % 3 :: 3]:
            text = f"{person}昨天去了{place}开会，" * (1 + i % 3) + "然后回家。"
            entities = []
            for surface, label in ((person, "人名"), (place, "地名")):
                at = text.find(surface)
                while at >= 0:
                    entities.append({"start": at, "end": at + len(surface), "label": label})
                    at = text.find(surface, at + 1)
            records.append({"text": text, "entities": sorted(entities, key=lambda e: e["start"])})
    return records


def nested_records() -> list[dict[str, Any]]:
    records = []
    for place in PLACES:
        for tail in ("人民银行", "师范大学"):
            text = f"他在{place}{tail}工作。"
            inner, outer = 2, 2 + len(place)
            records.append(
                {
                    "text": text,
                    "entities": [
                        {"start": inner, "end": outer, "label": "地名"},
                        {"start": inner, "end": outer + 4, "label": "机构"},
                    ],
                }
            )
    return records


def triple_records() -> list[dict[str, Any]]:
    """Triples that share a subject, an object, or both."""
    records = []
    for i, person in enumerate(PEOPLE):
        other, home, town = PEOPLE[i - 1], PLACES[i], PLACES[i - 3]
        for text, triples in (
            (f"{person}生于{home}，住在{town}。", [(person, "生于", home), (person, "住在", town)]),
            (f"{person}生于{home}，也住在那里。", [(person, "生于", home), (person, "住在", home)]),
            (f"{other}和{person}住在{town}。", [(other, "住在", town), (person, "住在", town)]),
        ):
            relations = [
                {
                    "subject": {"start": text.find(s), "end": text.find(s) + len(s), "label": "人名"},
                    "predicate": predicate,
                    "object": {"start": text.find(o), "end": text.find(o) + len(o), "label": "地名"},
                }
                for s, predicate, o in triples
            ]
            records.append({"text": text, "relations": relations})
    return records


def classification_records() -> list[dict[str, Any]]:
    return [
        {"text": f"{word}，{'这家店' * (1 + i % 4)}我会说{word}。", "label": label}
        for words, label in ((GOOD, "好评"), (BAD, "差评"))
        for i, word in enumerate(words * 3)
    ]


def multi_label_records() -> list[dict[str, Any]]:
    topics = {"体育": "足球比赛", "财经": "股票上涨", "娱乐": "电影明星"}
    names = list(topics)
    sets = [[a] for a in names] + [[names[0], names[1]], [names[1], names[2]], names, []]
    return [
        {"text": f"第{i}条：" + "，".join(topics[t] for t in s) + "。", "labels": s}
        for i in range(4)
        for s in sets
    ]


def matching_records() -> list[dict[str, Any]]:
    pairs = [(f"{p}在哪里", f"哪里能找到{p}") for p in PLACES]
    same = [{"text": a, "text_pair": b, "label": "相同"} for a, b in pairs]
    other = [{"text": a, "text_pair": "今天天气怎么样", "label": "不同"} for a, _ in pairs]
    return same + other


def regression_records() -> list[dict[str, Any]]:
    return [{**r, "label": 5.0 if r["label"] == "相同" else 0.0} for r in matching_records()]


def question_records(*, unanswerable: bool = False) -> list[dict[str, Any]]:
    """Who or where, of contexts that tell one of them, or neither; the longest take two windows of 64 tokens."""
    records: list[dict[str, Any]] = []
    for i, (person, place) in enumerate(zip(PEOPLE, PLACES, strict=True)):
        told = [
            ("谁去开会了？", f"{person}昨天去开会，", person),
            ("在哪里开会？", f"昨天在{place}开会，", place),
        ]
        if unanswerable:
            told.append((told[i % 2][0], "昨天没有人开会，", ""))
        for question, sentence, answer in told:
            context = "今天天气很好。" * (2 * (i % 4)) + sentence + "然后回家。"
            found = [{"text": answer, "start": context.index(answer)}] if answer else []
            records.append({"context": context, "question": question, "answers": found})
    return records


def choice_records(*, blank: bool) -> list[dict[str, Any]]:
    """Which of two or three words is a place; the right one stands first, second and third in turn."""
    records = []
    for i, place in enumerate(PLACES * 3):
        choices = [PEOPLE[(i + k) % 8] for k in range(1 + i % 2)]
        choices.insert(i % (len(choices) + 1), place)
        text = f"他{'昨天' * (1 + i % 3)}去了#空#开会。" if blank else f"第{i}题，哪里是一个地方？"
        records.append({"text": text, "choices": choices, "label": choices.index(place)})
    return records


def embedding_records() -> list[dict[str, Any]]:
    words = [*PEOPLE, *PLACES]
    return [
        {
            "anchor": f"{w}是什么",
            "positive": f"请介绍{w}",
            "negatives": [f"{words[i - 1]}是什么"] if i % 2 else [],
        }
        for i, w in enumerate(words)
    ]


def similar_pair_records() -> list[dict[str, Any]]:
    """Pairs that share nearly all of their text or hardly any: nothing to learn but to keep them apart."""
    asked = [f"{w}昨天去了哪里开会" for w in PEOPLE]
    same = [{"text": text, "text_pair": f"{text}？", "score": 1.0} for text in asked]
    other = [
        {"text": text, "text_pair": f"{PLACES[i]}很好，推荐", "score": 0.0} for i, text in enumerate(asked)
    ]
    return same + other


def scored_pair_records() -> list[dict[str, Any]]:
    return [
        {"text": r["text"], "text_pair": r["text_pair"], "score": 1.0 if r["label"] == "相同" else 0.0}
        for r in matching_records()
    ]


def parsed(*words: tuple[str, str, int, str]) -> dict[str, Any]:
    """A sentence without blanks from form, UPOS, head and relation of its words."""
    text = "".join(form for form, *_ in words)
    found, start = [], 0
    for form, upos, head, relation in words:
        end = start + len(form)
        found.append({"start": start, "end": end, "upos": upos, "head": head, "relation": relation})
        start = end
    return {"text": text, "words": found}


def parsing_records() -> list[dict[str, Any]]:
    records = []
    for i, person in enumerate(PEOPLE):
        name, place = (person, "PROPN"), (PLACES[i], "PROPN")
        other = (PEOPLE[i - 3], "PROPN")
        records += [
            parsed(
                (*name, 3, "nsubj"), ("昨天", "NOUN", 3, "obl:tmod"), ("去", "VERB", 0, "root"),
                ("了", "AUX", 3, "aux"), (*place, 3, "obj"), ("。", "PUNCT", 3, "punct"),
            ),
            parsed(
                (*name, 2, "nsubj"), ("喜欢", "VERB", 0, "root"), (*place, 2, "obj"), ("，", "PUNCT", 6, "punct"),
                (*other, 6, "nsubj"), ("讨厌", "VERB", 2, "parataxis"), ("。", "PUNCT", 2, "punct"),
            ),
            parsed((*place, 2, "nsubj"), ("很好", "ADJ", 0, "root"), ("！", "PUNCT", 2, "punct")),
        ]  # fmt: skip
    return records


def text_records() -> list[dict[str, Any]]:
    return [{"text": r["text"]} for r in ner_records()]


def slot_records() -> list[dict[str, Any]]:
    """Flights and weather; a third of the texts want both."""
    records = []
    for i, here in enumerate(PLACES):
        there = PLACES[(i + 3) % len(PLACES)]
        flight = (f"订{here}到{there}的机票", ["订票"], [(1, here, "出发"), (2 + len(here), there, "到达")])
        weather = (f"{there}天气怎么样", ["天气"], [(0, there, "地点")])
        both = (
            f"{there}天气怎么样，订去{here}的机票",
            ["天气", "订票"],
            [(0, there, "地点"), (len(there) + 8, here, "到达")],
        )
        for text, intents, slots in (flight, weather, both):
            found = [{"start": at, "end": at + len(value), "label": name} for at, value, name in slots]
            records.append({"text": text, "intents": intents, "slots": found})
    return records


def single_intent_records() -> list[dict[str, Any]]:
    return [record for record in slot_records() if len(record["intents"]) == 1]


def relation_records() -> list[dict[str, Any]]:
    """Who lives where and who visits whom; the same text asks from both sides."""
    records = []
    for i, (person, place) in enumerate(zip(PEOPLE, PLACES, strict=True)):
        verb, relation = (("住在", "居住"), ("去过", "访问"))[i % 2]
        text = f"听说{person}{verb}{place}很久了。"
        who = {"start": 2, "end": 2 + len(person)}
        at = who["end"] + len(verb)
        where = {"start": at, "end": at + len(place)}
        time = {"start": at + len(place), "end": len(text) - 2}
        asked = [
            {"text": text, "subject": who, "object": where, "label": f"{relation}(e1,e2)"},
            {"text": text, "subject": where, "object": who, "label": f"{relation}(e2,e1)"},
            {"text": text, "subject": who, "object": time, "label": "其他"},
        ]
        records += asked[i % 3 :] + asked[: i % 3]  # so that every third one has all labels
    return records


def layout_records() -> list[dict[str, Any]]:
    """Forms of two or three lines, keys first and then all values: which value is whose only the boxes tell."""
    records = []
    for i in range(16):
        lines = 2 + i % 2
        words: list[dict[str, Any]] = [{"text": "登记表", "box": [300, 10, 480, 40]}]
        entities: list[dict[str, Any]] = [{"words": [0], "label": "标题"}]
        for column, label in ((60, "问题"), (420.5, "回答")):
            # values stand in the order of their lines or against it
            for line in range(lines) if i % 4 < 2 or label == "问题" else reversed(range(lines)):
                shown = [("姓名", "住址", "籍贯")[line], "："]
                if label == "回答":
                    shown = (
                        [PEOPLE[(i + 3 * line) % 8]] if line == 0 else [PLACES[(i + line + i // 8) % 8], "市"]
                    )
                left, top = column, 120 + 150 * line
                first = len(words)
                for text in shown:
                    right = left + 30 * len(text)
                    words.append({"text": text, "box": [left, top, right, top + 30]})
                    left = right
                for word in words[first:]:
                    word["segment_box"] = [column, top, left, top + 30]
                entities.append({"words": [*range(first, len(words))], "label": label, "line": line})
        at = {(entity["label"], entity.pop("line", None)): n for n, entity in enumerate(entities)}
        links = [{"key": at["问题", line], "value": at["回答", line]} for line in range(lines)]
        size = {"width": 800, "height": 600}
        records.append({"id": f"第{i}页", "words": words, **size, "entities": entities, "links": links})
    return records


TOYS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "cloze": (
        {
            "name": "cloze_classification",
            "templates": ["这是[MASK]评：{text}", "{text}我说[MASK]。"],
            "verbalizer": {"好评": ["好", "喜欢"], "差评": "坏的"},
        },
        classification_records(),
    ),
    "cloze-pairs": (
        {
            "name": "cloze_classification",
            "templates": ["{text}，{text_pair}，[MASK]同"],
            "verbalizer": {"相同": "相", "不同": "不"},
        },
        matching_records(),
    ),
    "contrastive": (
        {"name": "contrastive_classification", "inverse_regularization": 10.0},
        classification_records(),
    ),
    "contrastive-pairs": ({"name": "contrastive_classification"}, matching_records()),
    "ner-crf": ({"name": "ner", "head": "crf"}, ner_records()),
    "ner-softmax": ({"name": "ner", "head": "softmax", "tagging": "BIOES"}, ner_records()),
    "ner-nested": ({"name": "ner", "head": "global_pointer", "nested": True}, nested_records()),
    "relations-gplinker": ({"name": "relation_extraction"}, triple_records()),
    "relations-casrel": (
        {"name": "relation_extraction", "head": "casrel", "typed": True},
        triple_records(),
    ),
    "classification": ({"name": "text_classification"}, classification_records()),
    "classification-multi": ({"name": "text_classification", "multi_label": True}, multi_label_records()),
    "classification-decoder": (
        {"name": "text_classification", "pooling": "last", "auxiliary_lm": 0.5},
        classification_records(),
    ),
    "matching": ({"name": "text_matching"}, matching_records()),
    "matching-regression": ({"name": "text_matching", "objective": "regression"}, regression_records()),
    "slots-crf": ({"name": "slot_filling"}, single_intent_records()),
    "slots-several": (
        {"name": "slot_filling", "intents": "several", "head": "softmax", "intent_conditioned": True},
        slot_records(),
    ),
    "relation": ({"name": "relation_classification", "no_relation": "其他"}, relation_records()),
    "relation-unmarked": (
        {"name": "relation_classification", "markers": False, "representation": "r_bert"},
        relation_records(),
    ),
    "question-answering": ({"name": "question_answering", "window_overlap": 16}, question_records()),
    "question-answering-none": (
        {"name": "question_answering", "window_overlap": 16, "no_answer": True, "empty_windows": "leave_out"},
        question_records(unanswerable=True),
    ),
    "multiple-choice": ({"name": "multiple_choice"}, choice_records(blank=False)),
    "multiple-choice-cloze": ({"name": "multiple_choice", "blank": "#空#"}, choice_records(blank=True)),
    "dependencies": (
        {"name": "dependency_parsing", "arc_size": 32, "relation_size": 32, "dropout": 0.1},
        parsing_records(),
    ),
    "layout": ({"name": "document_layout", "link_size": 16}, layout_records()),
    "layout-links": (
        {"name": "document_layout", "parts": ["links"], "boxes": "segments", "link_size": 16},
        layout_records(),
    ),
    "embedding": ({"name": "text_embedding"}, embedding_records()),
    "embedding-simcse": (
        {"name": "text_embedding", "objective": "simcse", "evaluate_on": "pairs"},
        similar_pair_records(),
    ),
    "embedding-triplet": (
        {"name": "text_embedding", "objective": "triplet", "widths": [32, 16, 8], "width": 16},
        [record for record in embedding_records() if record["negatives"]],
    ),
    "embedding-cosent": ({"name": "text_embedding", "objective": "cosent"}, scored_pair_records()),
    "masked-lm": ({"name": "masked_lm", "mask_share": 0.3}, text_records()),
    "causal-lm": ({"name": "causal_lm", "max_new_tokens": 8}, text_records()),
}
"""Task section and records by name; every task occurs, with each of its heads."""

ALL_TEXTS = [
    text
    for _, records in TOYS.values()
    for record in records
    for value in record.values()
    for item in (value if isinstance(value, list) else [value])
    for text in ([item.get("text")] if isinstance(item, dict) else [item])
    if isinstance(text, str)
]


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def backbone_of(name: str, folder: Path) -> Path:
    """The folder of an encoder, or for what needs a decoder or a masked-LM head one of its size and vocabulary."""
    task = TOYS[name][0]
    if task["name"] == "cloze_classification":
        return masked_lm_folder(folder)
    return decoder_folder(folder) if task["name"] == "causal_lm" or "auxiliary_lm" in task else folder


def toy_config(folder: Path, name: str, backbone: Path, **train: Any) -> RunConfig:
    """The configuration of a run in ``folder`` on a toy set, which serves as train and dev.

    Args:
        name: of the set; ``multi-task``: four of them, one with a loss over all pairs of a step.
        backbone: folder of an encoder; see :func:`backbone_of`.
    """
    if name == "multi-task":
        toys = {**MULTI, "vectors": "embedding"}
        return multi_task_config(folder, backbone, toys, mixing={"batches_per_step": 3}, **train)
    folder.mkdir(parents=True, exist_ok=True)
    task, records = TOYS[name]
    data = str(write_jsonl(folder / "data.jsonl", records))
    tree = {
        "task": {"max_length": 64, **task},
        "backbone": {"model": str(backbone_of(name, backbone))},
        "data": {"train": data, "dev": data},
        "train": {"learning_rate": 3e-3, "examples_per_step": 8, "warmup_steps": 0.1, **train},
        "device": "cpu",
        "trackers": [],
        "output": str(folder / "run"),
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return load_config(path)


MULTI = {"entities": "ner-crf", "opinions": "classification", "pairs": "matching"}
"""The toy sets of a run of several tasks: two that predict for a text, one for a pair."""


def multi_task_config(
    folder: Path,
    backbone: Path,
    toys: dict[str, str] | None = None,
    *,
    mixing: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
    records: dict[str, list[dict[str, Any]]] | None = None,
    **train: Any,
) -> RunConfig:
    """The configuration of a run of several toy sets, each train and dev of its task.

    Args:
        toys: name of a task -> toy set; default: :data:`MULTI`.
        records: of a task, instead of its toy set's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {}
    for name, toy in (toys or MULTI).items():
        task, own = TOYS[toy]
        data = str(write_jsonl(folder / f"{name}.jsonl", (records or {}).get(name, own)))
        tasks[name] = {"task": {"max_length": 64, **task}, "data": {"train": data, "dev": data}}
        if weights:
            tasks[name]["weight"] = weights[name]
    tree = {
        "tasks": tasks,
        "backbone": {"model": str(backbone)},
        "train": {"learning_rate": 3e-3, "examples_per_step": 8, "warmup_steps": 0.1, **train},
        "device": "cpu",
        "trackers": [],
        "output": str(folder / "run"),
        **({"mixing": mixing} if mixing else {}),
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return load_config(path)
