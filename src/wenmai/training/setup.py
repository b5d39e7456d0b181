"""From a configuration to what the loop needs: data, task, model, plan. All that can fail does so here, at once."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenmai.backbones.e5 import cache_root
from wenmai.backbones.load import load_backbone
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import MixingConfig, PartConfig, RunConfig, TrainConfig, config_tree
from wenmai.data.batching import BatchMaker, Plan, StepSize, measure
from wenmai.data.examples import Examples
from wenmai.data.features import Features
from wenmai.data.featurizing import build_features
from wenmai.data.mixing import MixedMaker, MixedPlan, joined_units, part_seed
from wenmai.data.packing import Groups, packing
from wenmai.data.rows import Row
from wenmai.errors import ConfigError, DataError, Problem, UserError
from wenmai.heads.multi_task import wanted
from wenmai.progress import SILENT, Progress
from wenmai.tasks.model import Model, build_model
from wenmai.tasks.task import Task
from wenmai.training.freezing import freeze
from wenmai.training.optimizer import parameter_groups
from wenmai.training.parallel import ALONE, Parallel
from wenmai.training.task_data import AnyExamples, Splits, read_parts, task_of, tasks_by_name, together

DEFAULT_TOKENS_PER_STEP = 2048

CHANGES_NOTHING = (
    "tokens_per_micro_batch",
    "examples_per_micro_batch",
    "gradient_checkpointing",
    "padding_free",
    "parallel",
    "num_workers",
    "logging_steps",
    "seeds",
)
"""What of the train section may differ when a run goes on: memory, speed and places, not what is learned."""


@dataclass(frozen=True)
class TrainingSet:
    """The training set of one task.

    Args:
        groups: what its rows are made of where they are packed.
    """

    examples: Examples[Any]
    groups: Groups[Any] | None
    maker: BatchMaker

    def place(self, index: int) -> str:
        """Where rows come from: ``train.jsonl:17``, or the first and the last record of packed ones."""
        if self.groups is None:
            return self.examples.place(index)
        places = [self.examples.place(i) for i in self.groups.range(index)]
        return places[0] if len(places) == 1 else f"{places[0]} to {places[-1]}"


@dataclass(frozen=True)
class Prepared:
    """What a run is made of.

    Args:
        sets: the training set of each task.
    """

    data: dict[str, AnyExamples]
    sets: list[TrainingSet]
    task: Task[Any, Any]
    tokenizer: Tokenizer
    model: Model
    maker: BatchMaker | MixedMaker
    plan: Plan | MixedPlan
    epoch_steps: list[int]
    fingerprint: str

    @property
    def total_steps(self) -> int:
        return sum(self.epoch_steps)

    def place(self, unit: int) -> str:
        """Where a unit comes from."""
        number, index = self.plan.where(unit)
        return self.sets[number].place(index)

    def position(self, step: int) -> tuple[int, int]:
        """The epoch that step ``step`` (from 0) belongs to, and its place there."""
        for epoch, count in enumerate(self.epoch_steps):
            if step < count:
                return epoch, step
            step -= count
        return len(self.epoch_steps), 0


def prepare(config: RunConfig, progress: Progress = SILENT, parallel: Parallel = ALONE) -> Prepared:
    """Reads, checks and measures the data and builds the model.

    Args:
        parallel: the processes that train together; only the first writes down what it rejects.

    Raises:
        UserError: anything the user must mend.
    """
    run = Path(config.output)
    cache = run / "cache" if parallel.first else run / "cache" / f"rank-{parallel.rank}"
    parts = read_parts(config, cache=cache, output=run if parallel.first else None)
    task, data = task_of(config, parts), together(parts)
    refuse_unknown_labels(task, data)

    torch.manual_seed(config.seed)
    backbone, tokenizer = load_backbone(config.backbone)
    refuse_too_long_rows(config, tokenizer)
    model, tokenizer = build_model(task, backbone, tokenizer)
    drawn = config.backbone.model is None or config.backbone.weights == "random"
    task.prepare_draws(tokenizer, None if drawn else backbone.word_embeddings.weight.detach().numpy())
    prepare_model(model, config.train)

    with parallel.first_here_first():
        sets = [
            _training_set(own, config.parts[name], tokenizer, parts[name]["train"], seed, progress)
            for (name, own), seed in zip(tasks_by_name(task).items(), _seeds(config), strict=True)
        ]
    maker, plan = _steps(config, sets)
    fingerprint = _fingerprint(config, task, parts)
    if len(set(parallel.gathered(fingerprint))) > 1:
        raise UserError(
            "data.train: not all processes of the run read the same configuration and data: "
            "give every machine the same files"
        )
    return Prepared(
        data=data,
        sets=sets,
        task=task,
        tokenizer=tokenizer,
        model=model,
        maker=maker,
        plan=plan,
        epoch_steps=steps_of_epochs(plan, config.train),
        fingerprint=fingerprint,
    )


def _seeds(config: RunConfig) -> list[int]:
    """Of what is drawn for the rows of each task."""
    return [part_seed(config.seed, i) for i in range(len(config.tasks))] if config.tasks else [config.seed]


def _training_set(
    task: Task[Any, Any],
    part: PartConfig,
    tokenizer: Tokenizer,
    examples: Examples[Any],
    seed: int,
    progress: Progress,
) -> TrainingSet:
    groups = Groups(examples) if task.packed else None
    features = _features(task, tokenizer, examples, groups, feature_cache(part.data.cache), progress)
    draws = type(task).augment is not Task.augment
    maker = BatchMaker(
        features=features,
        units=measure(features, rows_stay_together=task.rows_stay_together),
        augment=partial(task.augment, tokenizer=tokenizer) if draws else None,
        pad_id=tokenizer.pad_id,
        seed=seed,
    )
    return TrainingSet(examples, groups, maker)


def _steps(
    config: RunConfig, sets: list[TrainingSet]
) -> tuple[BatchMaker, Plan] | tuple[MixedMaker, MixedPlan]:
    """What makes the batches, and which there are."""
    size, makers = step_size(config.train), [own.maker for own in sets]
    if not config.tasks:
        return makers[0], Plan(makers[0].units, size, config.seed)
    mixing = config.mixing or MixingConfig()
    first_P = np.cumsum([0, *(len(maker.units) for maker in makers)])
    plan = MixedPlan(
        units=joined_units([maker.units for maker in makers]),
        first_P=first_P,
        size=size,
        seed=config.seed,
        temperature=mixing.temperature,
        batches_per_step=mixing.batches_per_step,
    )
    return MixedMaker(makers, [wanted(name) for name in config.tasks], first_P), plan


def refuse_too_long_rows(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Makes sure that the backbone has positions for all tokens of a row.

    Raises:
        ConfigError: it has not.
    """
    problems = [
        Problem(
            f"tasks.{name}.task.max_length" if name else "task.max_length",
            f"{part.task.max_length} is more than the {tokenizer.max_length} positions of "
            f"{config.backbone.title}: lower it (longer texts are read in windows), or give the model more "
            "(backbone.positions)",
        )
        for name, part in config.parts.items()
        if part.task.max_length > tokenizer.max_length
    ]
    if problems:
        raise ConfigError("the configuration can't be used:", problems)


