"""Several tasks in one run: each loss is normalised by itself, and nothing but the configuration changes a result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import fingerprint, train_with_stops

from tiny import tiny_backbone_folder
from toy import ALL_TEXTS, backbone_of, multi_task_config, toy_config
from wenmai.backbones.lm_head import pretrained_lm_head
from wenmai.config import RunConfig, load_config
from wenmai.errors import ConfigError, DataError, UserError
from wenmai.heads.multi_task import MultiTaskHead, wanted
from wenmai.tasks.causal_lm import CausalLM, CausalLMConfig
from wenmai.tasks.embedding_example import TextEmbeddingConfig, TextEmbeddingExample
from wenmai.tasks.model import Model
from wenmai.tasks.multi_task import MultiTask, MultiTaskExample
from wenmai.tasks.text_embedding import TextEmbedding
from wenmai.training.fitting import fit_head
from wenmai.training.gradients import Step
from wenmai.training.journal import read_log
from wenmai.training.optimizer import parameter_groups
from wenmai.training.parallel import Parallel
from wenmai.training.restrictions import refuse_unshareable
from wenmai.training.setup import Prepared, prepare
from wenmai.training.trainer import train

ALONE = Parallel(rank=0, world=1, device=torch.device("cpu"))
WEIGHTS = {"entities": 1.0, "opinions": 0.5, "vectors": 3.0}
TOYS = {"entities": "ner-crf", "opinions": "classification", "vectors": "embedding"}
"""Losses of tokens, of texts, and of all pairs of texts in a step."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=ALL_TEXTS)


def configured(folder: Path, backbone: Path, **more: Any) -> RunConfig:
    settings = {"mixing": {"batches_per_step": 3}, "weights": WEIGHTS, "examples_per_step": 12, **more}
    return multi_task_config(folder, backbone, TOYS, **settings)


def test_heads_start_and_are_fitted_as_in_runs_of_their_own(backbone: Path, tmp_path: Path) -> None:
    folder = backbone_of("cloze", backbone)
    work = prepare(multi_task_config(tmp_path / "both", folder, {"gap": "cloze", "few": "contrastive"}))
    gap, few = work.model.head.heads["gap"], work.model.head.heads["few"]
    pretrained = pretrained_lm_head(work.model.backbone)
    assert pretrained is not None
    for name, tensor in gap.lm.state_dict().items():
        assert torch.equal(tensor, pretrained[name])
    alone = prepare(toy_config(tmp_path / "alone", "contrastive", folder))
    for prepared in (work, alone):
        fit_head(prepared)
    assert few.weight_LH.abs().max() > 0
    torch.testing.assert_close(few.weight_LH, alone.model.head.weight_LH)


def test_what_a_task_can_not_learn_from_is_told_beside_others_too() -> None:
    task = MultiTask.of(
        {"vectors": TextEmbedding(TextEmbeddingConfig(objective="triplet"), [])}, {"vectors": 1}
    )
    example = MultiTaskExample.of("vectors", TextEmbeddingExample(anchor="北京", positive="上海"))
    assert task.label_problems(example) == []
    (problem,) = task.training_problems(example)
    assert problem.startswith("vectors: has no 'negatives'")


def test_a_task_that_writes_is_asked_alone() -> None:
    writer, vectors = CausalLM(CausalLMConfig(), []), TextEmbedding(TextEmbeddingConfig(), [])
    both = MultiTask.of({"writer": writer, "vectors": vectors}, {"writer": 1, "vectors": 1})
    assert set(both.as_example("北京").tasks) == {"vectors"}
    with pytest.raises(UserError, match="writer: writes texts"):
        MultiTask.of({"writer": writer}, {"writer": 1}).as_example("北京")


def mixed_step(work: Prepared) -> Any:
    """The first step in which all tasks occur."""
    return next(units for units in work.plan.steps(0) if len(set(work.plan.part_of(units))) == len(TOYS))


def batches_of(work: Prepared) -> list[dict[str, torch.Tensor]]:
    return [work.maker(part, 0) for part in work.plan.micro_batches(mixed_step(work))]


