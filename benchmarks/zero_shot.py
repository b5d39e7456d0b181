"""What wenmai-tiny-zh reaches without any training on FewCLUE's sentiment, news and idioms, beside the majority.

    OMP_NUM_THREADS=1 python benchmarks/zero_shot.py --json benchmarks/results/zero-shot.json
    python benchmarks/zero_shot.py --quick

Nothing is chosen by the test set: every prompt that was scored on it is in the table. Words for the labels of TNEWS
are those of FewCLUE's own label file. Each prompt is scored as it is, relative to the prompt without a text, and
relative to the mean over 200 unlabelled texts of the same task, which are not those of the test set. Of ChID's idioms
the one is chosen that the model finds likeliest in the text's own blank.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from wenmai.atomic import write_text
from wenmai.config import load_config
from wenmai.data.examples import read_examples
from wenmai.inference.cloze import SLOT, Cloze, cloze_log_probabilities
from wenmai.inference.zero_shot import ZeroShotClassifier
from wenmai.metrics.classification import classification_scores
from wenmai.metrics.scores import Scores
from wenmai.tasks.multiple_choice import MultipleChoice, MultipleChoiceConfig, MultipleChoiceExample
from wenmai.tasks.task import Example
from wenmai.tasks.text_classification import TextClassificationExample

E = TypeVar("E", bound=Example)

CHECKOUT = Path(__file__).resolve().parent.parent
UNLABELLED, UNLABELLED_TEXTS = "unlabeled.first5000.json", 200
NEWS = ["这句话是关于[MASK]的：{}", "这是一条[MASK]新闻：{}", "【[MASK]】{}"]
REVIEWS = [
    ("这次买的东西很[MASK]。{}", {"Positive": "好", "Negative": "差"}),
    ("[MASK]满意。{}", {"Positive": "很", "Negative": "不"}),
    ("我很[MASK]。{}", {"Positive": "满意", "Negative": "失望"}),
]
AROUND_BLANK = 60
"""How many characters on either side of an idiom's blank the model sees."""
WAYS = ("as they are", "without a text", "over unlabelled texts")


def examples(recipe: str, file: str | None = None, kind: type[E] = TextClassificationExample) -> list[E]:
    """Those of the recipe's test set, or of another file beside it."""
    source = load_config(CHECKOUT / "recipes" / "corpora" / f"{recipe}.yaml").data.source("test")
    assert source is not None
    root = CHECKOUT / Path(source.path).parent
    path = str(root / (file or Path(source.path).name))
    return list(read_examples(source.model_copy(update={"path": path}), kind))


def news_words() -> dict[str, str]:
    path = CHECKOUT.parent / "shared" / "data" / "fewclue" / "tnews" / "label_index2en2zh.json"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["label_desc"]: line["label_zh"] for line in lines}


def measured(
    model: Cloze, recipe: str, prompt: str, words: dict[str, str], most: int
) -> list[dict[str, Any]]:
    """A row for each way to calibrate."""
    test = examples(recipe)
    test = test[:: max(1, len(test) // most)]
    gold = [str(example.label) for example in test]
    labels, spoken = list(words), list(words.values())
    started = time.process_time()
    log_NL = cloze_log_probabilities(model, [example.text for example in test], spoken, prompt)
    seconds = time.process_time() - started
    unlabelled = [example.text for example in examples(recipe, UNLABELLED)[:UNLABELLED_TEXTS]]
    prior_L = cloze_log_probabilities(model, [""], spoken, prompt)[0]
    mean_L = cloze_log_probabilities(model, unlabelled, spoken, prompt).mean(axis=0)
    common = {"recipe": recipe, "prompt": prompt, "words": spoken, "processor_seconds": round(seconds, 1)}
    majority = Counter(gold).most_common(1)[0][1] / len(gold)
    rows = []
    for way, relative_L in zip(WAYS, (np.zeros(len(labels)), prior_L, mean_L), strict=True):
        predicted = [labels[i] for i in (log_NL - relative_L).argmax(axis=1)]
        rows.append(row_of(common, way, classification_scores(gold, predicted, labels), majority))
    return rows


def filled(model: Cloze, recipe: str, most: int) -> list[dict[str, Any]]:
    """A row for the choices' likelihoods in the blank, and one for those relative to a blank without a text."""
    test = examples(recipe, kind=MultipleChoiceExample)
    test = test[:: max(1, len(test) // most)]
    config = load_config(CHECKOUT / "recipes" / "corpora" / f"{recipe}.yaml").task
    assert isinstance(config, MultipleChoiceConfig) and config.blank is not None
    task, blank = MultipleChoice(config, []), config.blank
    chosen: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS[:2]}
    started = time.process_time()
    for example in test:
        before, _, behind = example.text.replace(SLOT, "").partition(blank)
        prompt = before[-AROUND_BLANK:] + "[MASK]" + SLOT
        behind = behind.replace(blank, "")[:AROUND_BLANK]
        log_C = cloze_log_probabilities(model, [behind], example.choices, prompt)[0]
        prior_C = cloze_log_probabilities(model, [""], example.choices, "[MASK]" + SLOT)[0]
        for way, found_C in zip(chosen, (log_C, log_C - prior_C), strict=True):
            chosen[way].append({"label": int(found_C.argmax())})
    seconds = time.process_time() - started
    common = {"recipe": recipe, "prompt": blank, "words": [], "processor_seconds": round(seconds, 1)}
    majority = Counter(example.label for example in test).most_common(1)[0][1] / len(test)
    return [row_of(common, way, task.score(test, predicted), majority) for way, predicted in chosen.items()]


def row_of(common: dict[str, Any], way: str, scores: Scores, majority: float) -> dict[str, Any]:
    values = scores.values()
    return {
        **common,
        "calibrated": way,
        "accuracy": values["accuracy"],
        "interval": list(scores.intervals(resamples=1000, seed=0)["accuracy"]),
        "macro_f1": values.get("macro_f1"),
        "majority": majority,
        "test_examples": scores.examples,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| recipe | prompt | scores | accuracy | 95 % interval | macro F1 | majority | test examples |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        words = f" ({', '.join(row['words'])})" if len(row["words"]) == 2 else ""
        f1 = "" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}"
        low, high = row["interval"]
        lines.append(
            f"| {row['recipe']} | `{row['prompt']}`{words} | {row['calibrated']} | {row['accuracy']:.3f} "
            f"| {low:.3f} to {high:.3f} | {f1} | {row['majority']:.3f} | {row['test_examples']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="wenmai-tiny-zh")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--quick", action="store_true", help="a prompt a task and few texts: under a minute")
    options = parser.parse_args()
    model = ZeroShotClassifier(options.model, device="cpu").model
    assert isinstance(model, Cloze)
    asked = [("eprstmt", prompt, words) for prompt, words in REVIEWS]
    asked += [("tnews", prompt, news_words()) for prompt in NEWS]
    most = 10**9
    if options.quick:
        asked, most = [asked[0], asked[3]], 40
    page: dict[str, Any] = {
        "benchmark": "zero_shot",
        "date": time.strftime("%Y-%m-%d"),
        "model": options.model,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers")},
        "rows": [],
    }
    for recipe, prompt, words in asked:
        page["rows"] += measured(model, recipe, prompt, words, most)
        if options.json:
            write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    page["rows"] += filled(model, "chid", most)
    if options.json:
        write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    print(table(page["rows"]))


if __name__ == "__main__":
    main()
