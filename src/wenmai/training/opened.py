"""A model by any of its names: a run, a bundle, a model folder, a shipped or hub name, a configuration of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenmai.backbones.hub import model_folder
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.bundle import has_bundle, load_bundle
from wenmai.config import RunConfig, TrainConfig, load_config
from wenmai.errors import UserError
from wenmai.heads.head import Head
from wenmai.tasks.model import Model, build_model
from wenmai.tasks.task import Task
from wenmai.training.freezing import freeze
from wenmai.training.task_data import read_parts, task_of


@dataclass(frozen=True)
class Opened:
    """A model and where it comes from; without a task it is a backbone alone."""

    name: str
    module: Model | Backbone
    tokenizer: Tokenizer
    task: Task[Any, Any] | None = None
    train: TrainConfig | None = None
    folder: Path | None = None

    @property
    def backbone(self) -> Backbone:
        return self.module.backbone if isinstance(self.module, Model) else self.module

    @property
    def head(self) -> Head | None:
        return self.module.head if isinstance(self.module, Model) else None


def open_model(name: str, overrides: Sequence[str] = ()) -> Opened:
    """The model behind a name, with the parameters frozen that its run freezes.

    Raises:
        UserError: it can't be used.
    """
    path = Path(name)
    config = path / "config.yaml" if path.is_dir() else path
    trained = has_bundle(path)
    if overrides and trained:
        raise UserError(
            f"{' '.join(overrides)}: {name} is trained already; give the configuration to look at a change"
        )
    if trained:
        bundle = load_bundle(path)
        run = bundle.folder.parent / "config.yaml"
        train = load_config(run).train if run.is_file() else None
        if train is not None:
            freeze(bundle.model, train)
        return Opened(name, bundle.model, bundle.tokenizer, bundle.task, train, bundle.folder)
    if config.is_file():
        return _configured(name, load_config(config, overrides))
    if overrides:
        raise UserError(f"{' '.join(overrides)}: {name} is no configuration, so there is nothing to change")
    backbone = BackboneConfig(model=name)
    return Opened(name, *load_backbone(backbone), folder=model_folder(backbone))


def _configured(name: str, config: RunConfig) -> Opened:
    """The model that a run would begin with; the number of labels is that of its training set."""
    task = task_of(config, read_parts(config, cache=None, output=None, only_train=True))
    backbone, tokenizer = load_backbone(config.backbone)
    model, tokenizer = build_model(task, backbone, tokenizer)
    freeze(model.eval(), config.train)
    return Opened(name, model, tokenizer, task, config.train)
