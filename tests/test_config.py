"""The configuration: what it accepts, what it refuses and in which words, and that nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wenmai.config import SPLITS, RunConfig, load_config, load_source, save_config
from wenmai.config.pages import keys_of, reference_page, starter
from wenmai.config.problems import record_of, sections_of
from wenmai.config.yaml_file import dump_yaml, parse_yaml
from wenmai.errors import ConfigError, UserError
from wenmai.tasks import TASKS
from wenmai.tasks.ner import NerConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"

NER = """\
task: {name: ner, max_length: 64}
backbone: {model: some/folder}
data:
  root: corpus
  format: conll
  train: train.txt
  dev: {path: dev.txt, encoding: gb18030, rows: [0, 5]}
  test: sample:peoples_daily/test
train: {epochs: 2, learning_rate: 3e-5}
output: runs/ner
"""


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def refused(folder: Path, text: str, *overrides: str) -> dict[str, str]:
    """Place -> message of every problem."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return {problem.place.replace(f"{folder}/", ""): problem.message for problem in caught.value.problems}


def test_the_task_section_becomes_the_record_of_the_named_task(tmp_path: Path) -> None:
    config = load(tmp_path, NER)
    assert isinstance(config.task, NerConfig)
    assert (config.task.max_length, config.task.head) == (64, "crf")
    assert config.train.learning_rate == 3e-5


def test_a_split_takes_the_reading_options_of_the_section_unless_it_has_its_own(tmp_path: Path) -> None:
    data = load(tmp_path, NER).data
    train, dev, test = (data.source(name) for name in SPLITS)
    assert train and dev and test
    assert (train.path, train.format, train.encoding) == ("corpus/train.txt", "conll", "utf-8")
    assert (dev.format, dev.encoding, dev.rows) == ("conll", "gb18030", (0, 5))
    assert test.path == "sample:peoples_daily/test"


@pytest.mark.parametrize("task", TASKS)
def test_saving_and_loading_gives_the_same_run(tmp_path: Path, task: str) -> None:
    config = load(
        tmp_path, NER, f"task={{name: {task}, max_length: 32}}", "data.label_map={'no': '1', '007': x}"
    )
    save_config(config, tmp_path / "saved.yaml")
    again = load_config(tmp_path / "saved.yaml")
    assert again == config
    assert type(again.task) is TASKS[task].Config
    assert [again.data.source(name) for name in SPLITS] == [config.data.source(name) for name in SPLITS]


def test_the_saved_tree_is_resolved(tmp_path: Path) -> None:
    save_config(load(tmp_path, NER), tmp_path / "saved.yaml")
    tree = yaml.safe_load((tmp_path / "saved.yaml").read_text(encoding="utf-8"))
    assert tree["seed"] == 42
    assert tree["train"]["weight_decay"] == 0.01
    assert tree["task"]["head"] == "crf"
    assert tree["data"]["train"] == {"path": "train.txt"}


def test_overrides_replace_values_lists_and_sections(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        NER,
        "train.epochs=5",
        "data.train=other.txt",
        "data.dev.rows=[2, null]",
        "data.test=null",
        "data.label_map={PER: 人}",
        "output=runs/a=b",
    )
    assert config.train.epochs == 5
    assert config.train.learning_rate == 3e-5
    assert config.data.train.path == "other.txt"
    assert config.data.dev and config.data.dev.rows == (2, None) and config.data.dev.encoding == "gb18030"
    assert config.data.test is None
    assert config.data.label_map == {"PER": "人"}
    assert config.output == "runs/a=b"


def test_an_override_inside_a_split_that_is_only_a_path_keeps_the_path(tmp_path: Path) -> None:
    config = load(tmp_path, NER, "data.train.encoding=gbk")
    assert (config.data.train.path, config.data.train.encoding) == ("train.txt", "gbk")