def feature_cache(setting: str | None) -> Path | None:
    """The folder of ``data.cache``; None keeps nothing."""
    if setting == "off":
        return None
    return cache_root() / "features" if setting is None else Path(setting)


def prepare_model(model: Model, config: TrainConfig) -> None:
    """Sets the model up as the train section asks.

    Raises:
        UserError: it can't be.
    """
    if config.r_drop is not None and not model.head.defines_divergence:
        raise ConfigError(
            "the configuration can't be used:",
            [
                Problem(
                    "train.r_drop",
                    f"no divergence is defined for the outputs of a {type(model.head).__name__}: remove train.r_drop",
                )
            ],
        )
    freeze(model, config)
    parameter_groups(model, config)  # its refusals come before the long work
    model.backbone.set_padding_free(config.padding_free)
    if config.gradient_checkpointing:
        model.backbone.enable_gradient_checkpointing()


def step_size(config: TrainConfig) -> StepSize:
    tokens = config.tokens_per_step
    if tokens is None and config.examples_per_step is None:
        tokens = DEFAULT_TOKENS_PER_STEP
    return StepSize(
        tokens=tokens,
        examples=config.examples_per_step,
        micro_tokens=config.tokens_per_micro_batch,
        micro_examples=config.examples_per_micro_batch,
    )


