"""Several seeds of one configuration: a run each, skipped when done, resumed when cut off, summed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, toy_config
from wenmai.cli import main
from wenmai.cli.run_tables import seeds
from wenmai.config import RunConfig, load_config, save_config
from wenmai.errors import UserError
from wenmai.experiments.repetition import summary_of_seeds, train_seeds
from wenmai.training.journal import read_log
from wenmai.training.trainer import train


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS, layers=1)


def short(folder: Path, backbone: Path, seeds: list[int], **train: Any) -> RunConfig:
    """Three steps on the toy reviews."""
    settings = {"max_steps": 3, "logging_steps": 1, "seeds": seeds, **train}
    return toy_config(folder, "classification", backbone, **settings)


def best_metric(_: RunConfig, run: Path) -> dict[str, dict[str, Any]]:
    """The last evaluation of the log, in the place of a scored test set."""
    metrics = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"][-1]["metrics"]
    return {"dev": {"primary_metric": "accuracy", "examples": 36, "labels": {}, **metrics}}


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in read_log(run / "log.jsonl") if event["event"] == "train"]


def test_summary_by_hand() -> None:
    found = summary_of_seeds([{"f1": 0.5, "loss": 1.0}, {"f1": 0.7}, {"f1": 0.9, "loss": 2.0}])
    assert set(found) == {"f1"}
    assert found["f1"].mean == pytest.approx(0.7)
    assert found["f1"].deviation == pytest.approx(0.2)
    assert found["f1"].low == pytest.approx(0.7 - 4.302653 * 0.2 / 3**0.5, abs=1e-6)
    assert summary_of_seeds([]) == {}
    assert summary_of_seeds([{"f1": 0.5}])["f1"] == (0.5, None, None, None)


def test_each_seed_is_the_run_that_it_would_be_alone(backbone: Path, tmp_path: Path) -> None:
    config = short(tmp_path / "a", backbone, [3, 7])
    found = train_seeds(config, score=best_metric)
    folder = Path(config.output)
    assert json.loads((folder / "seeds.json").read_text()) == found
    assert [run["run"] for run in found["runs"]] == ["seed-3", "seed-7"]
    assert losses(folder / "seed-3") != losses(folder / "seed-7")
    own = load_config(folder / "seed-7" / "config.yaml")
    assert (own.seed, own.train.seeds, own.output) == (7, [], str(folder / "seed-7"))
    alone = train(own.model_copy(update={"output": str(tmp_path / "alone")}))
    assert losses(alone) == losses(folder / "seed-7")
    values = [run["metrics"]["dev"]["accuracy"] for run in found["runs"]]
    summary = found["summary"]["dev"]["accuracy"]
    assert summary["mean"] == pytest.approx(sum(values) / 2)
    assert next(iter(found["summary"]["dev"])) == "accuracy"


def test_finished_seeds_are_skipped_and_later_ones_added(backbone: Path, tmp_path: Path) -> None:
    config = short(tmp_path, backbone, [1])
    trained: list[int] = []

    def score(own: RunConfig, run: Path) -> dict[str, dict[str, Any]]:
        trained.append(own.seed)
        return best_metric(own, run)

    train_seeds(config, score=score)
    more = short(tmp_path, backbone, [0, 1], logging_steps=1)
    found = train_seeds(more, score=score, resume=True)
    assert trained == [1, 0]
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    with pytest.raises(UserError, match="holds an earlier run"):
        train_seeds(more, score=score)
    other = short(tmp_path, backbone, [0, 1], learning_rate=1e-3)
    with pytest.raises(UserError, match=r"another configuration \(train.learning_rate: 0.003 became 0.001\)"):
        train_seeds(other, score=score, resume=True)
    train_seeds(other, score=score, overwrite=True)
    assert trained == [1, 0, 0, 1]
    (Path(other.output) / "seeds.json").write_text("{")
    with pytest.raises(UserError, match=r"seeds.json: is damaged"):
        train_seeds(other, score=score, resume=True)


def test_a_run_cut_off_goes_on_where_it_was(backbone: Path, tmp_path: Path) -> None:
    class CutOff(Exception):
        pass

    calm = short(tmp_path / "calm", backbone, [1, 2], max_steps=6, save_steps=2)
    train_seeds(calm, score=best_metric)
    config = short(tmp_path / "cut", backbone, [1, 2], max_steps=6, save_steps=2)
    scored: list[int] = []

    def score(own: RunConfig, run: Path) -> dict[str, dict[str, Any]]:
        if own.seed == 2 and not scored:
            scored.append(own.seed)
            raise CutOff
        return best_metric(own, run)

    with pytest.raises(CutOff):
        train_seeds(config, score=score)
    folder = Path(config.output)
    assert [run["seed"] for run in json.loads((folder / "seeds.json").read_text())["runs"]] == [1]
    found = train_seeds(config, score=score, resume=True)
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    for seed in (1, 2):
        assert losses(folder / f"seed-{seed}") == losses(Path(calm.output) / f"seed-{seed}")


def test_a_single_run_is_not_taken_for_one_of_seeds(backbone: Path, tmp_path: Path) -> None:
    config = short(tmp_path, backbone, [])
    train(config)
    with pytest.raises(UserError, match="holds an earlier run"):
        train_seeds(short(tmp_path, backbone, [1]), score=None)
    with pytest.raises(UserError, match="holds a run of its own"):
        train_seeds(short(tmp_path, backbone, [1]), score=None, resume=True)


def test_data_that_were_refused_leave_nothing_to_overwrite(backbone: Path, tmp_path: Path) -> None:
    config = short(tmp_path, backbone, [1])
    data = Path(config.data.train.path)
    text = data.read_text(encoding="utf-8")
    data.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError):
        train_seeds(config, score=None)
    data.write_text(text, encoding="utf-8")
    assert train_seeds(config, score=None)["runs"] == [{"seed": 1, "run": "seed-1", "metrics": {}}]


def test_on_the_command_line(backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = short(tmp_path, backbone, [1, 2])
    path = tmp_path / "seeds.yaml"
    save_config(config, path)
    folder = Path(config.output)
    assert main(["train", str(path), "--no-evaluate"]) == 0
    assert "wenmai report" in capsys.readouterr().out
    assert not (folder / "report.html").exists()
    # what was only trained is scored now, and not trained again
    before = (folder / "seed-1" / "log.jsonl").read_bytes()
    assert main(["train", str(path), "--resume", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (folder / "seed-1" / "log.jsonl").read_bytes() == before
    found = json.loads((folder / "seeds.json").read_text())
    assert printed == {"run": str(folder), **found}
    for run in found["runs"]:
        metrics = json.loads((folder / run["run"] / "evaluation" / "dev" / "metrics.json").read_text())
        assert run["metrics"]["dev"]["accuracy"] == metrics["accuracy"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "seed-1 · seed-2" in page and "Comparison" in page
    assert main(["report", str(folder), "--output", str(tmp_path / "again.html")]) == 0
    assert "seed-1 · seed-2" in (tmp_path / "again.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["compare", str(folder), str(folder / "seed-1"), "--split", "dev", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["first_deviation"] is not None


def test_the_table() -> None:
    runs = [
        {"seed": i, "run": f"seed-{i}", "metrics": {"test": {"f1": value}}}
        for i, value in ((1, 0.5), (2, 0.7))
    ]
    summary = {"test": {"f1": {"mean": 0.6, "deviation": 0.1414, "interval": [-0.6706, 1.8706]}}}
    console = Console(width=120)
    with console.capture() as capture:
        console.print(seeds({"runs": runs, "summary": summary}))
    shown = " ".join(capture.get().split())
    assert "test: 2 seeds" in shown and "f1 0.6000 ± 0.1414 -0.6706 to 1.8706 0.5000 0.7000" in shown
