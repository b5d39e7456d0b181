"""Two runs on one test set: numbers against the paired test done by hand, refusals, and what is shown."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from handmade import LABELS, classification_pairs, entity, ner_pairs, write_run
from rich.console import Console

from wenmai.cli import main
from wenmai.cli.run_tables import comparison
from wenmai.errors import UserError
from wenmai.evaluation.compare import compare
from wenmai.metrics.repetitions import holm, welch_p_value
from wenmai.metrics.scores import paired_difference
from wenmai.tasks.ner import Ner, NerConfig, NerExample
from wenmai.tasks.text_classification import (
    TextClassification,
    TextClassificationConfig,
    TextClassificationExample,
)

CONFIG = "task: {name: text_classification}\noutput: runs/x\n"
NAMES = ["好评", "差评"]


def classified(folder: Path, right: Sequence[bool], *, ids: bool = True) -> Path:
    """A run on texts of 1 to N characters whose gold labels alternate."""
    task = TextClassification(TextClassificationConfig(), NAMES)
    examples, predictions = [], []
    for i, correct in enumerate(right):
        text, gold = "字" * (i + 1), NAMES[i % 2]
        own = {"id": f"例{i}"} if ids else {}
        examples.append(TextClassificationExample.model_validate({**own, "text": text, "label": gold}))
        label = gold if correct else NAMES[1 - i % 2]
        predictions.append({**own, "text": text, "label": label, "score": 0.9, "scores": {label: 0.9}})
    write_run(folder, task, examples, predictions)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def accuracies(folder: Path, count: int, share: float, seed: int, **options: Any) -> Path:
    rng = random.Random(seed)
    return classified(folder, [rng.random() < share for _ in range(count)], **options)


def with_seeds(folder: Path, runs: Sequence[Path]) -> Path:
    folder.mkdir(exist_ok=True)
    found = [{"seed": i, "run": run.name, "metrics": {}} for i, run in enumerate(runs)]
    (folder / "seeds.json").write_text(json.dumps({"runs": found}))
    return folder


def test_overall_numbers_are_those_of_the_paired_test(tmp_path: Path) -> None:
    worse, better = accuracies(tmp_path / "a", 60, 0.6, 1), accuracies(tmp_path / "b", 60, 0.9, 2)
    report = compare(worse, better, resamples=1500)
    assert report["primary_metric"] == "accuracy" and next(iter(report["metrics"])) == "accuracy"
    assert report["examples"] == 60

    def scores(share: float, seed: int) -> Any:
        rng = random.Random(seed)
        gold = [NAMES[i % 2] for i in range(60)]
        found = [name if rng.random() < share else NAMES[1 - i % 2] for i, name in enumerate(gold)]
        task = TextClassification(TextClassificationConfig(), NAMES)
        examples = [TextClassificationExample(text="字", label=name) for name in gold]
        return task.score(examples, [{"label": name} for name in found])

    old, new = scores(0.6, 1), scores(0.9, 2)
    for name in ("accuracy", "macro_f1"):
        expected = paired_difference(new, old, name, resamples=1500)
        row = report["metrics"][name]
        assert row["difference"] == pytest.approx(expected.difference) and row["difference"] > 0
        assert row["interval"] == pytest.approx([expected.low, expected.high])
        assert row["p_value"] == expected.p_value
        assert row["second"] - row["first"] == pytest.approx(row["difference"])
    turned = compare(better, worse, resamples=1500)["metrics"]["accuracy"]
    assert turned["difference"] == -report["metrics"]["accuracy"]["difference"]


def test_slices_and_their_correction(tmp_path: Path) -> None:
    # texts below 50 characters: equal; from 50 on only the second is right
    first = classified(tmp_path / "a", [True] * 49 + [False] * 51)
    second = classified(tmp_path / "b", [True] * 100)
    report = compare(first, second)
    assert set(report["slices"]) == {"length", "label"}
    length = report["slices"]["length"]
    assert list(length) == ["0-50", "50-100", "100-150"]
    assert [length[name]["examples"] for name in length] == [49, 50, 1]
    assert (length["0-50"]["first"], length["0-50"]["second"], length["0-50"]["p_value"]) == (1, 1, 1)
    assert (length["50-100"]["first"], length["50-100"]["second"]) == (0, 1)
    assert length["50-100"]["p_value"] == pytest.approx(2 / 1001)  # five slices need 1,000 resamples
    label = report["slices"]["label"]
    assert [label[name]["support"] for name in NAMES] == [50, 50]
    assert label["好评"]["first"] == pytest.approx(2 * 25 / (51 + 50))  # 26 of 差评 were taken for it
    rows = [row for kind in report["slices"].values() for row in kind.values()]
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows])
    assert length["50-100"]["p_holm"] == pytest.approx(5 * 2 / 1001)


def test_many_slices_take_more_resamples(tmp_path: Path) -> None:
    """With 1,000 resamples and 30 slices no p-value could fall below 30 x 2 / 1001 = 0.06."""
    labels = [f"类{i}" for i in range(30)]
    task = TextClassification(TextClassificationConfig(), labels)
    examples = [TextClassificationExample(text="字", label=labels[i % 30]) for i in range(900)]
    right = [{"text": "字", "label": example.label} for example in examples]
    # of the first label, the other run gets everything wrong
    wrong = [line | {"label": "类1"} if line["label"] == "类0" else line for line in right]
    for name, lines in (("a", wrong), ("b", right)):
        full = [line | {"score": 1.0, "scores": {str(line["label"]): 1.0}} for line in lines]
        write_run(tmp_path / name, task, examples, full)
        (tmp_path / name / "config.yaml").write_text(CONFIG)
    row = compare(tmp_path / "a", tmp_path / "b")["slices"]["label"]["类0"]
    assert row["p_holm"] < 0.02


def test_examples_that_only_one_gets_right(tmp_path: Path) -> None:
    first = classified(tmp_path / "a", [True, True, False, False, True])
    second = classified(tmp_path / "b", [True, False, True, False, False])
    answers = compare(first, second, shown=1, resamples=5)["answers"]
    assert [answers[kind] for kind in ("both", "only_first", "only_second", "neither")] == [1, 2, 1, 1]
    (one,), (other,) = answers["examples"]["only_first"], answers["examples"]["only_second"]
    assert one == {
        "line": 2, "id": "例1", "texts": [["text", "字字"]], "gold": "差评", "first": "差评", "second": "好评",
    }  # fmt: skip
    assert (other["line"], other["first"], other["second"]) == (3, "差评", "好评")


def test_spans_by_entity_and_in_words(ner_run: Path, tmp_path: Path) -> None:
    task, examples, _ = ner_pairs()
    right = [{"id": e.id, "text": e.text, "entities": [entity(*s) for s in e.spans]} for e in examples]
    for line in right:
        for span in line["entities"]:
            span["score"] = 1.0
    perfect = write_run(tmp_path / "perfect", task, examples, right)
    report = compare(ner_run, perfect, resamples=50)
    assert report["metrics"]["f1"]["second"] == 1.0
    assert set(report["slices"]) == {"length", "label", "entity_length"}
    assert report["slices"]["entity_length"]["3"]["support"] == 2
    assert report["answers"]["only_second"] == 2 and report["answers"]["only_first"] == 0
    shown = report["answers"]["examples"]["only_second"][0]
    assert shown["gold"] == shown["second"] == "北京/地名、北京师范大学/机构"
    assert shown["first"] == "北京/地名、北京师范大学/人名"


def test_intents_and_slots_are_both_shown_and_groups_have_their_sizes(tmp_path: Path) -> None:
    from wenmai.tasks.slot_filling import SlotFilling, SlotFillingConfig, SlotFillingExample

    text, slot = "订去上海的票", entity(2, 4, "到达", 0.9)
    task = SlotFilling(
        SlotFillingConfig(),
        SlotFilling.collect_labels(
            SlotFillingConfig(),
            gold := [
                SlotFillingExample.model_validate(
                    {"text": text, "intents": ["订票"], "slots": [entity(2, 4, "到达")]}
                )
            ],
        ),
    )
    for name, slots in (("a", []), ("b", [slot])):
        line = {"text": text, "intents": ["订票"], "scores": {"订票": 1.0}, "slots": slots}
        write_run(tmp_path / name, task, gold, [line])
        (tmp_path / name / "config.yaml").write_text("task: {name: slot_filling}\n")
    report = compare(tmp_path / "a", tmp_path / "b", resamples=5)
    assert report["slices"]["number_of_slots"]["1"]["examples"] == 1
    (shown,) = report["answers"]["examples"]["only_second"]
    assert shown["gold"] == shown["second"] == "订票 | 上海/到达" and shown["first"] == "订票"


def test_seen_and_unseen_need_the_same_training_set(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, *ner_pairs()) for name in "ab")
    for run in (a, b):
        (run / "known.json").write_text(json.dumps(["地名\t北京"], ensure_ascii=False))
    cut = compare(a, b, resamples=5)["slices"]["seen"]
    assert cut["seen"]["support"] == 2 and cut["seen"]["first"] == 1.0
    (b / "known.json").write_text(json.dumps(["地名\t上海"], ensure_ascii=False))
    assert "seen" not in compare(a, b, resamples=5)["slices"]


def test_seeds_are_averaged_and_tested_against_each_other(tmp_path: Path) -> None:
    left = with_seeds(
        tmp_path / "left", [accuracies(tmp_path / "left" / f"seed-{i}", 80, 0.6, i) for i in range(3)]
    )
    right = with_seeds(
        tmp_path / "right", [accuracies(tmp_path / "right" / f"seed-{i}", 80, 0.8, 10 + i) for i in range(3)]
    )
    report = compare(left, right, resamples=100)
    each = [
        [
            json.loads((side / f"seed-{i}/evaluation/test/metrics.json").read_text())["accuracy"]
            for i in range(3)
        ]
        for side in (left, right)
    ]
    row = report["metrics"]["accuracy"]
    assert row["first"] == pytest.approx(sum(each[0]) / 3)
    assert row["difference"] == pytest.approx(sum(each[1]) / 3 - sum(each[0]) / 3)
    assert row["seeds_p_value"] == pytest.approx(welch_p_value(*each))
    assert row["interval"][0] < row["difference"] < row["interval"][1]
    assert len(report["first"]["runs"]) == 3
    # a single run has no scatter to test against
    alone = compare(left, right / "seed-0", resamples=5)["metrics"]["accuracy"]
    assert alone["seeds_p_value"] is None and alone["second_deviation"] is None
    assert alone["first_deviation"] > 0


def test_most_seeds_decide_what_is_right(tmp_path: Path) -> None:
    runs = [[True, True], [True, False], [False, False]]
    left = with_seeds(
        tmp_path / "l", [classified(tmp_path / "l" / f"seed-{i}", right) for i, right in enumerate(runs)]
    )
    answers = compare(left, classified(tmp_path / "r", [False, True]), resamples=5)["answers"]
    assert (answers["only_first"], answers["only_second"]) == (1, 1)
    (one,), (other,) = answers["examples"]["only_first"], answers["examples"]["only_second"]
    # the answers shown are those of a seed that is one of the most
    assert (one["gold"], one["first"], one["second"]) == ("好评", "好评", "差评")
    assert (other["gold"], other["first"], other["second"]) == ("差评", "好评", "差评")


def test_regression_has_no_right_and_wrong(tmp_path: Path) -> None:
    from wenmai.tasks.text_matching import TextMatching, TextMatchingConfig, TextMatchingExample

    task = TextMatching(TextMatchingConfig(objective="regression"), [])
    examples = [TextMatchingExample(text="a", text_pair="b", label=float(i)) for i in range(6)]
    for name, values in (("a", [0, 1, 2, 3, 4, 5]), ("b", [5, 4, 3, 2, 1, 0])):
        lines = [{"text": "a", "text_pair": "b", "value": float(value)} for value in values]
        write_run(tmp_path / name, task, examples, lines)
        (tmp_path / name / "config.yaml").write_text("task: {name: text_matching, objective: regression}\n")
    report = compare(tmp_path / "a", tmp_path / "b", resamples=20)
    assert report["metrics"]["spearman"]["difference"] == pytest.approx(-2)
    assert report["answers"] is None and "label" not in report["slices"]


def test_models_of_different_labels_meet_on_the_labels_of_both(tmp_path: Path) -> None:
    examples = [NerExample.model_validate({"text": "王小明去北京", "entities": [entity(0, 3, "人名")]})]
    right = [{"text": "王小明去北京", "entities": [entity(0, 3, "人名", 0.9)]}]
    other = [{"text": "王小明去北京", "entities": [entity(4, 6, "景点", 0.9)]}]
    a = write_run(tmp_path / "a", Ner(NerConfig(), LABELS), examples, right)
    b = write_run(tmp_path / "b", Ner(NerConfig(), ["景点"]), examples, other)
    labels = compare(a, b, resamples=5)["slices"]["label"]
    assert (labels["人名"]["first"], labels["人名"]["second"]) == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda line: line | {"text": line["text"] + "。"},
            "predictions.jsonl:2 and .* hold different examples",
        ),
        (
            lambda line: line | {"gold": {"label": "中评"}},
            "hold different examples or labels: evaluate both on",
        ),
        (
            lambda line: line | {"gold": {"label": ["a"]}},
            "predictions.jsonl:2: holds no record that can be scored",
        ),
        (None, "a was scored on 3 examples, .*b on 2: evaluate both on the same file"),
    ],
)
def test_other_examples_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    a, b = (classified(tmp_path / name, [True, False, True]) for name in "ab")
    path = b / "evaluation" / "test" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if change is None:
        del lines[1]
    else:
        lines[1] = change(lines[1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=message):
        compare(a, b, resamples=5)


def test_ids_may_differ(tmp_path: Path) -> None:
    a = classified(tmp_path / "a", [True, False])
    b = classified(tmp_path / "b", [True, False], ids=False)
    assert compare(a, b, resamples=5)["metrics"]["accuracy"]["difference"] == 0


def test_runs_that_cannot_be_compared(tmp_path: Path, ner_run: Path) -> None:
    run = classified(tmp_path / "a", [True, False])
    with pytest.raises(
        UserError, match=r"runs of different tasks can't be compared: ner, text_classification"
    ):
        compare(run, ner_run)
    with pytest.raises(
        UserError, match=r"was not evaluated on 'dev' \(evaluated: test\): wenmai evaluate .* --split"
    ):
        compare(run, run, split="dev")
    with pytest.raises(UserError, match="no such folder"):
        compare(run, tmp_path / "nowhere")
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"can't be compared: its config.yaml names no task"):
        compare(run, run)
    multi = write_run(tmp_path / "b", *classification_pairs())
    (multi / "config.yaml").write_text("task: {name: text_classification, multi_label: true}\n")
    one = write_run(tmp_path / "c", *classification_pairs())
    (one / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match=r"is scored by accuracy, .* by f1"):
        compare(one, multi)
    empty = with_seeds(tmp_path / "none", [])
    with pytest.raises(UserError, match="no seed has been trained to its end yet"):
        compare(empty, one)
    (empty / "seeds.json").write_text("{")
    with pytest.raises(UserError, match=r"seeds.json: is damaged"):
        compare(empty, one)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = classified(tmp_path / "a", [False] * 30 + [True] * 30)
    b = classified(tmp_path / "b", [True] * 58 + [False] * 2)
    assert main(["compare", str(a), str(b), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["accuracy"]["p_value"] < 0.01
    assert main(["compare", str(a), str(b), "--show", "1"]) == 0
    shown = capsys.readouterr().out
    assert "+0.4667" in shown and "p (Holm)" in shown and "length 0-50" in shown
    assert "only in 1 2, only in 2 30" in shown
    assert "line 1, id 例0: 字" in shown and "line 2, id" not in shown
    assert main(["compare", str(a), str(b), "--split", "dev"]) == 2
    assert "was not evaluated on 'dev'" in capsys.readouterr().err


def test_the_table_of_several_seeds(tmp_path: Path) -> None:
    side = with_seeds(
        tmp_path / "s", [accuracies(tmp_path / "s" / f"seed-{i}", 20, 0.7, i) for i in range(2)]
    )
    console = Console(width=140)
    with console.capture() as capture:
        console.print(comparison(compare(side, side / "seed-1", resamples=5)))
    shown = capture.get()
    assert "(2 seeds)" in shown and "p (seeds)" in shown and " ± " in shown