def test_all_problems_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    text = """\
task: {name: ner, hed: crf, nested: true}
backbone: {model: x, layers: 0}
data: {train: a, rows: [0, x]}
train: {epohcs: 3, learning_rate: fast, schedule: lineer, tokens_per_step: 64, examples_per_step: 4, logging_steps: 1.5}
epochs: 4
trackers: [notebook]
"""
    found = refused(tmp_path, text)
    assert found.keys() == {
        "run.yaml: task.hed",
        "run.yaml: task",
        "run.yaml: backbone.layers",
        "run.yaml: data.rows[1]",
        "run.yaml: train.epohcs",
        "run.yaml: train.learning_rate",
        "run.yaml: train.schedule",
        "run.yaml: train.logging_steps",
        "run.yaml: train",
        "run.yaml: epochs",
        "run.yaml: trackers[0]",
        "run.yaml: output",
    }
    assert found["run.yaml: train.epohcs"].startswith(
        "unknown key; did you mean 'epochs'? allowed: epochs, max_steps"
    )
    assert found["run.yaml: task.hed"].startswith(
        "unknown key; did you mean 'head'? allowed: name, max_length, head"
    )
    assert found["run.yaml: epochs"].startswith("unknown key; did you mean train.epochs?")
    assert found["run.yaml: train.learning_rate"] == 'expected a number, got "fast"'
    assert found["run.yaml: train.logging_steps"] == "expected a whole number, got 1.5"
    assert found["run.yaml: train.schedule"] == (
        "got \"lineer\"; did you mean 'linear'? allowed: linear, constant, constant_with_warmup, cosine, "
        "cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay"
    )
    assert found["run.yaml: backbone.layers"] == "must be at least 1, got 0"
    assert found["run.yaml: data.rows[1]"] == 'expected a whole number, got "x"'
    assert found["run.yaml: trackers[0]"].startswith('got "notebook"; allowed: tensorboard, wandb')
    assert found["run.yaml: output"] == "missing: folder of the run"
    assert "exclude each other" in found["run.yaml: train"]
    assert "needs head: global_pointer" in found["run.yaml: task"]


@pytest.mark.parametrize(
    ("override", "place", "message"),
    [
        (
            "task.name=nerr",
            "task.name",
            "unknown task 'nerr'; did you mean 'ner'? allowed: text_classification,",
        ),
        ("task=ner", "task", "expected a section with keys of its own"),
        ("data.train=[a, b]", "data.train", "expected a section with keys of its own"),
        ("data.split.dev=0.1", "", "data.dev and data.split.dev exclude each other"),
        ("train.eval_steps=often", "train.eval_steps", "expected a whole number or a number, got"),
        ("data.columns.text=[1]", "data.columns.text", "expected a text"),
        ("data.rows=[1]", "data.rows", "expected a list of 2 or more values, got [1]"),
        ("seed=null", "seed", "expected a whole number, got null"),
        ("train.turns=1", "train.turns", "unknown key; allowed: epochs"),
        ("train.seed=1", "train.seed", "unknown key; did you mean seed at the top or tune.seed?"),
    ],
)
def test_one_problem_in_words(tmp_path: Path, override: str, place: str, message: str) -> None:
    found = refused(tmp_path, NER, override)
    assert len(found) == 1
    ((where, what),) = found.items()
    where = where.removeprefix("command line").removeprefix("run.yaml")
    assert where.removeprefix(": ") == place
    assert what.startswith(message)


def test_what_came_from_the_command_line_is_said_to(tmp_path: Path) -> None:
    found = refused(tmp_path, NER.replace("epochs: 2", "epochs: -2"), "train.schedule=cosin")
    assert found.keys() == {"run.yaml: train.epochs", "command line: train.schedule"}


def test_patience_without_a_dev_set_would_do_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, NER, "train.early_stopping_patience=2")
    ((_, message),) = refused(tmp_path, NER, "train.early_stopping_patience=2", "data.dev=null").items()
    assert "needs a dev set" in message


