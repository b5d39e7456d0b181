"""A search: every trial an ordinary run, the same trials whatever was killed in between, the test set left alone."""

from __future__ import annotations

import builtins
import json
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from own_process import Command
from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.cli import main
from wenmai.cli.run_tables import trials as table
from wenmai.config import RunConfig, TuneConfig, load_config, save_config
from wenmai.config.space import Axis, axes
from wenmai.errors import ConfigError, DataError, UserError
from wenmai.experiments import search, tuning
from wenmai.experiments.trials import Trial, best_of, read_trials
from wenmai.experiments.tuning import Study, tune
from wenmai.training.journal import read_log

pytest.importorskip("optuna")

RATES = {"train.learning_rate": {"low": 1e-5, "high": 3e-2, "log": True}}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, layers=1)


@pytest.fixture(scope="module")
def calm(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three trials that nothing disturbed."""
    return tune(searching(tmp_path_factory.mktemp("calm"), backbone))


def searching(
    folder: Path, backbone: Path, space: dict[str, Any] | None = None, *, steps: int = 3, **settings: Any
) -> RunConfig:
    """A search over runs of three steps with an evaluation after each."""
    config = toy_config(folder, "classification", backbone, max_steps=steps, eval_steps=1, logging_steps=1)
    section = TuneConfig.model_validate({"trials": 3, "space": space or RATES, **settings})
    return config.model_copy(update={"tune": section})


def told(trials: list[Trial]) -> list[tuple[Any, ...]]:
    """What must not depend on the clock."""
    return [(t.number, t.state, t.values, t.evaluations, t.run, t.error, t.notes) for t in trials]


def trial(number: int, values: dict[str, Any], *evaluations: float, state: str = "complete") -> Trial:
    return Trial(number, state, values, list(evaluations), 1.0, f"trial-{number}")  # type: ignore[arg-type]


def test_trials_are_runs_and_the_best_one_is_kept(backbone: Path, tmp_path: Path) -> None:
    study = tune(
        searching(tmp_path, backbone, {**RATES, "train.schedule": {"choices": ["linear", "constant"]}})
    )
    folder = study.folder
    assert read_trials(folder / "trials.jsonl") == study.trials
    for found in study.trials:
        run = folder / f"trial-{found.number}"
        own = load_config(run / "config.yaml")
        assert own.train.learning_rate == found.values["train.learning_rate"]
        assert own.train.schedule == found.values["train.schedule"]
        assert own.tune is None
        events = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
        assert found.evaluations == [event["metrics"]["accuracy"] for event in events]
        assert found.value == max(found.evaluations)
        assert (run / "bundle").is_dir() and not (run / "checkpoint").exists()
    assert study.best.value == max(found.value or 0 for found in study.trials)
    assert len({found.values["train.learning_rate"] for found in study.trials}) == 3


def test_a_study_is_decided_by_its_seed(calm: Study, backbone: Path, tmp_path: Path) -> None:
    same = tune(searching(tmp_path / "same", backbone, seed=42, trials=2))
    assert told(same.trials) == told(calm.trials[:2])
    other = tune(searching(tmp_path / "other", backbone, seed=43, trials=1))
    assert other.trials[0].values != calm.trials[0].values


@pytest.mark.parametrize("after", [1, 4])
def test_a_study_that_was_cut_off_goes_on_as_if_nothing_had_been(
    calm: Study, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Cut off at the evaluation with this number, in the first or second trial."""
    left = [after]
    whole = search.Draw.judge

    def cut(self: search.Draw, evaluations: list[float]) -> bool:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return whole(self, evaluations)

    config = searching(tmp_path / "cut", backbone)
    with monkeypatch.context() as patch:
        patch.setattr(search.Draw, "judge", cut)
        with pytest.raises(KeyboardInterrupt):
            tune(config)
    with pytest.raises(UserError, match="holds an earlier run"):
        tune(config)
    study = tune(config, resume=True)
    assert told(study.trials) == told(calm.trials)
    for found in study.trials:
        logs = [
            [
                event["loss"]
                for event in read_log(s.folder / found.run / "log.jsonl")
                if event["event"] == "train"
            ]
            for s in (study, calm)
        ]
        assert logs[0] == logs[1]


def test_a_study_survives_a_kill(calm: Study, backbone: Path, tmp_path: Path) -> None:
    config = searching(tmp_path, backbone)
    path = tmp_path / "tune.yaml"
    save_config(config, path)
    study = Path(config.output)
    command = Command("tune", str(path), folder=tmp_path)
    while command.running and not (study / "trial-1" / "log.jsonl").exists():
        time.sleep(0.01)
    command.send(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert 1 <= len(read_trials(study / "trials.jsonl")) < 3
    assert told(tune(config, resume=True).trials) == told(calm.trials)


def test_sigterm_says_how_to_go_on(
    calm: Study,
    backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = searching(tmp_path, backbone)
    path = tmp_path / "tune.yaml"
    save_config(config, path)
    whole = search.Draw.judge

    def stopping(self: search.Draw, evaluations: list[float]) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, evaluations)

    with monkeypatch.context() as patch:
        patch.setattr(search.Draw, "judge", stopping)
        assert main(["tune", str(path)]) == 143
    assert "go on with --resume" in capsys.readouterr().err
    assert read_trials(Path(config.output) / "trials.jsonl") == []
    assert main(["tune", str(path), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"]["value"] == calm.best.value


def test_more_trials_later_are_those_of_a_longer_study(calm: Study, backbone: Path, tmp_path: Path) -> None:
    tune(searching(tmp_path / "short", backbone, trials=1))
    study = tune(searching(tmp_path / "short", backbone, trials=3), resume=True)
    assert told(study.trials) == told(calm.trials)
    other = searching(tmp_path / "short", backbone, {"train.learning_rate": {"low": 1e-6, "high": 1e-3}})
    with pytest.raises(
        UserError, match=r"another configuration \(tune.space.train.learning_rate.low: 1e-05 became"
    ):
        tune(other, resume=True)


def test_the_test_set_is_not_read_and_comes_back_in_the_best_configuration(
    backbone: Path, tmp_path: Path
) -> None:
    config = searching(tmp_path, backbone, metric="macro_f1", trials=2)
    data = config.data.model_copy(
        update={"test": config.data.train.model_copy(update={"path": "nowhere.jsonl"})}
    )
    settings = config.train.model_copy(update={"seeds": [1, 2]})
    study = tune(config.model_copy(update={"data": data, "train": settings}))
    assert load_config(study.folder / "trial-0" / "config.yaml").data.test is None
    best = load_config(study.best_config)
    assert best.data.test is not None and best.data.test.path == "nowhere.jsonl"
    assert best.train.seeds == [1, 2] and best.tune is None
    assert best.train.metric_for_best_model == "macro_f1"
    assert best.train.learning_rate == study.best.values["train.learning_rate"]
    assert best.output == str(study.folder / "best")


def test_without_a_dev_set_there_is_nothing_to_tune_by(backbone: Path, tmp_path: Path) -> None:
    config = searching(tmp_path, backbone)
    alone = config.model_copy(update={"data": config.data.model_copy(update={"dev": None})})
    with pytest.raises(ConfigError, match=r"data.dev: trials are judged on a dev set: give data.dev, or"):
        tune(alone)
    assert not Path(config.output).exists()


def test_a_failed_trial_is_written_down_and_the_study_goes_on(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 600 tokens are more than the backbone has positions: the run refuses, which no check of the key can foresee
    space = {"task.max_length": {"choices": [32, 48, 64, 600, 700, 800]}}
    study = tune(searching(tmp_path, backbone, space, trials=6, seed=1))
    failed = [found for found in study.trials if found.state == "failed"]
    assert failed and len(failed) < 6
    for found in failed:
        assert found.values["task.max_length"] >= 600 and found.value is None
        assert found.error is not None and "more than the 512 positions" in found.error
    assert study.best.values["task.max_length"] < 600


def test_a_study_whose_trials_all_fail_ends_early(backbone: Path, tmp_path: Path) -> None:
    space = {"task.max_length": {"low": 600, "high": 5000}}
    config = searching(tmp_path, backbone, space, trials=10)
    with pytest.raises(UserError, match=r"(?s)first 3 trials all failed.*more than the 512 positions"):
        tune(config)
    assert len(read_trials(Path(config.output) / "trials.jsonl")) == 3


def test_data_that_nobody_can_read_is_no_failed_trial(backbone: Path, tmp_path: Path) -> None:
    config = searching(tmp_path, backbone, trials=1)
    data = Path(config.data.train.path)
    text = data.read_text(encoding="utf-8")
    data.write_text('{"text": 3}\n', encoding="utf-8")
    with pytest.raises(DataError):
        tune(config)
    assert not (Path(config.output) / "trials.jsonl").exists()
    data.write_text(text, encoding="utf-8")
    assert len(tune(config).trials) == 1  # nothing that would have to be overwritten


def test_the_same_values_are_not_trained_twice(backbone: Path, tmp_path: Path) -> None:
    space = {"train.adversarial": {"choices": [None, {"method": "fgm"}]}}
    study = tune(searching(tmp_path, backbone, space, trials=6))
    runs = {found.run for found in study.trials}
    assert len(runs) == 2 and len(study.trials) == 6
    assert {path.name for path in study.folder.glob("trial-*")} == runs
    for found in study.trials:
        own = load_config(study.folder / found.run / "config.yaml")
        drawn = found.values["train.adversarial"]
        assert (own.train.adversarial is None) == (drawn is None)


def test_a_timeout_begins_no_new_trial(backbone: Path, tmp_path: Path) -> None:
    config = searching(tmp_path, backbone, trials=50, timeout=0.001)
    assert len(tune(config).trials) == 1
    assert len(tune(config, resume=True).trials) == 1


def test_a_hopeless_trial_is_ended_at_its_first_evaluation(backbone: Path, tmp_path: Path) -> None:
    """After five whole trials, the median decides: here they were made to look perfect."""
    config = searching(tmp_path, backbone, trials=6)
    folder = Path(config.output)
    folder.mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    earlier = [trial(i, {"train.learning_rate": 1e-3 * (i + 1)}, 1.5, 1.6, 1.7) for i in range(5)]
    tuning.write_trials(folder / "trials.jsonl", earlier)
    study = tune(config, resume=True)
    last = study.trials[-1]
    assert last.state == "pruned" and len(last.evaluations) == 1
    steps = [
        event["step"] for event in read_log(folder / "trial-5" / "log.jsonl") if event["event"] == "train"
    ]
    assert steps == [1]
    assert study.best.number == 0 or study.best.value == 1.7
    without = searching(tmp_path, backbone, trials=6, pruner="none")
    tuning.write_trials(folder / "trials.jsonl", earlier)
    save_config(without, folder / "config.yaml")
    assert len(tune(without, resume=True).trials[-1].evaluations) == 3


def drawn(pruner: str, space: list[Axis], count: int, values: Any) -> list[Trial]:
    """A study without training: the evaluations are a function of the values."""
    settings = TuneConfig(pruner=pruner, space={})  # type: ignore[arg-type]
    trials: list[Trial] = []
    for number in range(count):
        draw = search.Draw(settings, space, trials, seed=5)
        stopped, seen = False, []
        for value in values(draw.values):
            seen.append(value)
            if stopped := draw.judge(seen):
                break
        state = "pruned" if stopped else "complete"
        trials.append(Trial(number, state, draw.values, seen, 0.0, "", notes=draw.notes))  # type: ignore[arg-type]
        assert json.loads(json.dumps(trials[-1].notes)) == trials[-1].notes
    return trials


def spaces(backbone: Path, tmp_path: Path, **space: Any) -> list[Axis]:
    return axes(searching(tmp_path, backbone, {f"train.{key}": value for key, value in space.items()}))


def test_hyperband_ends_bad_trials_early_and_keeps_good_ones(backbone: Path, tmp_path: Path) -> None:
    space = spaces(backbone, tmp_path, weight_decay={"low": 0, "high": 1})

    def values(values: dict[str, Any]) -> list[float]:
        return [values["train.weight_decay"] * (i + 1) for i in range(9)]

    trials = drawn("hyperband", space, 30, values)
    assert drawn("hyperband", space, 30, values) == trials
    pruned = [found for found in trials if found.state == "pruned"]
    assert 5 < len(pruned) < 30 and sum(len(found.evaluations) for found in pruned) < 5 * len(pruned)
    best = best_of(trials)
    assert best is not None
    assert (
        best.values["train.weight_decay"] > max(found.values["train.weight_decay"] for found in pruned) * 0.9
    )
    assert all(found.state == "complete" for found in drawn("none", space, 15, values))


def test_the_search_learns_from_its_trials(backbone: Path, tmp_path: Path) -> None:
    space = spaces(
        backbone, tmp_path, weight_decay={"low": 0, "high": 1}, num_cycles={"low": 1, "high": 9, "step": 2}
    )

    def values(values: dict[str, Any]) -> list[float]:
        return [1 - (values["train.weight_decay"] - 0.3) ** 2]

    trials = drawn("none", space, 50, values)
    off = [abs(found.values["train.weight_decay"] - 0.3) for found in trials]
    assert sum(off[20:]) / 30 < 0.2  # 0.29 if all were drawn by lot
    cycles = {found.values["train.num_cycles"] for found in trials}
    assert cycles <= {1, 3, 5, 7, 9} and len(cycles) > 2
    assert all(type(found.values["train.num_cycles"]) is int for found in trials)
    shares = search.importance(TuneConfig(space={}), space, trials)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["train.weight_decay"] > 0.7
    assert search.importance(TuneConfig(space={}), space, trials[:3]) == {}


@pytest.mark.filterwarnings("error")
def test_steps_that_do_not_reach_the_end(backbone: Path, tmp_path: Path) -> None:
    space = spaces(backbone, tmp_path, l1={"low": 0.0, "high": 0.35, "step": 0.1})
    trials = drawn("none", space, 20, lambda values: [values["train.l1"]])
    assert {round(found.values["train.l1"], 6) for found in trials} == {0.0, 0.1, 0.2, 0.3}


def test_the_table() -> None:
    """Settings as they were written, every reason of failures once."""
    values = {"train.learning_rate": 3.14159e-5, "train.schedule": "linear", "train.adversarial": None}
    trials = [
        trial(0, values, 0.5, 0.75),
        *(replace(trial(i, values, state="failed"), error="UserError: too\n  much") for i in (1, 2)),
    ]
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table([asdict(row) for row in trials], 0, {"train.learning_rate": 0.8}))
    shown = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert "0 complete 0.7500 3.142e-05 linear null 1" in shown
    assert "failed: 1, 2: UserError: too much" in shown
    assert "What set good trials apart (PED-ANOVA): train.learning_rate 80%" in shown


def test_without_optuna_the_remedy_is_named(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r'pip install "wenmai\[tune\]"'):
        tune(searching(tmp_path, backbone))


def test_a_damaged_study(backbone: Path, tmp_path: Path) -> None:
    config = searching(tmp_path, backbone)
    folder = Path(config.output)
    folder.mkdir(parents=True)
    (folder / "trials.jsonl").write_text('{"number": 0}\n')
    with pytest.raises(UserError, match=r"trials.jsonl: is damaged"):
        tune(config, resume=True)


def test_on_the_command_line(backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = searching(tmp_path, backbone)
    path = tmp_path / "tune.yaml"
    save_config(config, path)
    assert load_config(path) == config
    assert main(["tune", str(path), "--trials", "2"]) == 0
    shown = capsys.readouterr()
    best = Path(config.output) / "best.yaml"
    assert "train.learning_rate" in shown.out and f"wenmai train {best}" in shown.out
    assert shown.err == ""
    assert main(["tune", str(path), "tune.trials=2", "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in found["trials"]] == [0, 1]
    assert found["best"]["value"] == max(row["value"] for row in found["trials"])
    assert main(["train", str(best), "train.max_steps=1", "--no-evaluate"]) == 0
    assert (Path(config.output) / "best" / "bundle").is_dir()
    assert main(["tune", str(path)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["tune", str(path), "tune=null", "--overwrite"]) == 2
    assert "tune.space: missing: name the keys to search" in capsys.readouterr().err