def steps_of_epochs(plan: Plan | MixedPlan, config: TrainConfig) -> list[int]:
    """How many steps every epoch has, the last one cut where ``epochs``, ``max_steps`` or ``max_tokens`` end."""
    counts: list[int] = []
    steps_left = config.max_steps if config.max_steps is not None else math.inf
    tokens_left = config.max_tokens if config.max_tokens is not None else math.inf
    for epoch in range(math.ceil(config.epochs)):
        steps = plan.steps(epoch)
        steps = steps[: round(len(steps) * min(1.0, config.epochs - epoch))] or steps[:1]
        if tokens_left < math.inf:
            tokens = np.cumsum([plan.tokens(step) for step in steps])
            steps = steps[: int(np.searchsorted(tokens, tokens_left)) + 1]
            tokens_left -= int(tokens[len(steps) - 1])
        count = int(min(len(steps), steps_left))
        counts.append(count)
        steps_left -= count
        if steps_left <= 0 or tokens_left <= 0:
            break
    return counts


def refuse_unknown_labels(task: Task[Any, Any], data: dict[str, AnyExamples]) -> None:
    problems = [
        Problem(examples.place(i), message)
        for name, examples in data.items()
        for i, example in enumerate(examples)
        for message in (task.training_problems(example) if name == "train" else task.label_problems(example))
    ]
    if problems:
        raise DataError(f"{len(problems)} labels can't be used:", problems)


def _features(
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    examples: Examples[Any],
    groups: Groups[Any] | None,
    folder: Path | None,
    progress: Progress,
) -> Features:
    """The rows of the training set, of each example or of each group of them."""
    key_parts = [json.dumps(task.meta(), sort_keys=True, ensure_ascii=False), tokenizer.identity]

    def featurize(example: Any) -> list[Row]:
        return task.training_rows(example, tokenizer)

    if groups is None:
        with progress.task("tokenising", len(examples), "examples") as step:
            return build_features(
                examples, featurize, key_parts=key_parts, folder=folder, advance=step.advance
            )
    with progress.task("tokenising", len(groups), "groups of texts") as step:
        return build_features(
            groups,
            packing(featurize, task.config.max_length),
            key_parts=key_parts,
            folder=folder,
            at_once=1,
            advance=step.advance,
        )


def _fingerprint(config: RunConfig, task: Task[Any, Any], parts: dict[str, Splits]) -> str:
    """Of what decides the result: the configuration without places and speed, labels, draw files, and the records of
    the training set and of the dev set, by which the best model is chosen."""
    tree = config_tree(config)
    for key in ("output", "trackers", "tune", "data"):
        tree.pop(key, None)
    for section in tree.get("tasks", {}).values():
        del section["data"]
    for key in CHANGES_NOTHING:
        tree["train"].pop(key)
    digest = hashlib.sha256(json.dumps([tree, task.labels], sort_keys=True, ensure_ascii=False).encode())
    for path in task.draw_files:
        digest.update(path.read_bytes())
    for name, own in parts.items():
        digest.update(name.encode())
        for split in ("train", "dev"):
            digest.update(split.encode())
            for index in range(len(own.get(split, ()))):
                digest.update(own[split].record(index).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