@pytest.mark.parametrize("bad", ["train", "=3", ".a=3", "a..b=3"])
def test_an_override_is_a_key_and_a_value(tmp_path: Path, bad: str) -> None:
    assert refused(tmp_path, NER, bad) == {
        f"command line: {bad}": "expected key=value, for example train.epochs=5"
    }


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: [1,\nc: 2", "run.yaml:3", "not YAML"),
        ("a: 1\nb: 2\na: 3", "run.yaml:3", "the key 'a' stands here and in line 1; keep one of them"),
        (
            "train:\n  x: {a: 1, b: 2, a: 3}",
            "run.yaml:2",
            "the key 'a' stands here and in line 2; keep one of them",
        ),
        ("a:\n\tb: 1", "run.yaml:2", "not YAML: a tab; indent with spaces"),
        ("a: !!python/object:os.system x", "run.yaml:1", "not YAML: could not determine a constructor"),
        ("[1, 2]", "run.yaml", "expected sections: task, backbone, data"),
        ("", "run.yaml", "expected sections: task, backbone, data"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, place: str, message: str) -> None:
    ((where, what),) = refused(tmp_path, text).items()
    assert where == place
    assert what.startswith(message)


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "gbk.yaml"
    path.write_bytes("a: 1\nb: 中文\n".encode("gbk"))
    with pytest.raises(ConfigError, match=r"gbk\.yaml:2: not UTF-8"):
        load_config(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_the_record_itself_refuses_what_the_file_may_not_hold() -> None:
    tree = yaml.safe_load(NER)
    assert isinstance(RunConfig.model_validate(tree).task, NerConfig)
    with pytest.raises(ValidationError, match="unknown task 'nerd'"):
        RunConfig.model_validate({**tree, "task": {"name": "nerd"}})


def test_reading_options_of_the_command_line() -> None:
    source = load_source("a.tsv", ["format=tsv", "columns={text: 0, label: 1}", "header=false"])
    assert (source.path, source.columns, source.header) == ("a.tsv", {"text": 0, "label": 1}, False)
    with pytest.raises(ConfigError, match="command line: formt: unknown key; did you mean 'format'"):
        load_source("a.tsv", ["formt=tsv"])
    # as the messages about a file name it
    assert load_source("a.tsv", ["data.format=tsv"]).format == "tsv"


def test_yaml_values_are_those_of_yaml_1_2() -> None:
    text = "{a: 3e-5, b: no, c: 12:30, d: 2024-01-01, e: 010, f: .5, g: 0x10, h: ~, i: TRUE, j: 1_000, k: on, l: -.inf}"
    assert parse_yaml(text, "x") == {
        "a": 3e-5, "b": "no", "c": "12:30", "d": "2024-01-01", "e": 10, "f": 0.5, "g": 16, "h": None, "i": True,
        "j": "1_000", "k": "on", "l": float("-inf"),
    }  # fmt: skip


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    st.sampled_from(
        [
            "no",
            "3e-5",
            "1",
            "0o17",
            "null",
            "~",
            "<<",
            "2024-01-01",
            "1:30",
            "",
            " a",
            "#",
            "- a",
            "{a",
            "=",
            "010",
        ]
    ),
)


@given(
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab#:no1", max_size=3), inner, max_size=3)
        ),
    )
)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse_yaml(dump_yaml(value), "x") == value


@pytest.mark.parametrize("task", TASKS)
def test_a_starter_names_every_key_and_loads(tmp_path: Path, task: str) -> None:
    text = starter(task)
    config = load(tmp_path, text)
    assert type(config.task) is TASKS[task].Config
    assert config == load(tmp_path, text, f"output=runs/{task}")
    for key in keys_of(TASKS[task].Config):
        assert f"{key.name}: " in text
    uncommented = "\n".join(
        line.replace("# ", "", 1)
        for line in text.splitlines()
        if line.startswith(("  # ", "# ")) and ": " in line
    )
    for name, section in sections_of(RunConfig).items():
        for key in keys_of(section):
            # the starter of several tasks has it: tests/tasks/test_multi_task.py
            assert name == "mixing" or f"{key.name}: " in uncommented + text


def test_a_starter_of_an_unknown_task_says_what_there_is() -> None:
    with pytest.raises(UserError, match="did you mean 'ner'"):
        starter("nre")
    with pytest.raises(UserError, match="did you mean 'ner'"):
        starter("NER")


def test_the_reference_page_is_that_of_the_code() -> None:
    command = 'python -c "from wenmai.config.pages import *; print(reference_page(), end=str())"'
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert page == reference_page(), f"make docs/configuration.md anew: {command}"


def test_the_reference_page_names_every_field() -> None:
    page = reference_page()

    def walk(record: Any) -> None:
        for name, field in record.model_fields.items():
            assert f"`{name}`" in page or f"`{name}:`" in page or f".{name}:`" in page, (record, name)
            inner = record_of(field.annotation)
            if inner is not None:
                walk(inner)

    walk(RunConfig)
    for task in TASKS.values():
        walk(task.Config)