def step_of(work: Prepared, batches: Any = None, **more: Any) -> Step:
    model = work.model
    return Step(
        batches=batches_of(work) if batches is None else batches,
        forward=model,
        head=model.head,
        backward=torch.Tensor.backward,
        parallel=ALONE,
        parameters=list(model.parameters()),
        **more,
    )


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_equal(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(
            found[key], gradient, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Callable[..., dict[str, torch.Tensor]]:
    @cache
    def whole(**train: Any) -> dict[str, torch.Tensor]:
        work = prepare(configured(tmp_path_factory.mktemp("whole"), backbone, **train))
        work.model.double().train()
        assert step_of(work, r_drop=train.get("r_drop")).run()[1] == 1
        return gradients(work.model)

    return whole


def test_gradients_are_the_sum_of_those_of_each_task_alone(
    tmp_path: Path, backbone: Path, whole: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """Each task's own model on its own rows, its mean loss times weight and share of the tokens, added up by hand."""
    work = prepare(configured(tmp_path, backbone))
    model = work.model.double().train()
    head = model.head
    assert isinstance(head, MultiTaskHead)
    batches = batches_of(work)
    tokens = {
        name: sum(int(b["attention_mask"].sum()) for b in batches if wanted(name) in b) for name in TOYS
    }
    expected: dict[str, torch.Tensor] = {}
    losses, total = {}, 0.0
    for name, own in head.heads.items():
        (batch,) = [batch for batch in batches if wanted(name) in batch]
        # modules keep the names in the whole model, which their dropout depends on
        hidden = model.backbone(batch)
        with model.backbone.keyed(batch):
            outputs = own.training_outputs(hidden, batch["attention_mask"], batch)
        loss, terms = own.loss(outputs, batch)
        losses[name] = float(loss.detach()) / terms
        share = WEIGHTS[name] * tokens[name] / sum(tokens.values())
        total += share * losses[name]
        (loss / terms * share).backward()
        for key, gradient in gradients(model).items():
            expected[key] = expected.get(key, 0) + gradient
    assert_equal(whole(), expected)
    step = step_of(work, batches)
    found, _ = step.run()
    assert found == pytest.approx(total, rel=1e-9)
    assert step.task_losses == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_change_nothing(
    micro: int, tmp_path: Path, backbone: Path, whole: Callable[..., dict[str, torch.Tensor]]
) -> None:
    work = prepare(configured(tmp_path, backbone, examples_per_micro_batch=micro))
    work.model.double().train()
    assert len(batches_of(work)) > len(TOYS)
    step_of(work).run()
    assert_equal(gradients(work.model), whole())


def test_gradients_that_are_there_stay(
    tmp_path: Path, backbone: Path, whole: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """Adversarial training runs a step several times; the gradients of all passes add up."""
    work = prepare(configured(tmp_path, backbone))
    work.model.double().train()
    step_of(work).run()
    step_of(work).run(0.5)
    assert_equal(gradients(work.model), {key: 1.5 * gradient for key, gradient in whole().items()})


def test_a_step_of_one_task_leaves_the_other_heads_alone(tmp_path: Path, backbone: Path) -> None:
    work = prepare(configured(tmp_path, backbone, mixing={"batches_per_step": 1}))
    step_of(work, [work.maker(part, 0) for part in work.plan.micro_batches(work.plan.steps(0)[0])]).run()
    heads = {key.split(".")[2] for key in gradients(work.model) if key.startswith("head.")}
    assert len(heads) <= 1


def test_the_batches_of_a_task_are_those_of_its_own_model(tmp_path: Path, backbone: Path) -> None:
    """Same hidden states, same head: what a model of one task answers for a row is what this one answers."""
    work = prepare(configured(tmp_path, backbone))
    batch = next(batch for batch in batches_of(work) if wanted("entities") in batch)
    alone = Model(work.model.backbone, work.model.head.heads["entities"]).eval()
    work.model.eval()
    together = work.model(batch)
    for name, value in alone(batch).items():
        torch.testing.assert_close(together[f"entities/{name}"], value)
    assert {name.split("/")[0] for name in together} == {"entities"}


SETTINGS: list[dict[str, Any]] = [
    {"mixing": {"batches_per_step": 3, "temperature": 2.0}, "examples_per_micro_batch": 3},
    {"mixing": {"batches_per_step": 1}, "examples_per_step": None, "tokens_per_step": 160, "num_workers": 1},
]


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_stopped_again_and_again(
    number: int, tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # every prediction of an evaluation is a moment to stop at, so there are few
    settings = {"epochs": 3, "eval_steps": 0.5, "eval_examples": 6, "logging_steps": 3, **SETTINGS[number]}
    run = train(configured(tmp_path, backbone, **settings))
    unbroken = fingerprint(run)
    shutil.rmtree(run)
    broken = train_with_stops(load_config(tmp_path / "config.yaml"), 17, monkeypatch)
    assert fingerprint(broken) == unbroken
    told = [event["task_losses"] for event in read_log(run / "log.jsonl") if event["event"] == "train"]
    assert {name for losses in told for name in losses} == set(TOYS)


def test_what_decides_the_result_and_what_does_not(tmp_path: Path, backbone: Path) -> None:
    def trained(name: str, *overrides: str) -> Any:
        config = load_config(tmp_path / "config.yaml", [*overrides, f"output={tmp_path / name}"])
        return fingerprint(train(config))[0]

    configured(tmp_path, backbone, epochs=1, max_steps=6)
    plain = trained("plain")
    assert trained("again") == plain
    assert trained("temperature", "mixing.temperature=4") != plain
    assert trained("batches", "mixing.batches_per_step=1") != plain
    assert trained("weight", "tasks.vectors.weight=1") != plain


def test_every_task_may_have_rates_of_its_own(tmp_path: Path, backbone: Path) -> None:
    config = configured(
        tmp_path, backbone, learning_rates={"head.tasks.entities.*": 0.1}, head_learning_rate=0.01
    )
    groups = parameter_groups(prepare(config).model, config.train)
    assert {group["part"]: group["lr"] for group in groups} == {
        "backbone": 3e-3,
        "head": 0.01,
        "head.tasks.entities.*": 0.1,
    }


def test_the_mean_or_a_named_metric_chooses_the_best(tmp_path: Path, backbone: Path) -> None:
    run = train(configured(tmp_path, backbone, epochs=1, max_steps=4, eval_steps=2, eval_examples=9))
    for event in (event for event in read_log(run / "log.jsonl") if event["event"] == "eval"):
        metrics = event["metrics"]
        assert event["primary_metric"] == "mean"
        best = [
            metrics[key] for key in ("entities/f1", "opinions/macro_f1", "vectors/spearman") if key in metrics
        ]
        assert metrics["mean"] == pytest.approx(sum(best) / len(best)) or len(best) < 3
        assert {name.split("/")[0] for name in metrics} == {"mean", *TOYS}
    config = load_config(
        tmp_path / "config.yaml",
        ["train.metric_for_best_model=opinions/accuracy", f"output={tmp_path / 'named'}"],
    )
    events = read_log(train(config) / "log.jsonl")
    assert {event["primary_metric"] for event in events if event["event"] == "eval"} == {"opinions/accuracy"}


def test_problems_of_all_tasks_are_told_at_once(tmp_path: Path, backbone: Path) -> None:
    bad = {
        "entities": [{"text": "北京", "entities": [{"start": 0, "end": 9, "label": "地名"}]}],
        "opinions": [{"text": "很好", "lable": "好评"}],
    }
    with pytest.raises(DataError) as raised:
        prepare(configured(tmp_path, backbone, records=bad))
    places = [problem.place for problem in raised.value.problems]
    assert any("entities.jsonl:1" in place for place in places), places
    assert any("opinions.jsonl:1" in place for place in places), places
    with pytest.raises(ConfigError, match=r"tasks.opinions.task.max_length: 4000 is more than"):
        prepare(load_config(_written(tmp_path / "long", backbone), ["tasks.opinions.task.max_length=4000"]))
    with pytest.raises(ConfigError, match=r"tasks: several tasks can't be trained with train.parallel: fsdp"):
        refuse_unshareable(
            load_config(tmp_path / "long" / "config.yaml", ["train.parallel=fsdp"]),
            "fp32",
            Parallel(rank=0, world=2, device=torch.device("cpu")),
        )


def _written(folder: Path, backbone: Path) -> Path:
    configured(folder, backbone)
    return folder / "config.yaml"
